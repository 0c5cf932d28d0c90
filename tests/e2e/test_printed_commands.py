"""Every command that convo prints works as typed, for every preset and every end of a run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from convo_cli.config.load import apply_overrides, dump_config, load_config
from convo_cli.config.presets import PRESETS
from convo_cli.errors import typeable
from convo_cli.training import loop
from tests.cases import quick_first, quick_only
from tests.commands import make_workplace, run_here, settings

_COMMAND = re.compile(
    r"`(convo [a-z-]+ [^`\n]+)`|^ *(?:#|hint:|see every problem:)? *(convo [a-z-]+ [^`\n]+)$",
    re.MULTILINE,
)
RUNS = "it's my runs"
QUICK = (
    "evaluation.reply_dialogues=1", "evaluation.max_dialogues=2", "generation.max_new_tokens=4",
    "logging.tensorboard=false", "logging.plots=false",
)  # fmt: skip
TINY = (f'output_dir="{RUNS}"', "dialogue.max_length=128", "training.device=cpu", *QUICK)
SCRATCH = (
    "model.scratch.layers=1",
    "model.scratch.width=32",
    "model.scratch.heads=2",
    "tokenizer.vocab_size=700",
)


def printed(text: str) -> list[str]:
    """The commands in convo's output; a mere name such as `convo train` is not one."""
    return [quoted or line for quoted, line in _COMMAND.findall(text)]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A tiny pretrained model: the export of a tiny run."""
    folder = make_workplace(tmp_path_factory.mktemp("pretrained"))
    assert (
        run_here(folder, "train", "config.yaml", "-q", *settings("training.max_steps=1")).code == 0
    )
    assert run_here(folder, "export", "runs/tiny", "model", "-q").code == 0
    return folder / "model"


@pytest.fixture
def work(tmp_path):
    return make_workplace(tmp_path)


@pytest.fixture
def convo(work):
    return partial(run_here, work)


class Typed:
    """Types the commands that convo prints, and those that they print in turn, each once."""

    def __init__(self, convo) -> None:
        self._convo, self.done = convo, []

    def __call__(self, text: str, depth: int) -> None:
        for command in printed(text):
            if command in self.done:
                continue
            self.done.append(command)
            words = shlex.split(command)
            result = self._convo(*words[1:], stdin=b"Hello!\n")
            output = result.out + result.err
            assert result.code == 0, f"{command}\n{output}"
            assert "--set" not in words or "nothing to do" not in output, f"{command}\n{output}"
            if depth > 1:
                self(output, depth - 1)


@pytest.mark.parametrize("name", quick_only(PRESETS, "scratch", "chat-model"))
def test_what_a_preset_leads_to_can_be_typed(work, convo, pretrained, name):
    data = ("--train", "train.jsonl", "--validation", "valid.jsonl")
    made = convo("init-config", "--preset", name, *data, "-o", "config.yaml", "--force")
    assert made.code == 0
    typed = Typed(convo)
    typed(made.err + (work / "config.yaml").read_text(encoding="utf-8"), depth=1)
    assert typed.done == ["convo init-config --schema -o convo.schema.json"]

    config = load_config(work / "config.yaml")
    tiny = [*TINY, *(SCRATCH if config.model.scratch else [f"model.pretrained={pretrained}"])]
    for file, count in (("train.jsonl", 20), ("valid.jsonl", 2)):
        lines = (work / file).read_text(encoding="utf-8").splitlines(keepends=True)
        # Two of the templates have no place for a system turn.
        lines = [line for line in lines if '"system"' not in line]
        (work / file).write_text("".join(lines[:count]), encoding="utf-8")
    tiny += (
        ["training.max_steps=2"]
        if config.training.max_steps
        else ["training.epochs=1", "training.batch_size=10"]
    )
    (work / "config.yaml").write_text(dump_config(apply_overrides(config, tiny)), encoding="utf-8")
    trained = convo("train", "config.yaml")
    assert trained.code == 0, trained.err
    typed(trained.err, depth=2 if name == "scratch" else 1)
    run = f"{RUNS}/{config.name}"
    assert typed.done[1:3] == [
        f"convo chat {shlex.quote(run)}",
        f"convo export {shlex.quote(run)} exports/{config.name}",
    ]
    assert any(
        "convo resume" in command and " --set training." in command for command in typed.done
    )
    typed(convo("train", "config.yaml").err, depth=1)
    assert typed.done[-1] == f"convo resume {shlex.quote(run)}"
    assert convo("evaluate", run, "valid.jsonl").code == 0


def test_a_run_that_stopped_early_and_one_that_did_so_with_its_last_step_continue(convo):
    stopping = (
        *QUICK, "training.learning_rate=1e-9", "evaluation.every_steps=1",
        "evaluation.early_stopping.patience=2", "evaluation.early_stopping.min_delta=0.5",
    )  # fmt: skip
    for name, max_steps in (("early", 4), ("last", 3)):
        ended = convo(
            "train",
            "config.yaml",
            *settings(f"name={name}", f"training.max_steps={max_steps}", *stopping),
        )
        assert "validation loss did not improve in 2 evaluations" in ended.err
        typed = Typed(convo)
        typed(ended.err, depth=1)
        assert any("--set evaluation.early_stopping.patience=null" in one for one in typed.done)


def test_a_run_of_epochs_of_which_a_step_is_more_continues(convo):
    epochs = settings(
        "training.max_steps=null", "training.epochs=0.1", "training.batch_size=20", *QUICK
    )
    ended = convo("train", "config.yaml", *epochs)
    typed = Typed(convo)
    typed(ended.err, depth=1)
    assert typed.done[-1] == "convo resume runs/tiny --set training.epochs=1"


@pytest.mark.parametrize(
    ("trained", "resumed"),
    quick_first(
        [
            (("training.max_steps=2",), ("training.max_steps=null", "training.epochs=0.1")),
            (
                ("training.max_steps=null", "training.epochs=0.3"),
                ("training.epochs=null", "training.max_steps=1"),
            ),
            (("training.max_steps=null", "training.epochs=0.3"), ("training.epochs=0.1",)),
        ]
    ),
)
def test_a_run_that_is_over_by_the_settings_of_a_resume_continues(convo, trained, resumed):
    """These settings are not stored, so the next command must not rely on them."""
    assert (
        convo("train", "config.yaml", *settings(*trained, *QUICK, "data.validation=[]")).code == 0
    )
    over = convo("resume", "runs/tiny", *settings(*resumed))
    assert "nothing to do" in over.err
    typed = Typed(convo)
    typed(over.err, depth=1)
    assert "convo resume runs/tiny --set training." in typed.done[-1]


@pytest.mark.parametrize(
    "arguments", [("train", "config.yaml"), ("resume", "runs/tiny", "--verify", "--steps", "3")]
)
def test_a_command_that_a_signal_stopped_says_how_to_continue(convo, monkeypatch, arguments):
    short = settings("training.max_steps=3", "data.validation=[]", *QUICK)
    if arguments[0] == "resume":
        assert convo("train", "config.yaml", "-q", *short).code == 0
    step, taken = loop.train_step, []

    def stop_after_two(state, job):
        taken.append(state)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(state, job)

    monkeypatch.setattr(loop, "train_step", stop_after_two)
    stopped = convo(*arguments, *(short if arguments[0] == "train" else ()))
    assert stopped.code == 128 + signal.SIGTERM, stopped.err
    assert printed(stopped.err), stopped.err
    Typed(convo)(stopped.err, depth=1)


def test_a_stop_file_leads_to_commands_that_work(work, convo, monkeypatch):
    step = loop.train_step

    def touch(state, job):
        (work / "runs/tiny/stop").touch()
        return step(state, job)

    monkeypatch.setattr(loop, "train_step", touch)
    stopped = convo("train", "config.yaml", *settings(*QUICK))
    assert stopped.code == 0
    monkeypatch.undo()
    typed = Typed(convo)
    typed(stopped.err, depth=1)
    assert typed.done[-1] == "convo resume runs/tiny"


def test_a_config_that_is_missing_is_made_by_the_command_in_the_hint(work, convo):
    missing = convo("train", "my configs/ü's.yaml")
    assert missing.code == 2
    (command,) = printed(missing.err)
    no_folder = convo(*shlex.split(command)[1:])
    assert no_folder.code == 2
    subprocess.run(
        shlex.split(no_folder.err.splitlines()[-1].removeprefix("hint: ")), cwd=work, check=True
    )
    Typed(convo)(missing.err, depth=1)
    assert (work / "my configs/ü's.yaml").is_file()
    Typed(convo)(convo("init-config", "--preset", "nonsense").err, depth=1)


def test_data_that_is_refused_leads_to_the_command_that_shows_every_problem(work, convo):
    shutil.copyfile(work / "train.jsonl", work / "my data.jsonl")
    with (work / "my data.jsonl").open("a") as file:
        file.write('["cut\n["Hi", 7]\n')
    refused = convo("train", "config.yaml", *settings("data.train=my data.jsonl"))
    assert refused.code == 3
    (command,) = printed(refused.err)
    shown = convo(*shlex.split(command)[1:])
    assert (shown.code, "2 errors" in shown.out) == (3, True), shown.out


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "-x",
        "a b",
        "it's",
        '"',
        "ü",
        "tab\there",
        "line\nbreak",
        "\x1b[31m",
        "\udcff",
        "\u202e",
        "$HOME",
        "\\'",
    ],
)
def test_a_path_in_a_hint_is_typed_as_it_stands(tmp_path, name):
    shell = shutil.which("bash") or pytest.skip("there is no bash")
    text = typeable(Path(name))
    assert text.isprintable()
    output = subprocess.run(
        [shell, "-c", f"printf %s {text}"], capture_output=True, check=True
    ).stdout
    assert Path(os.fsdecode(output)) == Path(name)
