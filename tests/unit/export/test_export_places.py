"""Folders of an export that are refused before any work, with what they are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from convo_cli.errors import CheckpointError, UsageError
from convo_cli.export.export_places import require_export, require_usable_name
from convo_cli.storage.atomic import publish_directory


def test_a_name_as_long_as_allowed_is_written_and_a_longer_one_refused(tmp_path):
    require_usable_name(tmp_path / ("x" * 235))
    publish_directory(tmp_path / ("x" * 235), lambda aside: None)
    publish_directory(tmp_path / ("x" * 235), lambda aside: None)  # it replaces the first
    for name in ("x" * 236, "ü" * 118):
        with pytest.raises(UsageError, match=r"this name is too long \(236 bytes\)") as caught:
            require_usable_name(tmp_path / name)
        assert "at most 235 bytes" in str(caught.value.hint)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow only UTF-8 names")
@pytest.mark.parametrize("place", ["{}", "{}/out"])
def test_a_path_that_is_not_utf_8_is_refused(tmp_path, place):
    path = tmp_path / place.format(os.fsdecode(b"bad\xff"))
    with pytest.raises(UsageError, match="the path is not UTF-8"):
        require_usable_name(path)


def test_what_is_no_export_is_named_as_what_it_is(tmp_path):
    (tmp_path / "file").touch()
    for folder, files in {"run": ["config.yaml", "checkpoints/"], "step-00000001": ["state.json"],
                          "empty": []}.items():  # fmt: skip
        (tmp_path / folder).mkdir()
        for name in files:
            path = tmp_path / folder / name
            path.mkdir() if name.endswith("/") else path.write_text("{}")
    for name, error, says in (
        ("nowhere", UsageError, "no such folder"),
        ("file", UsageError, "not a folder"),
        ("run", UsageError, "a run directory, not an export"),
        ("step-00000001", UsageError, "a checkpoint, not an export"),
        ("empty", CheckpointError, "nothing to compare it with"),
    ):
        with pytest.raises(error, match=says):
            require_export(tmp_path / name)


def test_verify_refuses_a_folder_before_torch_is_imported(tmp_path):
    script = (
        "import sys; from convo_cli.cli.commands.export import export\n"
        "from pathlib import Path\n"
        "from convo_cli.errors import UsageError\n"
        "try: export(Path('nowhere'), None, None, None, None, verify=True)\n"
        "except UsageError: print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
