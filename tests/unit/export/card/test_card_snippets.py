"""The code in a card can be run as it stands, but for the place of the folder."""

from __future__ import annotations

import ast
import shutil
import subprocess

import pytest
from markdown_it import MarkdownIt

from convo_cli.export.card.usage_section import usage
from convo_cli.export.exporting import export_checkpoint
from convo_cli.export.formats import FORMATS


def fences(card):
    return [
        (token.info, token.content)
        for token in MarkdownIt("commonmark").parse(card)
        if token.type == "fence"
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_every_snippet_has_the_syntax_of_its_language(name, checkpoint_model):
    found = fences(usage(FORMATS[name].about(), checkpoint_model))
    assert found
    for language, code in found:
        if language == "python":
            ast.parse(code)
        else:
            assert language == "sh"
            if shutil.which("bash"):
                subprocess.run(["bash", "-n"], input=code.encode(), check=True)


@pytest.mark.slow
def test_the_snippet_of_transformers_replies(checkpoint_model, tmp_path, capsys, monkeypatch):
    out = tmp_path / "talker"
    export_checkpoint(
        checkpoint_model.folder, out, "huggingface", force=False, emit=lambda event: None
    )
    codes = [
        code for language, code in fences((out / "README.md").read_text()) if language == "python"
    ]
    (code,) = [one for one in codes if "transformers" in one]
    assert "path/to/this/folder" in code
    exec(code.replace("path/to/this/folder", str(out)), {})
    assert capsys.readouterr().out.endswith("\n")
