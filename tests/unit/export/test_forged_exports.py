"""Forged, moved and foreign folders for `convo export FOLDER --verify`: each has its error."""

from __future__ import annotations

import json
import shutil

import pytest

from convo_cli.errors import CheckpointError
from convo_cli.export import verifying
from convo_cli.export.bounded import bounded_runtime
from convo_cli.export.exporting import export_checkpoint
from convo_cli.export.verifying import verify_folder
from convo_cli.storage.sealed import read_manifest
from tests.sealed import seal_again


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "talker"
    export_checkpoint(checkpoint, out, "huggingface", force=False, emit=lambda event: None)
    return out


@pytest.fixture
def folder(exported, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("it was opened")

    monkeypatch.setattr(bounded_runtime, "BoundedRuntime", refuse)
    shutil.copytree(exported, tmp_path / "copy")
    return tmp_path / "copy"


def verify(folder):
    return verify_folder(folder, lambda event: None)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "..", ".", "", "/etc/passwd", "a/b"], ids=ascii)
def test_a_manifest_with_a_name_that_no_file_has_is_refused(folder, name):
    values = json.loads((folder / "MANIFEST.json").read_text())
    values["files"][name] = {"size": 1, "sha256": "0" * 64}
    (folder / "MANIFEST.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="not a readable manifest"):
        verify(folder)


@pytest.mark.parametrize("size", ["Infinity", "-Infinity", "NaN", "1e999", "9" * 5000, "{}"])
def test_a_manifest_with_a_size_that_no_file_has_is_refused(tmp_path, size):
    file = tmp_path / "MANIFEST.json"
    values = f'"size": {size}, "sha256": "0"'
    file.write_text('{"format": 1, "files": {"a": {' + values + "}}}")
    with pytest.raises(CheckpointError, match="not a readable manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["MANIFEST.json", "dialogue.json", "receipt.json"])
def test_links_in_a_circle_are_refused(folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    with pytest.raises(CheckpointError, match=name):
        verify(folder)


def test_an_export_in_the_hub_s_cache_is_opened_through_its_links(exported, tmp_path):
    cache = tmp_path / "models--a--talker"
    snapshot = cache / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    shutil.copytree(exported, cache / "blobs")
    for file in exported.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert verify(snapshot).prompts.num > 3


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("receipt.json", "export", "gguf", "of an export for gguf, but the weights are hugg"),
        ("receipt.json", "contract_sha256", "0" * 64, "of an export with another dialogue.json"),
        ("dialogue.json", "max_length", 127, "of an export with another dialogue.json"),
    ],
)
def test_files_of_another_export_are_named(folder, name, key, value, said):
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**values, key: value}))
    seal_again(folder)
    with pytest.raises(CheckpointError, match=said):
        verify(folder)


@pytest.mark.parametrize("name", ["dialogue.json", "model.safetensors"])
def test_a_file_without_permission_is_not_called_damaged(folder, name, monkeypatch):
    real = verifying.manifest_differences.__globals__["file_sha256"]

    def refuse(path, *arguments):
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("convo_cli.export.manifest_differences.file_sha256", refuse)
    with pytest.raises(PermissionError, match=name):
        verify(folder)


def test_a_changed_gguf_between_hash_and_opening_would_be_noticed(tmp_path):
    from convo_cli.errors import ChangedError
    from convo_cli.storage.snapshot import Snapshot

    for name in ("model.gguf", "model.bin", "model.onnx", "model.onnx.data"):
        (tmp_path / name).write_bytes(b"a")
        before = Snapshot.of(tmp_path)
        (tmp_path / name).write_bytes(b"bb")
        with pytest.raises(ChangedError, match=name):
            before.require_unchanged()
