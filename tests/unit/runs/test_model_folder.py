"""Checks of a model folder to open or to write, before anything is opened.

What a folder may lack is in tests/cli/test_bad_input.py, through every command that opens one.
"""

from __future__ import annotations

import json

import pytest

from convo_cli.errors import DiskError, ModelError, UsageError
from convo_cli.runs.model_folder import require_model_folder, require_writable


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "gpt2"}')
    return path


@pytest.mark.parametrize("weights", ["model.safetensors", "model.safetensors.index.json"])
def test_a_folder_with_a_config_and_safetensors_may_be_opened(folder, weights):
    (folder / weights).touch()
    require_model_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_a_pickle_is_named_as_what_can_run_code(folder, name):
    (folder / name).touch()
    with pytest.raises(
        ModelError, match=rf"its weights are in {name}, a pickle, which can run code"
    ):
        require_model_folder(folder)


def test_a_run_directory_is_told_from_its_checkpoints(tmp_path):
    for step in (3, 12):
        (tmp_path / f"checkpoints/step-{step:08d}").mkdir(parents=True)
    with pytest.raises(ModelError) as caught:
        require_model_folder(tmp_path)
    assert str(caught.value.hint).endswith(
        f"give one of its checkpoints: {tmp_path}/checkpoints/step-00000012"
    )


@pytest.mark.parametrize("force", [False, True])
def test_a_new_or_empty_folder_may_be_written(tmp_path, force):
    (tmp_path / "empty").mkdir()
    require_writable(tmp_path / "empty", force=force)
    require_writable(tmp_path / "a/b/c", force=force)


def test_force_replaces_an_export_but_no_checkpoint_and_nothing_foreign(tmp_path):
    (tmp_path / "dialogue.json").touch()
    (tmp_path / "MANIFEST.json").write_text(
        json.dumps({"format": 1, "files": {"dialogue.json": {"size": 0, "sha256": ""}}})
    )
    require_writable(tmp_path, force=True)
    with pytest.raises(UsageError, match="not empty"):
        require_writable(tmp_path, force=False)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"notes\.txt is not part of the export"):
        require_writable(tmp_path, force=True)
    (tmp_path / "state.json").touch()
    with pytest.raises(UsageError, match="not an earlier export"):
        require_writable(tmp_path, force=True)


def test_nothing_is_written_into_what_was_sealed(tmp_path):
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"format": 1, "files": {}}))
    for name in ("out", "deep/er/out"):
        with pytest.raises(UsageError, match="must stay unchanged"):
            require_writable(tmp_path / name, force=True)


def test_a_place_below_a_file_is_a_disk_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="file is a file"):
        require_writable(tmp_path / "file/below/out", force=False)
