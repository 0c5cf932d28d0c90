"""Opening of runs, checkpoints, exports and foreign models with a chat template."""

from __future__ import annotations

import json
import shutil

import pytest

from convo_cli.config.schema import GenerationSettings, ScratchConfig
from convo_cli.data.dialogue import Turn
from convo_cli.errors import ChangedError, CheckpointError, ModelError, UsageError
from convo_cli.model import open as open_module
from convo_cli.model.create import build_scratch_model
from convo_cli.model.loading import save_model
from convo_cli.model.open import open_generator
from convo_cli.runs.checkpoints import Progress, SavedState, write_state
from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.atomic import publish_directory, remove_directory
from convo_cli.text.contract import save_encoder

HELLO = (Turn("user", "Hello"),)
GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=4)


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder(max_length=48)


@pytest.fixture(scope="module")
def model(encoder):
    return build_scratch_model(
        ScratchConfig(layers=1, width=16, heads=2, context=64), encoder, seed=0
    )


@pytest.fixture
def export(model, encoder, tmp_path):
    def fill(folder):
        save_model(model, folder)
        save_encoder(encoder, folder, spiece=None)

    publish_directory(tmp_path / "export", fill)
    return tmp_path / "export"


@pytest.fixture
def foreign(export):
    """The same files without convo's own: what any Hugging Face folder looks like."""
    for name in ("dialogue.json", "MANIFEST.json"):
        (export / name).unlink()
    return export


def opened(path, ignore, device="cpu"):
    return open_generator(str(path), device=device, emit=ignore)


def test_an_export_opens_with_the_encoder_it_was_trained_with(export, encoder, ignore):
    generator = opened(export, ignore)
    assert generator.encoder.max_length == 48
    assert generator.encoder.template.name == "turns"
    assert generator.encoder.prompt(HELLO, max_new_tokens=4) == encoder.prompt(
        HELLO, max_new_tokens=4
    )
    assert generator.model.device.type == "cpu"


def test_a_foreign_model_uses_its_own_chat_template_and_context_length(export, ignore):
    expected = opened(export, ignore).stream(HELLO, GREEDY)
    for name in ("dialogue.json", "MANIFEST.json"):
        (export / name).unlink()
    generator = opened(export, ignore)
    assert (generator.encoder.template.name, generator.encoder.max_length) == ("native", 64)
    assert generator.stream(HELLO, GREEDY) == expected


def test_a_foreign_model_without_a_chat_template_is_refused(foreign, ignore):
    (foreign / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"no dialogue\.json and no chat template") as caught:
        opened(foreign, ignore)
    assert "dialogue.template" not in str(caught.value), "the user has set no template"


def test_a_damaged_export_is_refused_before_it_is_loaded(export, ignore):
    weights = export / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        opened(export, ignore)


def test_an_export_without_its_seal_is_opened_with_a_warning_and_a_foreign_model_without_one(
    export,
):
    events = []
    open_generator(str(export), device="cpu", emit=events.append)
    assert events == []
    (export / "MANIFEST.json").unlink()
    open_generator(str(export), device="cpu", emit=events.append)
    assert [event.is_warning for event in events] == [True]
    assert f"{export}: no MANIFEST.json" in events[0].message
    (export / "dialogue.json").unlink()
    open_generator(str(export), device="cpu", emit=events.append)
    assert len(events) == 1


def test_an_export_without_its_seal_still_has_to_fit_its_contract(export, ignore):
    (export / "MANIFEST.json").unlink()
    contract = json.loads((export / "dialogue.json").read_text())
    (export / "dialogue.json").write_text(json.dumps({**contract, "stop_ids": [1]}))
    with pytest.raises(ChangedError, match="stop_ids"):
        opened(export, ignore)


@pytest.mark.parametrize("name", ["nowhere/at-all", "/no/such/folder", "a b"])
def test_a_name_that_is_neither_a_folder_nor_in_the_cache_is_one_sentence(name, ignore):
    with pytest.raises(UsageError, match=name) as caught:
        opened(name, ignore)
    assert "\n" not in caught.value.message


def test_a_missing_device_is_refused_before_any_file_is_read(ignore):
    with pytest.raises(UsageError, match="device cuda:99"):
        opened("/no/such/folder", ignore, device="cuda:99")


def test_a_run_that_deletes_the_checkpoint_while_it_loads_gives_its_next_one(
    export, tmp_path, monkeypatch
):
    """It is deleted at the worst moment, between the weights and the tokenizer."""
    run = RunDirectory(tmp_path / "convo")
    run.checkpoints.mkdir(parents=True)
    run.config.write_text("{}")

    def save(step):
        state = SavedState(progress=Progress(step=step), scaler={})

        def fill(folder):
            shutil.copytree(
                export, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("MANIFEST.json")
            )
            write_state(folder, state)

        publish_directory(run.checkpoint(step), fill)

    def load_late(folder, load=open_module.load_model, **options):
        if folder == str(run.checkpoint(10)):
            save(20)
            remove_directory(run.checkpoint(10))
        return load(folder, **options)

    save(10)
    monkeypatch.setattr(open_module, "load_model", load_late)
    notices = []
    assert opened(run.path, notices.append).stream(HELLO, GREEDY) == opened(
        export, notices.append
    ).stream(HELLO, GREEDY)
    assert [notice.message.partition(" was deleted")[0] for notice in notices] == ["step-00000010"]
    assert not notices[0].is_warning
