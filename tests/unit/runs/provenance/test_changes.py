"""Changes by a resume are recorded with both values and the step from which they apply."""

from __future__ import annotations

import pytest

from convo_cli.config.load import apply_overrides
from convo_cli.config.schema import RunConfig
from convo_cli.runs.provenance.changes import changes_of_execution, changes_of_settings, recorded
from convo_cli.runs.provenance.data_files import DataFile, DataFiles
from convo_cli.runs.provenance.execution import Change, Execution
from convo_cli.runs.provenance.run_info import make_run_info

EXECUTION = Execution(
    device="cpu", device_name="a processor", precision="fp32", num_threads=2,
    cpu_capability="AVX2", environment={}, is_packed=True, why_padded=None, has_plain_head=True,
    attention="one example length at a time",
)  # fmt: skip
CONFIG = RunConfig.model_validate(
    {"data": {"train": "a.jsonl"}, "model": {"pretrained": "m"}, "training": {"max_steps": 9}}
)
FILES = DataFiles((DataFile(path="a.jsonl", sha256="0" * 64, num_lines=1),), ())


@pytest.fixture
def info():
    return make_run_info(CONFIG, FILES, execution=EXECUTION, git=None, base_model=None, max_steps=9)


def with_execution(info, **values):
    return info.model_copy(update={"execution": info.execution.model_copy(update=values)})


def test_nothing_changes_nothing(info, ignore):
    assert (changes_of_execution(info, info), changes_of_settings(info, info)) == ({}, [])
    assert recorded(info, info, step=3, emit=ignore) == info


@pytest.mark.parametrize("field", [name for name in Execution.model_fields if name != "why_padded"])
def test_every_field_is_compared(info, field):
    value = getattr(info.execution, field)
    other = {
        bool: False,
        int: 3,
        dict: {"MKL_CBWR": "AVX2"},
        str: "bf16" if field == "precision" else "mps",
        type(None): 2,
    }
    assert len(changes_of_execution(info, with_execution(info, **{field: other[type(value)]}))) == 1


@pytest.mark.parametrize("package", ["torch", "transformers", "tokenizers", "numpy", "jinja2"])
def test_every_package_that_decides_bits_is_compared(info, package):
    older = info.model_copy(update={"packages": {**info.packages, package: "0.1"}})
    now = info.packages[package]
    assert changes_of_execution(older, info) == {
        package: f"{package}: the run had 0.1 and continues with {now}"
    }


def test_the_processor_of_a_run_on_a_gpu_is_of_no_consequence(info):
    gpu = with_execution(info, device="cuda:0", device_name="GPU X")
    assert changes_of_execution(gpu, with_execution(gpu, num_threads=1, cpu_capability="AVX")) == {}


def test_keys_are_named_with_both_values_and_places_are_no_change(info):
    overrides = [
        "training.max_steps=12",
        "training.micro_batch_size=2",
        "data.train=b.jsonl",
        "name=other",
    ]
    now = info.model_copy(update={"config": apply_overrides(info.config, overrides)})
    assert changes_of_settings(info, now) == [
        "training.max_steps: 9 -> 12",
        "training.micro_batch_size: null -> 2",
    ]


def with_passes(info, stored, **training):
    config = apply_overrides(info.config, [f"training.{k}={v}" for k, v in training.items()])
    return with_execution(info, micro_batch_size=stored).model_copy(update={"config": config})


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        ((None, "null"), (None, "null"), None),
        # An earlier version stored no number.
        ((None, 4), (4, 4), None),
        ((None, "null"), (16, "auto"), None),
        ((16, "auto"), (None, "null"), None),
        ((16, "auto"), (1, "auto"), "the whole step and continues with 1 example"),
        ((8, "auto"), (4, 4), "8 examples and continues with 4 examples"),
        ((None, 4), (None, "null"), "4 examples and continues with the whole step"),
    ],
)
def test_the_size_of_a_pass_is_compared_as_it_was_and_is_used(info, before, now, change):
    one, other = (
        with_passes(info, stored, micro_batch_size=size) for stored, size in (before, now)
    )
    expected = {"micro-batch size": f"micro-batch size: the run had {change}"} if change else {}
    assert changes_of_execution(one, other) == expected


@pytest.mark.parametrize("asked", [{}, {"batch_size": 8}, {"micro_batch_size": 4}])
def test_another_size_of_a_pass_is_a_warning_unless_it_was_asked_for(info, asked):
    before, notices = with_passes(info, 8, micro_batch_size="auto"), []
    now = with_passes(info, 4, **{"micro_batch_size": "auto", **asked})
    recorded(before, now, step=3, emit=notices.append)
    assert [notice.is_warning for notice in notices] == [not asked]


def test_other_data_is_a_change(info):
    other = FILES.train[0].model_copy(update={"sha256": "1" * 64})
    assert changes_of_settings(info, info.model_copy(update={"train": (other,)})) == [
        "data.train: other content"
    ]


def test_changes_after_the_step_hold_from_that_step_on(info, ignore):
    """A run that goes back to step 5 continues with what a resume at step 7 changed."""
    before = info.model_copy(
        update={"changes": tuple(Change(step=step, message="x") for step in (2, 7))}
    )
    after = recorded(before, with_execution(before, num_threads=1), step=5, emit=ignore)
    assert [change.step for change in after.changes] == [2, 5, 5]
