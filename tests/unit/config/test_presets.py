from __future__ import annotations

from pathlib import Path

import pytest

from convo_cli.config.presets import PRESETS, SCRATCH, Preset, find_preset
from convo_cli.errors import UsageError

ROOT = Path(__file__).parents[3]
every_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)


def test_the_default_preset_is_the_run_of_the_readme() -> None:
    config = SCRATCH.config()
    scratch = config.model.scratch
    assert scratch is not None
    assert (scratch.layers, scratch.width, scratch.heads, scratch.context, scratch.dropout) == (
        4,
        256,
        4,
        256,
        0.1,
    )
    assert (config.name, config.tokenizer.kind, config.tokenizer.vocab_size) == (
        "demo",
        "unigram",
        1200,
    )
    assert (config.dialogue.max_length, config.training.max_steps, config.training.batch_size) == (
        256,
        300,
        16,
    )
    assert (
        config.training.learning_rate,
        config.training.warmup_steps,
        config.training.schedule,
    ) == (
        1e-3,
        30,
        "cosine",
    )
    assert (config.evaluation.every_steps, config.evaluation.reply_dialogues) == (100, 16)


def test_the_files_of_the_default_preset_come_with_convo() -> None:
    data = SCRATCH.config().data
    assert [path for path in (*data.train, *data.validation) if not (ROOT / path).is_file()] == []


@every_preset
def test_a_description_is_one_short_sentence(preset: Preset) -> None:
    assert preset.description.endswith(".")
    assert len(preset.description) <= 104


@every_preset
def test_a_preset_is_found_by_its_name(preset: Preset) -> None:
    assert find_preset(preset.name) is preset


@pytest.mark.parametrize("name", ["dailydialog", "multi-turn-gpt2"])
def test_a_preset_with_data_for_non_commercial_use_says_so_until_the_data_is_another(
    name: str,
) -> None:
    preset = PRESETS[name]
    assert "no commercial use" in preset.data_note
    assert preset.with_data(["a.jsonl"], ["b.jsonl"]).data_note == ""


@every_preset
def test_other_data_changes_nothing_else(preset: Preset) -> None:
    before = preset.config().model_dump()
    after = preset.with_data(["a.jsonl"], ["b.jsonl"]).config().model_dump()
    assert [list(after["data"][name]) for name in ("train", "validation")] == [
        ["a.jsonl"],
        ["b.jsonl"],
    ]
    assert {**after, "data": None} == {**before, "data": None}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gpt", "did you mean --preset gpt2?"),
        ("Scratch", "did you mean --preset scratch?"),
        ("daily-dialog", "did you mean --preset dailydialog?"),
        ("xyz", "convo init-config --list-presets"),
    ],
)
def test_an_unknown_preset_is_refused_with_the_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(
        UsageError, match=f"--preset {name}: no such preset; the presets are scratch, gpt2, "
    ) as caught:
        find_preset(name)
    assert caught.value.hint == hint
