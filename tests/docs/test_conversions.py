"""The commands on the pages about old weights and DailyDialog are those that convo prints."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from convo_cli.storage.converters import (
    ADAPTER_SCRIPT,
    DEQUANTIZE_SCRIPT,
    FILE_SCRIPT,
    FOLDER_SCRIPT,
    GGUF_SCRIPT,
)
from tests.commands import EXECUTABLE, run_here
from tests.docs.pages import blocks

DOCS = Path(__file__).parents[2] / "docs"
ARCHIVE = (
    "The kitchen stinks . __eou__ I'll throw out the garbage . __eou__\n"
    "Are you ‘ ready ’ ? __eou__ Yes . __eou__ Let \x85 us go ! __eou__\n\n"
)
DIALOGUES = [
    [("user", "The kitchen stinks ."), ("assistant", "I'll throw out the garbage .")],
    [("user", "Are you ‘ ready ’ ?"), ("assistant", "Yes ."), ("user", "Let  us go !")],
]


def programs(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [as_tree(block.text) for block in blocks(text) if block.kind == "python"]


def as_tree(program: str) -> str:
    return ast.dump(ast.parse(program))


def test_the_pages_show_the_programs_of_the_printed_commands():
    folder, file = (as_tree("\n".join(script)) for script in (FOLDER_SCRIPT, FILE_SCRIPT))
    assert programs("old-weights.md") == [folder, file]
    others = (ADAPTER_SCRIPT, GGUF_SCRIPT, DEQUANTIZE_SCRIPT)
    assert programs("other-models.md") == [as_tree("\n".join(script)) for script in others]


def dialogues(path: Path) -> list[list[tuple[str, str]]]:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    values = [json.loads(line)["messages"] for line in lines]
    return [[(turn["role"], turn["content"]) for turn in value] for value in values]


def test_the_commands_of_the_page_convert_the_archive(tmp_path):
    text = (DOCS / "dailydialog.md").read_text(encoding="utf-8")
    (shell,) = (block.text for block in blocks(text) if block.kind == "sh")
    with zipfile.ZipFile(tmp_path / "ijcnlp_dailydialog.zip", "w") as archive:
        archive.writestr("ijcnlp_dailydialog/dialogues_text.txt", "One . __eou__ Two . __eou__\n")
        for split in ("train", "validation", "test"):
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w") as files:
                files.writestr(f"{split}/dialogues_{split}.txt", ARCHIVE)
            archive.writestr(f"ijcnlp_dailydialog/{split}.zip", inner.getvalue())
    (tmp_path / "data" / "dailydialog").mkdir(parents=True)
    made, *commands = shell.splitlines()
    assert made == "mkdir -p data/dailydialog"
    for line in commands:
        _, *words = line.split()
        assert run_here(tmp_path, *words).code == 0
        assert dialogues(tmp_path / words[-1]) == DIALOGUES


@pytest.mark.skipif(os.name != "posix", reason="the printed command is for a POSIX shell")
@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["validate-data", "data/dailydialog/test.jsonl"], "test"),
        (["validate-data", "my data/DailyDialog/validation.jsonl"], "validation"),
        (["init-config", "--train", "data/dailydialog/train.jsonl"], "train"),
    ],
)  # fmt: skip
def test_the_error_for_a_missing_file_says_where_it_comes_from_and_converts_it(
    tmp_path, words, file
):
    refused = run_here(tmp_path, *words)
    assert refused.code == 2
    assert "http://yanran.li/dailydialog (licence CC BY-NC-SA 4.0: no commercial" in refused.err
    (tmp_path / f"dialogues_{file}.txt").write_text(ARCHIVE, encoding="utf-8")
    command = refused.err.splitlines()[-1]
    path = f"{EXECUTABLE.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    assert run_here(tmp_path, *words).code == 0
    assert dialogues(tmp_path / words[-1]) == DIALOGUES


@pytest.mark.parametrize("preset", ["dailydialog", "multi-turn-gpt2"])
def test_a_preset_without_its_data_says_so_in_its_config_and_before_training(tmp_path, preset):
    written = run_here(tmp_path, "init-config", "--preset", preset, "-o", "config.yaml")
    assert written.code == 0
    head = (tmp_path / "config.yaml").read_text(encoding="utf-8").split("\nname:")[0]
    assert "CC BY-NC-SA 4.0" in head.replace("\n# ", " ")
    assert "http://yanran.li/dailydialog" in head
    refused = run_here(tmp_path, "train", "config.yaml")
    assert refused.code == 2
    for split in ("train", "validation"):
        assert f"&& convo import dialogues_{split}.txt -o data/dailydialog/" in refused.err


def test_other_missing_files_get_the_usual_hint(tmp_path):
    (tmp_path / "dailydialog").mkdir()
    for name in ("dailydialog/my.jsonl", "train.jsonl", "dailydialog/train/test.jsonl"):
        assert "yanran" not in run_here(tmp_path, "validate-data", name).err
