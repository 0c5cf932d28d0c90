"""The help of `convo`, and its answers to unknown words."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from convo_cli import __version__
from convo_cli.cli.app import app
from convo_cli.export.formats import FORMATS
from tests.cases import quick_first
from tests.commands import EXECUTABLE, environment, run_here, run_process

COMMANDS = (
    "import",
    "init-config",
    "validate-data",
    "train",
    "resume",
    "evaluate",
    "report",
    "export",
    "chat",
    "serve",
)


@pytest.fixture
def convo(tmp_path):
    return lambda *arguments: run_here(tmp_path, *arguments)


def test_the_commands_are_listed_in_the_order_in_which_they_are_used(convo):
    result = convo("--help")
    assert (result.code, result.err) == (0, "")
    assert (
        tuple(re.findall(r"^│ ([a-z]+(?:-[a-z]+)?)  ", result.out, flags=re.MULTILINE)) == COMMANDS
    )
    assert "convo init-config > config.yaml && convo train config.yaml" in result.out


def test_help_fits_the_terminal_and_holds_no_control_sequences(convo):
    for command in ("", *COMMANDS):
        text = convo(*command.split(), "--help").out
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text
        assert "[[" not in text
        assert "...]..." not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_paragraphs_of_help_fill_the_terminal_s_width(convo, command):
    prose = convo(command, "--help").out.partition("╭─")[0]
    lines = [line.strip() for line in prose.splitlines()]
    for line, following in pairwise(lines):
        if line and following:
            assert len(f"{line} {following.split()[0]}") > 78, (line, following)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_that_it_understands(convo, command):
    result = convo(command, "--help")
    assert (result.code, result.err) == (0, "")
    (example,) = re.findall(r"^ Example: (.*?)\s*$", result.out, flags=re.MULTILINE)
    words = shlex.split(example)
    words = words[words.index("convo") + 1 :]
    assert words[0] == command
    group = typer.main.get_command(app)
    group.commands[command].make_context(command, words[1:])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_answer_in_json_and_be_quiet(convo, command):
    assert "--json" in convo(command, "--help").out
    assert "--quiet" in convo(command, "-h").out


def test_without_a_command_the_help_is_shown_and_the_exit_code_says_that_nothing_was_done(convo):
    assert convo().out == convo("--help").out
    assert convo().code == 2


def test_the_version_is_one_line(convo, tmp_path):
    assert convo("--version") == (0, f"convo {__version__}\n", "")
    assert convo("--version", "--help") == (0, f"convo {__version__}\n", "")
    assert run_process(tmp_path, "--version") == (0, f"convo {__version__}\n", "")


def test_python_m_convo_cli_is_the_same_command(tmp_path):
    def run(*words):
        command = [sys.executable, "-m", "convo_cli", *words]
        done = subprocess.run(
            command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    assert run("--version") == (0, f"convo {__version__}\n", "")
    assert run("trian") == run_process(tmp_path, "trian")


UNKNOWN = {
    "a command": (
        "trian config.yaml",
        "No such command 'trian'. Did you mean 'train'?",
        "convo train --help",
    ),
    "an option": (
        "train c.yaml --quite",
        "No such option: --quite. Did you mean --quiet?",
        "convo train --help",
    ),
    "a choice": (
        "resume runs/x --load best",
        "Invalid value for '--load': 'best' is not one of 'last', 'loss', 'metric'.",
        "convo resume --help",
    ),
    "a format": (
        "export runs/x out --format legasy",
        '--format "legasy": there is no such format',
        f"did you mean --format legacy? (one of {', '.join(FORMATS)})",
    ),
    "a missing argument": (
        "export runs/x",
        "Missing argument 'OUT'.",
        "convo export runs/x exports/NAME",
    ),
    "a surplus argument": (
        "train a.yaml b.yaml",
        "Got unexpected extra argument(s) (b.yaml)",
        "convo train --help",
    ),
    "a number out of range": (
        "chat x --top-p 2",
        "Invalid value for '--top-p': 2.0 is not between 0.01 and 1",
        "convo chat --help",
    ),
    "no number": (
        "evaluate x y --replies many",
        "Invalid value for '--replies': give a whole number, such as 100, or all",
        "convo evaluate --help",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_word_that_convo_does_not_know_is_named_with_what_could_be_meant(convo, case):
    words, message, hint = UNKNOWN[case]
    assert convo(*words.split()) == (2, "", f"error: {message}\nhint: {hint}\n")
    answer = convo(*words.split(), "--json")
    detail = {"message": message, "hint": hint, "exit_code": 2, "problems": []}
    assert answer.json["error"] == detail
    command = words.split()[0]
    assert answer.json["command"] == (command if command in COMMANDS else None)


@pytest.mark.parametrize("word", ["", ".", "a" * 300, f"{'a' * 300}.json"])
def test_a_word_that_is_no_path_of_a_model_gets_the_list_of_commands(convo, word):
    result = convo(word)
    assert (result.code, result.err.splitlines()[-1]) == (2, "hint: convo --help")


SUGGESTED = {
    "init": "convo init-config --help",
    "run": "convo train --help",
    "eval": "convo evaluate --help",
    "talk": "convo chat --help",
    "continue": "convo resume --help",
    "valdiate-data": "convo validate-data --help",
    "help": "convo --help",
    "help train": "convo train --help",
    "help fit": "convo train --help",
    "version": "convo --version",
    "-V": "convo --version",
    "--help-me-please": "convo --help",
    "config.yaml": "convo train config.yaml",
    "my.jsonl.gz": "convo init-config --train my.jsonl.gz -o config.yaml",
    "qwertz": "convo --help",
    "train --resume": "convo resume --help",
    "train c.yaml --lr 3": "--set training.learning_rate=VALUE",
    "train c.yaml --batch-size=8": "--set training.batch_size=VALUE",
    "resume runs/x --max-steps 8": "--set training.max_steps=VALUE",
    "resume runs/x --quiett": "convo resume --help",
    "chat x --temprature 1": "convo chat --help",
}


@pytest.mark.parametrize("words", SUGGESTED)
def test_a_wrong_guess_is_answered_with_what_to_type(convo, words):
    result = convo(*words.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(f"\nhint: {SUGGESTED[words]}\n")


@pytest.mark.parametrize(
    ("words", "meant"),
    [("train --resume", "--set"), ("train c --lr 3", "--help"), ("chat x --models y", "--")],
)
def test_nothing_is_suggested_that_is_not_similar(convo, words, meant):
    assert f"Did you mean {meant}" not in convo(*words.split()).err


@pytest.mark.parametrize("width", quick_first([80, 40, 120]))
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_shows_no_type_behind_a_flag_and_no_range(tmp_path, command, width):
    result = run_process(tmp_path, *command.split(), "--help", env=environment(COLUMNS=str(width)))
    assert result.code == 0
    assert "<bool>" not in result.out
    assert "range" not in result.out
    assert "<=" not in result.out


@pytest.mark.parametrize(
    "size",
    ["COLUMNS=0", "COLUMNS=9999999999", "LINES=0", "TERMINAL_WIDTH=0", "TERMINAL_WIDTH=wide"],
)
def test_a_size_that_no_terminal_has_is_ignored(tmp_path, size):
    name, value = size.split("=")
    result = run_process(tmp_path, "--help", env=environment(**{name: value}))
    assert (result.code, result.err) == (0, "")
    widths = {len(line.rstrip("\n")) for line in result.out.splitlines()}
    assert max(widths) == 80


COMPLETED = {
    "train config.yaml --set training.lea": {"training.learning_rate="},
    "resume runs/x --set data.t": {"data.train="},
    "init-config --preset dail": {"dailydialog"},
    "chat runs/x --load m": {"metric"},
    "tr": {"train"},
}


@pytest.mark.parametrize("words", COMPLETED)
@pytest.mark.parametrize("shell", quick_first(["bash", "zsh", "fish"]))
def test_a_shell_completes_commands_config_keys_and_presets(tmp_path, shell, words):
    line = f"convo {words}"
    asked = {
        "_CONVO_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    result = run_process(tmp_path, env=environment(**asked))
    for expected in COMPLETED[words]:
        assert expected in result.out


def test_what_was_typed_cannot_control_the_terminal(convo):
    result = convo("tr\x1b[31main\x9b2J")
    assert result.code == 2
    assert not set(result.err) & {"\x1b", "\x9b"}


@pytest.mark.parametrize("arguments", ["--help", "init-config --schema", "chat --help"])
def test_a_reader_that_goes_away_is_no_mistake(tmp_path, arguments):
    pipe = f"{shlex.quote(str(EXECUTABLE))} {arguments} | true; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(
        ["bash", "-c", pipe], env=environment(), capture_output=True, text=True, check=False
    )
    assert run.stderr == ""
    assert run.returncode in (0, 141)  # 0: all was written before the reader left


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["--help", "init-config"])
def test_a_full_disk_behind_stdout_is_an_error_message(tmp_path, arguments, unbuffered):
    line = f"{shlex.quote(str(EXECUTABLE))} {arguments} >/dev/full"
    changed = environment(PYTHONUNBUFFERED=unbuffered)
    run = subprocess.run(
        ["sh", "-c", line], env=changed, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 7
    assert run.stderr.endswith(
        "error: stdout: No space left on device\nhint: free some space, or write the output "
        "elsewhere\n"
    )
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_behind_a_full_disk_keeps_its_message_and_code(tmp_path, unbuffered):
    line = f"{shlex.quote(str(EXECUTABLE))} validate-data missing.jsonl --json >/dev/full"
    changed = environment(PYTHONUNBUFFERED=unbuffered)
    run = subprocess.run(
        ["sh", "-c", line], env=changed, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "missing.jsonl does not exist" in run.stderr
    assert run.stderr.endswith("the --json object of this error is lost\n")
    assert "Traceback" not in run.stderr
