"""The mapping that `validate-data` prints for unknown keys and speakers works when it is pasted."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.commands import make_workplace, run_here, run_process, settings

CASES: dict[str, list[Any]] = {
    "customers and agents": [
        {"turns": [{"speaker": name, "text": f"{name} {number}"} for name in ("agent", "client 7")]}
        for number in range(3)
    ],
    "odd keys": [
        {"meta": {"log": [{"who": name, "utt": f"Hello {number}"} for name in ("USER", "SYSTEM")]}}
        for number in range(3)
    ],
    "numbers": [
        {"dialog_lines": [{"speaker_idx": index, "say": "Hello there"} for index in (0, 1, 0, 1)]}
    ],
    "pairs": [{"soru": "Nasılsın bugün?", "cevap": "İyiyim, teşekkürler."}],
    "group": [
        {"turns": [{"speaker": name, "text": "I am here"} for name in ("Ada", "Ben", "Cleo")]}
    ],
    "characters": [
        ["Hello", "Hi!"],
        [{"from": "User", "value": "Hello Zed"}, {"from": 'Zed: "the" one\'s', "value": "Hi!"}],
        [{"from": "User", "value": "Hello Kim"}, {"from": "no", "value": "Hi!"}],
    ],
    "many names": [
        [{"from": f"caller {number}", "value": "Hello"}, {"from": "operator", "value": "Yes?"}]
        for number in range(150)
    ],
    "misspelt turns": [
        {"messages": [{"sender": "user", "body": "Hello"}, {"sender": "gpt", "body": "Hi!"}]}
    ],
}


def write(path: Path, values: list[Any]) -> None:
    lines = (json.dumps(value, ensure_ascii=False) for value in values)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def printed(out: str) -> tuple[list[str], str]:
    """The arguments of the printed command, and the printed lines of a config."""
    lines = out.splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith("  convo validate-data "))
    yaml = [line[2:] for line in lines[index + 2 : lines.index("", index + 2)]]
    return shlex.split(lines[index])[1:], "\n".join(yaml)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_printed_command_and_config_read_the_file(name: str, tmp_path: Path) -> None:
    make_workplace(tmp_path)
    write(tmp_path / "my data.jsonl", CASES[name])
    refused = run_here(tmp_path, "validate-data", "my data.jsonl")
    assert refused.code == 3
    assert refused.out.count("probable mapping of") == 1
    command, yaml = printed(refused.out)
    pasted = run_here(tmp_path, *command)
    assert pasted.code == 0, pasted.out
    assert "assistant" in pasted.out
    assert "probable mapping" not in pasted.out
    config = (tmp_path / "config.yaml").read_text(encoding="utf-8").replace("data:", yaml, 1)
    (tmp_path / "mapped.yaml").write_text(config, encoding="utf-8")
    checked = run_here(
        tmp_path, "validate-data", "my data.jsonl", "--config", "mapped.yaml", "--json"
    )
    assert checked.json["is_trainable"], checked.out
    own = run_here(tmp_path, "validate-data", "my data.jsonl", "--json")
    assert [word for word in command[2:] if word != "--set"] == own.json["files"][0]["proposal"][
        "settings"
    ]


def test_the_real_executable_takes_the_printed_command(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", CASES["odd keys"])
    refused = run_process(tmp_path, "validate-data", "a.jsonl", *settings("data.reasoning=drop"))
    assert refused.code == 3
    command, _ = printed(refused.out)
    assert command[:4] == ["validate-data", "a.jsonl", "--set", "data.reasoning=drop"]
    assert run_process(tmp_path, *command).code == 0


def test_training_and_evaluation_print_the_mapping_as_well(convo, work):
    write(work / "odd.jsonl", CASES["customers and agents"])
    options = "--set 'data.speakers.user=[client 7]' --set 'data.speakers.assistant=[agent]'"
    for command in (
        ["train", "config.yaml", *settings("data.train=odd.jsonl", "name=odd")],
        ["evaluate", "runs/tiny", "odd.jsonl", "-q"],
    ):
        result = convo(*command)
        assert (result.code, options in result.err) == (3, True), result.err


def test_nothing_is_printed_for_a_good_file_or_one_that_no_mapping_helps(convo, work):
    assert "mapping" not in convo("validate-data", "train.jsonl").out
    write(work / "rows.jsonl", [{"id": "1", "conversation_id": "c", "text": "Hello there"}])
    assert "probable mapping" not in convo("validate-data", "rows.jsonl").out
    write(
        work / "calls.jsonl",
        [[{"role": "tool", "content": "4 C"}, {"role": "bot2", "content": "x"}]],
    )
    assert "tool" not in convo("validate-data", "calls.jsonl").out.partition("probable")[2]
