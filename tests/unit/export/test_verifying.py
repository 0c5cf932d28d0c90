"""`convo export FOLDER --verify`: every difference is listed, and nothing foreign is opened."""

from __future__ import annotations

import json
import shutil

import pytest

from convo_cli.errors import ChangedError, CheckpointError, UsageError
from convo_cli.export import verifying
from convo_cli.export.bounded import bounded_runtime
from convo_cli.export.exporting import export_checkpoint
from convo_cli.export.verifying import verify_folder
from tests.sealed import seal_again


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "talker"
    export_checkpoint(checkpoint, out, "huggingface", force=False, emit=lambda event: None)
    return out


@pytest.fixture
def folder(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def never_opened(monkeypatch):
    def refuse(*_):
        raise AssertionError("it was opened")

    monkeypatch.setattr(bounded_runtime, "BoundedRuntime", refuse)


def verify(folder):
    return verify_folder(folder, lambda event: None)


def test_a_whole_export_gives_the_ids_of_its_checkpoint_again(exported):
    verified = verify(exported)
    assert verified.runtime.name == "transformers"
    for part in (verified.hard_texts, verified.prompts):
        assert part.num == part.num_equal > 3
    assert verified.replies.num_equal_tokens == verified.replies.num_tokens
    assert verified.notes == ()


def test_every_damaged_file_is_listed_and_nothing_is_opened(folder, never_opened):
    (folder / "dialogue.json").unlink()
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    (folder / "extra.bin").write_bytes(b"x")
    (folder / "README.md").write_text("my own card")
    with pytest.raises(CheckpointError) as caught:
        verify(folder)
    listed = [problem.message.split(":")[0] for problem in caught.value.problems]
    assert listed == ["config.json", "dialogue.json", "extra.bin"]


def test_a_folder_without_a_manifest_is_compared_by_its_fields_alone(folder, never_opened):
    (folder / "MANIFEST.json").unlink()
    assert "does not open them" in verify(folder).notes[0]
    for name, changed in (
        ("generation_config.json", {"eos_token_id": 5}), ("config.json", {"n_positions": 7}),
    ):  # fmt: skip
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **changed}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ChangedError) as caught:
        verify(folder)
    for said in ("eos_token_id is [5]", "n_positions is 7", "another chat template"):
        assert said in caught.value.message


def test_a_stranger_s_gguf_is_never_opened(tmp_path, folder, never_opened):
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="nothing to compare it with"):
        verify(tmp_path / "gguf")
    shutil.copy(folder / "dialogue.json", tmp_path / "gguf")
    assert verify(tmp_path / "gguf").export == "gguf"


@pytest.mark.parametrize("name", ["receipt.json", "expected.json"])
@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, "{}", "[]", '{"version": NaN}', '{"version": 1, "texts": {"a": [-1]}}', "\0"],
    ids=["deep", "empty", "list", "NaN", "negative", "NUL"],
)
def test_a_forged_receipt_is_refused(folder, never_opened, name, content):
    (folder / name).write_text(content)
    seal_again(folder)
    with pytest.raises(CheckpointError, match=r"not what convo writes|not a receipt"):
        verify(folder)


@pytest.mark.parametrize("name", ["receipt.json", "expected.json"])
def test_a_huge_receipt_is_refused_unread(folder, never_opened, name):
    with (folder / name).open("r+b") as file:
        file.truncate(2**25)
    seal_again(folder)
    with pytest.raises(CheckpointError, match="larger than"):
        verify(folder)


def test_an_export_of_an_earlier_convo_says_what_is_missing(folder, never_opened):
    for name in ("receipt.json", "expected.json"):
        (folder / name).unlink()
    seal_again(folder)
    verified = verify(folder)
    assert verified.export == "huggingface"
    assert "export the checkpoint again" in verified.notes[0]


def test_without_the_runtime_the_error_says_how_to_install_it(folder, never_opened, monkeypatch):
    monkeypatch.setattr(verifying, "missing_modules", lambda about: ["transformers"])
    with pytest.raises(UsageError, match="transformers, which opens this export, is not installed"):
        verify(folder)


def test_other_ids_than_the_expected_ones_are_an_error(folder):
    values = json.loads((folder / "expected.json").read_text())
    key = next(iter(values["texts"]))
    values["texts"][key] = [1, 2, 3]
    (folder / "expected.json").write_text(json.dumps(values))
    seal_again(folder)
    with pytest.raises(CheckpointError, match=r"a hard text .* differs at token"):
        verify(folder)
