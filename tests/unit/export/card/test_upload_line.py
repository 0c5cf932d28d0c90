"""The upload command can be copied into a shell, and the hub accepts its name."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from huggingface_hub.cli.upload import _resolve_upload_paths
from hypothesis import example, given
from hypothesis import strategies as st

from convo_cli.export.card.base_model import is_hub_id
from convo_cli.export.card.upload_line import repository_name, upload_command


@given(st.text(max_size=200))
@example("a..b--c.git")
@example("-.a b.-")
@example("a" * 95 + ".-b")
@example("a" * 92 + ".git")
def test_every_title_becomes_a_name_that_the_hub_accepts(title):
    assert is_hub_id(f"YOUR-NAME/{repository_name(title)}")
    assert "/" not in repository_name(title)


def test_a_plain_title_stays_as_it_is():
    assert repository_name("Talker_v2.1") == "Talker_v2.1"


@pytest.mark.parametrize(
    "name", ["talker", "my talker", "-rf", "it's", "a*b", "$HOME", "a;b", "日本"]
)
def test_the_shell_reads_the_folder_as_one_argument(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    program, command, target, folder = shlex.split(upload_command(Path(name)))
    assert (program, command) == ("hf", "upload")
    assert target.startswith("YOUR-NAME/")
    assert not folder.startswith("-")
    assert Path(folder).samefile(tmp_path / name)
    found = _resolve_upload_paths(
        repo_id=target, local_path=folder, path_in_repo=None, include=None
    )
    assert found == (folder, ".", None)


def test_a_newline_in_the_name_does_not_end_the_command():
    command = upload_command(Path("a\nb"))
    assert "\n" not in command
    assert command.endswith("$'a\\012b'")
