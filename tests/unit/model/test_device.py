"""Choice of device and precision; a missing device is named."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from convo_cli.errors import UsageError
from convo_cli.model.device import (
    autocast_for,
    choose_device,
    choose_precision,
    make_deterministic,
    move,
)

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """A maker of machines: how many CUDA devices of which capability, and whether there is MPS."""

    def make(*, cuda=0, capability=(8, 0), mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return make


def test_auto_is_the_best_available_device(machine):
    machine()
    assert choose_device("auto") == CPU
    machine(mps=True)
    assert choose_device("auto") == torch.device("mps")
    machine(cuda=2, mps=True)
    assert choose_device("auto") == torch.device("cuda")


def test_an_available_device_is_used_by_name(machine):
    machine(cuda=2, mps=True)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1", "mps"):
        assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "count", "has"),
    [
        ("cuda", 0, "no CUDA device"),
        ("cuda:0", 0, "no CUDA device"),
        ("cuda:2", 2, "2 CUDA devices"),
        ("cuda:99", 1, "1 CUDA device"),
    ],
)
def test_the_refusal_of_a_missing_cuda_device_counts_those_of_the_machine(
    machine, name, count, has
):
    machine(cuda=count)
    with pytest.raises(UsageError, match=f"device {name}: this machine has {has}$") as caught:
        choose_device(name)
    assert "cpu: train and resume with --set training.device=auto" in str(caught.value.hint)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["cuda:99999999999999999999", "cuda:300"])
def test_a_device_number_beyond_all_machines_is_a_usage_error_too(machine, name):
    machine(cuda=1)
    with pytest.raises(UsageError, match=f"device {name}"):
        choose_device(name)


def test_a_missing_mps_device_is_named(machine):
    machine()
    with pytest.raises(UsageError, match="device mps: not available here"):
        choose_device("mps")


def test_auto_precision_is_bf16_only_on_a_gpu_with_native_support(machine):
    gpu = torch.device("cuda")
    machine(cuda=1, capability=(9, 0))
    assert choose_precision("auto", gpu) == "bf16"
    machine(cuda=1, capability=(7, 5))
    assert choose_precision("auto", gpu) == "fp32"
    assert choose_precision("auto", CPU) == "fp32"
    for name in ("fp32", "bf16", "fp16"):
        assert choose_precision(name, CPU) == name


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_low_precision_is_used_inside_the_context_only(precision, dtype):
    one = torch.ones(2, 2)
    context = autocast_for(CPU, precision)
    for _ in range(2):  # a fresh context for every forward pass
        with context():
            assert (one @ one).dtype == dtype
    assert (one @ one).dtype == torch.float32


def test_fp32_needs_no_context():
    assert autocast_for(CPU, "fp32") is nullcontext


def test_deterministic_algorithms_are_switched_on():
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(False)
        make_deterministic(CPU)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)


def test_a_model_is_moved_in_place():
    model: Any = torch.nn.Linear(2, 2)
    move(model, torch.device("meta"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
