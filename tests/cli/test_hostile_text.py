"""No text from arguments, file names, configs, data, model folders or a model controls the
terminal, in any command.

What is checked is what the executable writes: into a pipe not one control character, on a terminal
only convo's own.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands import EXECUTABLE, TINY, environment, run_here, run_process, settings
from tests.forks import run_fork

pytestmark = pytest.mark.skipif(os.name != "posix", reason="file names of any bytes")
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2028-\u202e\u2060-\u206f\u3164\ufeff\U000e0000-\U000e007f]"
)
MARKUP = "[bold]:smile:[link=a]"
EVIL = (
    "\x1b]0;evil\x07\x1b[666mX\x1b[2J\x9b666m\x9d0;evil\x9c\x1bP1$r\x1b\\\x90q\x9c\x1b_apc\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\"
    f"\x1bc\x1b(0\x0e\x08\r\x7f\x85\u202e\u2066\u200b\u2060\u3164\u00ad\U000e0041{MARKUP}"
)
NAME = EVIL.replace("/", "")
TRAIN = ["train", "config.yaml"]


def case(*arguments, code=2, **files):
    return arguments, code, files


def yaml(text):
    """YAML's own spelling, in which any character can be written."""
    return json.dumps(text)


REFUSED = {
    "a command": case(EVIL),
    "an option": case("chat", f"--{EVIL}"),
    "a number": case("chat", "m", "--max-new-tokens", EVIL),
    "a choice": case("resume", "runs/tiny", "--load", EVIL),
    "an argument too many": case("resume", "a", EVIL),
    "a device": case("chat", "m", "--device", EVIL),
    "bytes that are no text": case("chat", os.fsdecode(b"\xff\xfe\x1b[666m")),
    "a model": case("chat", EVIL),
    "a model to evaluate": case("evaluate", NAME, "valid.jsonl"),
    "data to evaluate": case("evaluate", "exports/tiny", NAME),
    "a file to validate": case("validate-data", EVIL),
    "a tokenizer": case("validate-data", "--tokenizer", EVIL, "valid.jsonl"),
    "a file for repaired data": case("validate-data", "valid.jsonl", "--fix", f"{NAME}/x.jsonl"),
    "a run": case("resume", EVIL),
    "a run to report": case("report", EVIL),
    "a page of a report": case("report", "runs/tiny", "-o", f"{NAME}/x.html"),
    "a source to export": case("export", EVIL, "out"),
    "a place to export to": case("export", "runs/tiny", f"train.jsonl/{NAME}", code=7),
    "a preset": case("init-config", "--preset", EVIL),
    "a place for a config": case("init-config", "-o", f"{NAME}/a.yaml"),
    "a config": case("train", NAME),
    "a config of that name that is broken": case("train", NAME, **{NAME: "a: [\n"}),
    "a key to set": case(*TRAIN, "--set", f"{EVIL}=1"),
    "a value to set": case(*TRAIN, "--set", f"training.max_steps={EVIL}"),
    "data to train on": case(*TRAIN, *settings("name=new", f"data.train={yaml(NAME)}")),
    "a key of a config": case("train", "c.yaml", **{"c.yaml": f"{yaml(EVIL)}: 1\n{TINY}"}),
    "a value of a config": case("train", "c.yaml", **{"c.yaml": TINY.replace("1e-3", yaml(EVIL))}),
    "a name of a config": case(
        "train", "c.yaml", **{"c.yaml": TINY.replace("tiny", yaml(EVIL), 1)}
    ),
    "no YAML at all": case("train", "c.yaml", **{"c.yaml": f"a: {EVIL}: {{"}),
    "a text in a file of that name": case(
        "validate-data", NAME, code=3, **{NAME: json.dumps([EVIL, "a"]) + "\n"}
    ),
    "a key in data": case(
        "validate-data", "d.jsonl", code=3, **{"d.jsonl": json.dumps({EVIL: [EVIL]}) + "\n"}
    ),
    "a role in data": case(
        "validate-data",
        "d.jsonl",
        code=3,
        **{
            "d.jsonl": json.dumps(
                [{"role": EVIL, "content": "a"}, {"role": f"a{MARKUP}", "content": "b"}]
            )
            + "\n"
        },
    ),
    "data that is no JSON": case(
        "validate-data", "d.jsonl", code=3, **{"d.jsonl": f'["a{EVIL}", {EVIL}\n'}
    ),
    "a config.json": case(
        "chat",
        "m",
        **{"m/config.json": json.dumps({"model_type": EVIL, "attn_implementation": f"a/{EVIL}"})},
    ),
    "an index of weights": case(
        "chat",
        "m",
        **{
            "m/config.json": '{"model_type": "gpt2"}',
            "m/model.safetensors.index.json": json.dumps({"weight_map": {"a": f"../{EVIL}"}}),
        },
    ),
    "a manifest": case(
        "export",
        "m",
        "out",
        code=5,
        **{
            "m/MANIFEST.json": json.dumps(
                {"format": 1, "files": {EVIL: {"size": 1, "sha256": "a"}}}
            )
        },
    ),
}


def require_harmless(result, code):
    assert result.code == code, result
    for shown in (result.out, result.err):
        assert not CONTROL.search(shown), shown
        assert "Traceback" not in shown
    return result


def prepared(tmp_path, trained, name):
    arguments, code, files = REFUSED[name]
    for kept in ("config.yaml", "train.jsonl", "valid.jsonl", "runs", "exports"):
        (tmp_path / kept).symlink_to(trained / kept)
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(content)
    return arguments, code


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_quoted_harmlessly(tmp_path, trained, name):
    arguments, code = prepared(tmp_path, trained, name)
    result = require_harmless(run_here(tmp_path, *arguments), code)
    assert "error" in result.err + result.out
    require_harmless(run_here(tmp_path, *arguments, "--json"), code)


ONE_OF_EACH = (
    "a command",
    "bytes that are no text",
    "a file to validate",
    "a text in a file of that name",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in ONE_OF_EACH)) for n in REFUSED]
)
def test_the_executable_quotes_as_harmlessly(tmp_path, trained, name):
    arguments, code = prepared(tmp_path, trained, name)
    require_harmless(run_process(tmp_path, *arguments), code)


@pytest.fixture
def evil_model(work):
    """A foreign model that says nothing but control sequences, whichever tokens it chooses."""
    folder = work / "evil"
    shutil.copytree(work / "exports/tiny", folder)
    for name in ("MANIFEST.json", "dialogue.json"):
        (folder / name).unlink()
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    kept = {token["content"] for token in content["added_tokens"]}
    pieces = (
        EVIL,
        "\x1b",
        "[666m",
        "\x1b]0;ev",
        "il\x07",
        "\x9b66",
        "6m",
        "\x1bP",
        "\x9d",
        MARKUP,
        "\u202e",
        "a\rb",
    )
    for index, entry in enumerate(content["model"]["vocab"]):
        if entry[0] not in kept and not re.fullmatch("<0x..>", entry[0]) and entry[0] != "<unk>":
            entry[0] = pieces[index % len(pieces)] + f"{index}"
    file.write_text(json.dumps(content))
    return folder


def test_what_a_model_says_reaches_a_pipe_as_text(work, evil_model):
    result = run_fork(work, "chat", "evil", "--temperature", "5", "--seed", "1", stdin=b"hi\nyou\n")
    require_harmless(result, 0)
    assert "[bold]:smile:" in result.out
    assert len(result.out.splitlines()) == 2


@pytest.mark.parametrize(
    "chat_template",
    [
        "{{ raise_exception(" + json.dumps(EVIL) + ") }}",
        "{{ messages[0][" + json.dumps(EVIL) + "].x }}",
        "{% " + EVIL + " %}",
        EVIL,
        "{% for m in messages %}"
        + EVIL
        + "{{ m.content }}{% endfor %}{% if add_generation_prompt %}"
        + EVIL
        + "{% endif %}",
    ],
)
def test_what_a_chat_template_says_is_text(work, evil_model, chat_template):
    (evil_model / "chat_template.jinja").write_text(chat_template)
    require_harmless(run_here(work, "chat", "evil", stdin=b"hi\n"), 2)


ONCE = ("export", "init-config")  # what they wrote is in their way the second time


def test_runs_and_exports_and_data_of_any_name_are_shown_harmlessly(work):
    run, out, data = f"{NAME}-run", f"{NAME}/out", f"{NAME}.jsonl"
    dialogues = [[f"Hi {MARKUP} \u202e", f"{MARKUP} yes"], ["שלום \u200f", "bye"]]
    (work / data).write_text("".join(json.dumps(dialogue) + "\n" for dialogue in dialogues * 3))
    shutil.move(work / "runs/tiny", work / run)
    for arguments in (
        ["resume", run, *settings("training.max_steps=7")],
        ["export", run, out],
        ["evaluate", out, data],
        ["validate-data", data, "--tokenizer", out, "--show-tokens", 2],
        ["validate-data", data, "--fix", f"{NAME}-fixed.jsonl", "--force"],
        ["chat", out],
        ["init-config", "-o", f"{NAME}.yaml", "--train", "valid.jsonl"],
    ):
        shown = require_harmless(run_here(work, *arguments, stdin=b"hi\n"), 0)
        assert MARKUP in shown.out + shown.err or arguments[0] in ("evaluate", "chat")
        require_harmless(
            run_here(work, *arguments, "--json", stdin=b"hi\n"), 2 if arguments[0] in ONCE else 0
        )
    weights = sorted(work.glob("*-run/checkpoints/*/model.safetensors"))[-1]
    weights.write_bytes(weights.read_bytes()[:-1])
    shown = require_harmless(run_here(work, "chat", run, stdin=b"hi\n"), 0)
    assert MARKUP in shown.err


def test_what_is_said_in_training_data_is_text_in_the_log(work):
    dialogues = [[f"Hi {MARKUP} \u202e\u2066", f"{MARKUP} yes \u202e"], ["שלום \u200f", "bye"]]
    (work / "d.jsonl").write_text(
        "".join(json.dumps(dialogue) + "\n" for dialogue in dialogues * 3)
    )
    pairs = ("name=new", f"output_dir={yaml(MARKUP)}", "data.validation=d.jsonl")
    assert MARKUP in require_harmless(run_here(work, *TRAIN, *settings(*pairs)), 0).err


def on_terminal(folder: Path, *arguments: str, talk: Sequence[tuple[bytes, bytes]] = ()) -> str:
    """Everything that a command writes to a terminal of its own; ``talk``: what to wait for, and
    then to type.
    """
    import pty

    main_end, far_end = pty.openpty()
    process = subprocess.Popen(
        [EXECUTABLE, *arguments],
        cwd=folder,
        env={**environment(TERM="xterm-256color"), "NO_COLOR": ""},
        stdin=far_end,
        stdout=far_end,
        stderr=far_end,
        start_new_session=True,
    )
    os.close(far_end)
    seen, position, left, deadline = b"", 0, list(talk), time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            if select.select([main_end], [], [], 0.5)[0]:
                try:
                    part = os.read(main_end, 65536)
                except OSError:  # how Linux says that the other end is closed
                    break
                seen += part
            if left and (found := seen.find(left[0][0], position)) >= 0:
                position = found + 1
                os.write(main_end, left.pop(0)[1])
        process.wait(10)
    finally:
        process.kill()
        process.wait()
        os.close(main_end)
    assert process.returncode == 0, seen
    return seen.decode()


OWN = re.compile(r"\x1b\[(?!666)[?>]?[0-9;]*[A-Za-z]|\x1b\[\?[0-9;$]*[a-z]|\r\n|\r|\x08")
"""Colours, cursor and modes, as Rich and prompt_toolkit write them."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="pseudo-terminals")
def test_on_a_terminal_there_are_only_the_sequences_of_convo_itself(work, evil_model):
    talk = [(b"/quit", b"hi\r"), (b"[cut at", b"you\r"), (b"[cut at", b"/quit\r")]
    chat = on_terminal(work, "chat", "evil", "--seed", "1", "--temperature", "5", talk=talk)
    shutil.move(work / "runs/tiny", work / NAME)
    resumed = on_terminal(work, "resume", NAME, *settings("training.max_steps=8"))
    for seen in (chat, resumed):
        assert "\x1b[" in seen, "it is a terminal"
        rest = OWN.sub("", seen)
        assert not CONTROL.search(rest), rest
        assert "\x1b[666m" not in seen
    assert ":smile:" in chat


TWO_LINES = "a\nhint: run this"


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate-data", f"{TWO_LINES}.jsonl"],
        ["train", f"{TWO_LINES}.yaml"],
        ["resume", f"x/{TWO_LINES}/y"],
        ["chat", f"./{TWO_LINES}"],
        ["train", "config.yaml", *settings("name=new", f"data.train={json.dumps([TWO_LINES])}")],
        ["train", "config.yaml", *settings("name=new", f"output_dir=config.yaml/{TWO_LINES}")],
    ],
)
def test_a_line_break_in_a_given_name_begins_no_line(work, arguments):
    shown = run_here(work, *arguments)
    assert shown.code != 0
    assert "\nhint: run" not in shown.err, shown.err
    assert "\\nhint: run" in shown.err


@pytest.mark.parametrize("name", [f"{TWO_LINES}.bin", f"{TWO_LINES}.json"])
def test_a_line_break_in_the_name_of_a_foreign_file_begins_no_line(work, name):
    (work / "m").mkdir()
    (work / "m/config.json").write_text('{"model_type": "gpt2"}')
    if name.endswith(".json"):
        shutil.copy(work / "exports/tiny/model.safetensors", work / "m")
        (work / "m" / name).symlink_to(work / "config.yaml")
    else:
        (work / "m" / name).write_bytes(b"x")
    shown = run_here(work, "chat", "m", stdin=b"hi\n")
    assert shown.code == 2
    assert "\\nhint: run this" in shown.err


def test_a_line_break_in_the_name_of_a_file_beside_a_checkpoint_begins_no_line(work):
    (max((work / "runs/tiny/checkpoints").iterdir()) / TWO_LINES).write_text("x")
    shown = run_here(work, "chat", "runs/tiny", "--load", "last", stdin=b"hi\n")
    assert "\\nhint: run this: not part of the checkpoint" in shown.err


def test_a_name_on_two_lines_is_shown_on_one_in_a_problem_of_data(work):
    (work / f"{TWO_LINES}.jsonl").write_text("no json\n")
    data = f"data.train={json.dumps([f'{TWO_LINES}.jsonl'])}"
    shown = run_here(work, "train", "config.yaml", *settings("name=n", data))
    assert shown.code == 3
    assert "\nhint: run" not in shown.err
