"""Lookup of a model: a folder is itself, a hub id is its copy in the cache, all else an error."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from convo_cli.config.schema import ScratchConfig
from convo_cli.errors import ModelError
from convo_cli.model.create import build_scratch_model
from convo_cli.model.loading import load_model, save_model
from convo_cli.storage import foreign_files
from convo_cli.text.contract import load_encoder, save_encoder
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.text.tokenizers.pretrained import load_pretrained_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The hub's cache with one model in it, and no network."""
    snapshot = tmp_path / "models--somebody--something/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = tmp_path / "models--somebody--something/refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


def test_a_folder_is_itself(tmp_path):
    assert local_folder(str(tmp_path)) == tmp_path


def test_a_hub_id_in_the_cache_needs_no_network(cached):
    assert local_folder("somebody/something") == cached
    assert local_folder("somebody/something", COMMIT) == cached


def test_a_hub_id_or_revision_outside_the_cache_is_an_error_of_one_line(cached):
    for name, revision in (("somebody/else", None), ("somebody/something", "v2")):
        with pytest.raises(
            ModelError,
            match=r"^[\w/]+: no such folder; it is not in the local cache of the hub",
        ):
            local_folder(name, revision)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (HFValidationError("bad id"), "the hub has no such model"),
        (LocalEntryNotFoundError("offline"), "the hub cannot be reached"),
        (
            OSError("the first line\nthe second"),
            r"cannot be downloaded from the hub \(the first line\)",
        ),
        (TimeoutError(), r"cannot be downloaded from the hub \(TimeoutError\)"),
    ],
)
def test_every_error_of_the_hub_is_an_error_of_one_line(monkeypatch, error, says):
    def fail(*args, **settings):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match=says) as caught:
        local_folder("a/b")
    assert "\n" not in caught.value.message


def test_neither_pickles_nor_code_are_downloaded(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **settings: asked.update(settings) or "."
    )
    local_folder("a/b")
    from huggingface_hub.utils import filter_repo_objects

    names = [
        "config.json",
        "model.safetensors",
        "spiece.model",
        "chat_template.jinja",
        "merges.txt",
        "README.md",
    ]
    unwanted = [
        "pytorch_model.bin",
        "modeling.py",
        "onnx/model.onnx",
        "original/weights.safetensors",
        "tf_model.h5",
    ]
    patterns = {key: asked[key] for key in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects(names + unwanted, **patterns)) == names


@pytest.mark.parametrize(
    "load", [load_model, load_pretrained_tokenizer, lambda name: load_encoder(Path(name))]
)
def test_every_load_checks_its_folder_once_and_before_anything_else(
    load, tmp_path, make_encoder, monkeypatch
):
    encoder = make_encoder()
    save_encoder(encoder, tmp_path, spiece=None)
    save_model(
        build_scratch_model(
            ScratchConfig(layers=1, width=16, heads=2, context=32), encoder, seed=0
        ),
        tmp_path,
    )
    checked = []
    monkeypatch.setattr(
        foreign_files, "shard_names", lambda index: checked.append(index.parent) or ()
    )
    load(str(tmp_path))
    assert checked == [tmp_path]
    for file in tmp_path.iterdir():
        file.write_text("no longer readable")
    (tmp_path / "link").symlink_to(tmp_path.parent)
    with pytest.raises(ModelError, match="link: a link to a file outside the folder"):
        load(str(tmp_path))
