"""Advice about memory: three settings that are possible, with values and what they save."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from convo_cli.config.schema import PretrainedModel, ScratchConfig
from convo_cli.errors import OutOfMemoryError
from convo_cli.events import Notice
from convo_cli.model.batches.attention import use_packed_attention
from convo_cli.model.batches.batching import Batching
from convo_cli.runs.directory import RunDirectory
from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase
from convo_cli.tokens.store import Example
from convo_cli.training.planning.memory_advice import (
    Saving,
    naming_settings,
    require_memory,
    savings,
    settings_text,
)
from convo_cli.training.planning.run_memory import Room, training_memory
from convo_cli.world import World
from tests.stores import laid_out

RUN = RunDirectory(Path("runs/a"))
LENGTHS = np.array([200, 300, 400, 100] * 4)


@pytest.fixture(scope="module")
def model():
    config = GPT2Config(
        vocab_size=97, n_positions=512, n_embd=64, n_layer=4, n_head=4, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    use_packed_attention(model)
    return model


def parts_of(
    model, *, micro=None, checkpointing=False, origin=None, lora=None, most=400, bound=None
):
    lengths = np.minimum(LENGTHS, most)
    store = laid_out(
        [Example(np.full(size, 3, np.int32), np.ones(size, np.uint8)) for size in lengths]
    )
    training = SimpleNamespace(gradient_checkpointing=checkpointing)
    return SimpleNamespace(
        config=SimpleNamespace(
            training=training,
            dialogue=SimpleNamespace(train_on="assistant", user_turns_until=0.0),
            model=SimpleNamespace(origin=origin or ScratchConfig(layers=4), lora=lora),
        ),
        model=model,
        data=SimpleNamespace(train=store, validation=None),
        batching=Batching(is_packed=True, has_plain_head=True, pad_id=0),
        execution=SimpleNamespace(precision="fp32", sharding="none", micro_batch_size=micro),
        device=torch.device("cpu"),
        order=Order(lengths, 1, (Phase(first_step=0, first_example=0, batch=8, unit="examples"),)),
        max_steps=3,
        world=World(),
        fitted=bound and SimpleNamespace(needed=bound, room=2**40),
    )


def named(parts, room=0):
    return {one.key: one for one in savings(parts, training_memory(parts), room)}


def test_three_settings_are_named_with_their_values_and_the_largest_saving_first(model):
    parts = parts_of(model)
    found = savings(parts, training_memory(parts), room=0)
    assert len(found) == 3
    saved = [one.saved_bytes for one in found]
    assert saved == sorted(saved, reverse=True)
    assert min(saved) > 0
    text = settings_text(found)
    assert text.startswith("set ")
    assert all(f"{one.key}: " in text for one in found)
    assert named(parts)["training.micro_batch_size"].value == 1


def test_a_pass_that_auto_measured_bounds_the_estimate(model):
    free, less = (training_memory(parts_of(model, bound=bound)) for bound in (None, 2**24))
    assert less.activations + less.logits <= 2**24 < free.activations + free.logits


def test_a_setting_at_its_end_is_not_named(model):
    parts = parts_of(model, micro=1, checkpointing=True, origin=ScratchConfig(layers=1), most=60)
    assert named(parts) == {}
    assert "smaller model" in settings_text([])


def test_an_adapter_is_named_only_for_a_pretrained_model_without_one(model):
    pretrained = PretrainedModel("somewhere", None)
    small = {"micro": 1, "checkpointing": True, "most": 60}
    assert set(named(parts_of(model, origin=pretrained, **small))) == {"model.lora.rank"}
    assert named(parts_of(model, origin=pretrained, lora=object(), **small)) == {}


def test_a_value_is_not_lower_than_the_free_memory_asks_for(model):
    parts = parts_of(model)
    memory = training_memory(parts)
    (least,) = [
        one.value
        for one in savings(parts, memory, room=memory.peak - memory.activations // 4)
        if one.key == "training.micro_batch_size"
    ]
    assert least in (2, 4)


def test_the_saving_of_a_micro_batch_size_is_that_of_the_estimate_with_it(model):
    now, then = (training_memory(parts_of(model, micro=micro)) for micro in (None, 1))
    saving = named(parts_of(model))["training.micro_batch_size"]
    assert saving.saved_bytes == pytest.approx(now.peak - then.peak, rel=0.25)


def test_the_saving_of_checkpointing_is_not_more_than_the_activations(model):
    parts = parts_of(model)
    memory, found = training_memory(parts), named(parts)
    if "training.gradient_checkpointing" in found:
        assert 0 < found["training.gradient_checkpointing"].saved_bytes < memory.activations


def cpu_seconds(parts, room):
    before = time.process_time()
    require_memory(parts, lambda event: None, room)
    return time.process_time() - before


def test_a_run_that_fits_costs_no_estimate(model):
    parts = parts_of(model)
    scarce, plenty = (Room(held=0, free=free, limit=2**40) for free in (2**20, 2**40))
    tight, fitting = (min(cpu_seconds(parts, room) for _ in range(3)) for room in (scarce, plenty))
    assert fitting < tight / 4


def test_a_run_that_may_not_fit_gets_a_warning(model):
    events = []
    require_memory(parts_of(model), events.append, Room(held=0, free=2**20, limit=2**40))
    (notice,) = events
    assert isinstance(notice, Notice)
    assert notice.is_warning
    assert "may run out of memory" in notice.message
    assert "training.micro_batch_size: 1 (saves" in notice.message


def test_a_run_that_cannot_fit_is_refused(model):
    events = []
    with pytest.raises(
        OutOfMemoryError, match=r"AdamW's moments need .* cpu has only 1.0 MiB"
    ) as caught:
        require_memory(parts_of(model), events.append, Room(held=0, free=2**40, limit=2**20))
    assert "(saves" in caught.value.hint
    assert events == []


def test_settings_that_are_not_enough_alone_are_told_apart():
    enough, other, less = (
        Saving(f"training.{key}", 1, saved, is_enough)
        for key, saved, is_enough in (("a", 2**31, True), ("b", 2**30, True), ("c", 2**20, False))
    )
    first, second = "training.a: 1 (saves 2.0 GiB)", "training.b: 1 (saves 1.0 GiB)"
    third = "training.c: 1 (saves 1.0 MiB)"
    assert settings_text([enough, other]) == f"set {first} or {second}"
    assert settings_text([enough, less]) == f"set {first} (not enough alone: {third})"
    assert settings_text([less, less]) == f"set {third} and {third}"


def test_an_allocation_that_fails_names_the_settings(model):
    parts = parts_of(model)
    with (
        pytest.raises(OutOfMemoryError, match="not enough memory") as caught,
        naming_settings(parts, RUN, has_moments=False),
    ):
        torch.empty(2**60)
    hint = caught.value.hint
    assert hint.count("(saves") == 3
    assert ": convo resume runs/a --set training." in hint
    assert "in a new run, set " in hint
    assert caught.value.hint.endswith("everything saved so far is intact")


def test_any_other_error_passes(model):
    with (
        pytest.raises(RuntimeError, match="a bug"),
        naming_settings(parts_of(model), RUN, has_moments=False),
    ):
        raise RuntimeError("a bug")
