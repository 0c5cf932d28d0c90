from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from convo_cli.cli.app import main

GOOD = '["Hello", "Hi!"]\n'
BAD = '["Hello", "Hi!"]\n["Hello", ""]\n{"messages": [{"role": "narrator", "content": "Once"}]}\n'
CONFIG = "model: {scratch: {}}\ntraining: {max_steps: 1}\ndata:\n  train: train.jsonl\n"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Convo = Callable[..., Result]


@pytest.fixture
def convo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Convo:
    """Runs `convo validate-data` in a folder of its own, on 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["convo", "validate-data", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Result(code, *capsys.readouterr())

    return run


def write(name: str, content: str) -> None:
    Path(name).write_text(content, encoding="utf-8")


def test_a_good_file_is_ok_and_nothing_goes_to_stderr(convo: Convo) -> None:
    write("train.jsonl", GOOD)
    result = convo("train.jsonl")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("train.jsonl\n")
    assert result.out.endswith("\nok: 1 dialogue can be trained on\n")


def test_errors_exit_3_with_their_places_and_one_hint_each(convo: Convo) -> None:
    write("train.jsonl", BAD)
    write("valid.jsonl", BAD)
    result = convo("train.jsonl", "valid.jsonl")
    assert (result.code, result.err) == (3, "")
    lines = result.out.splitlines()
    assert "  train.jsonl:2:11 $[1]  the text is empty" in lines
    assert "  valid.jsonl:2:11 $[1]  the text is empty" in lines
    assert sum(line.startswith("  hint: remove the turn") for line in lines) == 1
    assert any(
        line.startswith("  train.jsonl:3:24 $.messages[0].role  the speaker") for line in lines
    )
    assert lines[-1] == "not trainable: 4 errors, 1 warning"


def test_warnings_do_not_fail(convo: Convo) -> None:
    write("train.jsonl", GOOD + GOOD)
    result = convo("train.jsonl")
    assert result.code == 0
    assert "warning duplicate  1\n" in result.out
    assert result.out.endswith("ok: 2 dialogues can be trained on, 1 warning\n")


def test_the_report_fits_80_columns_and_is_plain_in_a_pipe(convo: Convo) -> None:
    write(
        "train.jsonl",
        "".join(json.dumps([f"{number} 안녕", "Hi!" * number]) + "\n" for number in range(1, 3000)),
    )
    write("valid.jsonl", json.dumps(["2 안녕", "Hi!Hi!"]) + "\n")
    result = convo("train.jsonl", "valid.jsonl")
    assert result.code == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert "\x1b" not in result.out
    assert "turns per dialogue" in result.out
    assert "█" in result.out
    assert "\nvalid.jsonl: 1 dialogue (100%) also in train.jsonl\n" in result.out


def test_quiet_leaves_only_problems_and_the_verdict(convo: Convo) -> None:
    write("train.jsonl", GOOD)
    assert convo("-q", "train.jsonl").out == "ok: 1 dialogue can be trained on\n"


def test_many_problems_are_summed_up(convo: Convo) -> None:
    write("train.jsonl", '["Hello", ""]\n' * 9)
    result = convo("-q", "--max-problems", "2", "train.jsonl")
    assert result.out.splitlines()[:4] == [
        "error empty-utterance  9",
        "  train.jsonl:1:11 $[1]  the text is empty",
        "  train.jsonl:2:11 $[1]  the text is empty",
        "  7 more in train.jsonl",
    ]
    assert "  9 in train.jsonl\n" in convo("-q", "--max-problems", "0", "train.jsonl").out


def test_json_is_one_object_with_the_whole_report(convo: Convo) -> None:
    write("train.jsonl", BAD)
    write("valid.jsonl", GOOD)
    result = convo("--json", "train.jsonl", "valid.jsonl")
    assert (result.code, result.err) == (3, "")
    report = json.loads(result.out)
    assert (report["command"], report["json_version"], report["is_trainable"]) == (
        "validate-data",
        2,
        False,
    )
    assert (report["num_errors"], report["num_warnings"]) == (2, 1)
    assert [file["file"] for file in report["files"]] == ["train.jsonl", "valid.jsonl"]
    assert report["leaks"][0]["examples"] == [[1, 1]]
    assert report["files"][0]["num_turns_by_role"] == {"system": 0, "user": 1, "assistant": 1}
    (group, _) = report["files"][0]["problem_groups"]
    assert {key: group[key] for key in ("code", "severity", "count")} == {
        "code": "empty-utterance",
        "severity": "error",
        "count": 1,
    }
    assert group["problems"] == [
        {
            "code": "empty-utterance",
            "message": "the text is empty",
            "path": "$[1]",
            "column": 11,
            "line": 2,
            "file": "train.jsonl",
        }
    ]


def test_a_missing_file_is_a_usage_error_without_a_traceback(convo: Convo) -> None:
    write("train.jsonl", GOOD)
    result = convo("trian.jsonl")
    assert (result.code, result.out) == (2, "")
    assert result.err == "error: trian.jsonl does not exist\nhint: did you mean train.jsonl?\n"


def test_no_file_at_all_is_a_usage_error(convo: Convo) -> None:
    result = convo()
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: no file to check\n")


def test_stdin_can_be_read_once(convo: Convo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert convo("-q", "-").out == "ok: 1 dialogue can be trained on\n"
    assert convo("-", "-").code == 2


def test_compressed_files_are_read(convo: Convo) -> None:
    Path("train.jsonl.gz").write_bytes(gzip.compress(GOOD.encode()))
    assert convo("-q", "train.jsonl.gz").code == 0


def test_a_config_gives_the_files_and_the_speakers(convo: Convo) -> None:
    write(
        "config.yaml", CONFIG + "  validation: valid.jsonl\n  speakers: {user: [user, narrator]}\n"
    )
    write("train.jsonl", GOOD)
    write(
        "valid.jsonl",
        '[{"role": "narrator", "content": "Once"}, {"role": "bot", "content": "Go on"}]\n',
    )
    report = json.loads(convo("--json", "--config", "config.yaml").out)
    assert [file["file"] for file in report["files"]] == ["train.jsonl", "valid.jsonl"]
    assert report["is_trainable"]
    report = json.loads(convo("--json", "--config", "config.yaml", "valid.jsonl").out)
    assert [file["file"] for file in report["files"]] == ["valid.jsonl"]
    assert report["is_trainable"]


def test_a_wrong_config_is_refused_before_the_data_is_read(convo: Convo) -> None:
    write("config.yaml", CONFIG + "  trian: x.jsonl\n")
    result = convo("--config", "config.yaml")
    assert (result.code, result.out) == (2, "")
    assert "config.yaml" in result.err


def test_the_first_speaker_can_be_named_on_the_command_line(convo: Convo) -> None:
    write("train.jsonl", '["Hello", "Hi!", "Bye"]\n')
    roles = [
        json.loads(convo("--json", *options, "train.jsonl").out)["files"][0]["num_turns_by_role"]
        for options in ([], ["--first-speaker", "assistant"])
    ]
    assert roles == [
        {"system": 0, "user": 2, "assistant": 1},
        {"system": 0, "user": 1, "assistant": 2},
    ]
    assert convo("--first-speaker", "narrator", "train.jsonl").code == 2


def test_nothing_of_the_data_controls_the_terminal_or_the_markup(convo: Convo) -> None:
    name = "\x1b[31mred\x9b1m[bold].jsonl"
    write(
        name,
        '[{"role": "\x9b31m[/INST]\\u202e", "content": "\x9b31m"}, {"\x9b2J": 1, "role": "bot"}]\n',
    )
    result = convo(name)
    assert result.code == 3
    assert not any(char in result.out for char in "\x1b\x9b\u202e")
    assert "red[bold].jsonl:1:11 $[0].role" in result.out
    assert "[/INST]" in result.out


def test_help_has_an_example(convo: Convo) -> None:
    result = convo("--help")
    assert result.code == 0
    assert "convo validate-data train.jsonl" in result.out


def test_neither_torch_nor_transformers_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(GOOD)
    code = (
        "import sys\n"
        "from convo_cli.cli.app import main\n"
        f"sys.argv = ['convo', 'validate-data', '-q', {str(path)!r}]\n"
        "try:\n    main()\nfinally:\n"
        "    print(*({'torch', 'transformers', 'tokenizers', 'sentencepiece'} & "
        "set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "ok: 1 dialogue can be trained on\n\n"
