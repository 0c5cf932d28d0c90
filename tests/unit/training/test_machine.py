"""A resume computes as the run began, or reports and records the difference."""

from __future__ import annotations

import shutil

import pytest
import torch

from convo_cli.config.load import apply_overrides, load_config
from convo_cli.config.schema import RunConfig
from convo_cli.errors import UsageError
from convo_cli.events import Notice, RunStarted
from convo_cli.model.batches import batching as batching_module
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.run_info import RunInfo, read_run_info, write_provenance
from convo_cli.training import machine as module
from convo_cli.training.machine import choose_machine
from convo_cli.training.run import resume_run, start_run


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """No variable sets the number of threads, and each test restores that of the process."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_config):
    """A run of two steps on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    config = make_config(
        tmp_path_factory.mktemp("execution"), training={"max_steps": 2}, data={"validation": []}
    )
    events = []
    run_dir = start_run(config, events.append).run_dir
    torch.set_num_threads(before)
    return run_dir, events


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def info(run):
    return read_run_info(run)


@pytest.fixture
def machine(monkeypatch):
    """A maker of machines with this many GPUs, on which nothing can be computed."""

    def make(*, cuda=0, capability=(8, 0), name="GPU X"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(module, "make_deterministic", lambda device: None)

    return make


def resume(run, *overrides, steps=4):
    """Extend the run; return its new run.json and the messages."""
    config = apply_overrides(load_config(run.config), [f"training.max_steps={steps}", *overrides])
    events = []
    resume_run(run.path, "last", config, events.append)
    return read_run_info(run), [
        (event.message, event.is_warning) for event in events if isinstance(event, Notice)
    ]


def changed(info, *overrides, **stored) -> tuple[RunInfo, RunConfig]:
    """The run's config with overrides, and its run.json with other stored values."""
    config = apply_overrides(info.config, overrides)
    return info.model_copy(update={"execution": info.execution.model_copy(update=stored)}), config


def test_the_start_writes_down_what_it_computes_with(info, finished):
    found = info.execution
    assert (found.device, found.precision, found.num_threads) == ("cpu", "fp32", 1)
    assert found.cpu_capability == torch.backends.cpu.get_cpu_capability()
    assert found.device_name
    assert (found.is_packed, found.why_padded, found.has_plain_head) == (True, None, True)
    assert found.attention == "one example length at a time"
    assert info.changes == ()
    (started,) = [event for event in finished[1] if isinstance(event, RunStarted)]
    assert (started.device, started.precision, started.num_threads) == ("cpu", "fp32", 1)


def test_a_resume_proves_nothing_and_records_the_changed_key_alone(run, monkeypatch):
    monkeypatch.setattr(batching_module, "choose_batching", None)  # calling it would fail
    info, notices = resume(run)
    assert [(change.step, change.message) for change in info.changes] == [
        (2, "training.max_steps: 2 -> 4"), (2, "training.schedule_steps: null -> 2"),
    ]  # fmt: skip
    assert not any(is_warning for _, is_warning in notices)
    assert not any("batching: " in message or "CPU thread" in message for message, _ in notices)


# Threads


def test_the_number_of_threads_that_the_run_began_with_is_used_and_said(run):
    torch.set_num_threads(3)
    info, notices = resume(run)
    assert torch.get_num_threads() == info.execution.num_threads == 1
    expected = (
        "the run continues with 1 CPU thread, as it began; to use 3, put OMP_NUM_THREADS=3 before "
        "the command"
    )
    assert any(message.startswith(expected) for message, _ in notices)
    assert not any("threads" in change.message for change in info.changes)


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_of_threads_that_the_user_sets_is_used_reported_and_recorded(
    run, monkeypatch, variable
):
    monkeypatch.setenv(variable, "2")
    torch.set_num_threads(2)  # what torch does at its import
    info, notices = resume(run)
    message = "CPU threads: the run had 1 and continues with 2"
    assert (f"{message}, so numbers may differ in the last digits from step 3 on", True) in notices
    assert (2, message) in [(change.step, change.message) for change in info.changes]
    assert info.execution.num_threads == 2
    monkeypatch.delenv(variable)
    torch.set_num_threads(1)
    assert resume(run, steps=6)[0].execution.num_threads == 2


def test_a_digit_of_run_json_that_changed_is_not_taken_in_silence(run):
    """The number of threads affects the bits, and no manifest covers run.json."""
    assert not any("run.json" in message for message, _ in resume(run, steps=3)[1])
    run.info.write_text(run.info.read_text().replace('"num_threads": 1', '"num_threads": 3'))
    warnings = [message for message, is_warning in resume(run, steps=4)[1] if is_warning]
    assert f"{run.info}: changed since convo wrote it; continuing with it as it is" in warnings


# Device and precision


def test_a_run_that_began_on_the_cpu_stays_there_where_a_gpu_is_there_now(machine, info, ignore):
    machine(cuda=1)
    notices = []
    found = choose_machine(info, info.config, notices.append)
    assert (found.device, found.precision) == ("cpu", "fp32")
    (notice,) = notices
    assert (
        "continues on cpu, where it began; --set training.device=cuda continues on GPU X"
        in notice.message
    )
    found = choose_machine(*changed(info, "training.device=cuda"), ignore)
    assert (found.device, found.device_name, found.precision) == ("cuda:0", "GPU X", "bf16")


def test_the_precision_that_auto_meant_at_the_start_is_used_on_the_same_kind_of_device(
    machine, info, ignore
):
    machine(cuda=2, capability=(9, 0))
    old, config = changed(info, device="cuda:1", device_name="GPU V", precision="fp32")
    found = choose_machine(old, config, ignore)
    assert (found.device, found.precision) == ("cuda:1", "fp32")
    assert choose_machine(*changed(old, "training.precision=bf16"), ignore).precision == "bf16"


def test_auto_takes_what_is_there_where_the_device_of_the_run_is_not(machine, info, ignore):
    machine(cuda=0)
    found = choose_machine(
        *changed(info, device="cuda:0", device_name="GPU V", precision="bf16"), ignore
    )
    assert (found.device, found.precision) == ("cpu", "fp32")


def test_a_list_of_gpus_is_never_replaced_by_processes_on_the_cpu(
    machine, info, ignore, monkeypatch
):
    machine(cuda=0)
    monkeypatch.setenv("CONVO_LAUNCHER_FD", "3")
    _, config = changed(info, "training.devices=[5]")
    with pytest.raises(UsageError, match="names 1 GPU, but the device is cpu"):
        choose_machine(None, config, ignore)


@pytest.mark.parametrize(("devices", "num_notices"), [("2", 1), ("1", 0), ("auto", 0)])
def test_a_number_of_devices_has_no_effect_under_torchrun_and_a_notice_says_so(
    info, monkeypatch, devices, num_notices
):
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}.items():
        monkeypatch.setenv(name, str(value))
    notices = []
    choose_machine(None, changed(info, f"training.devices={devices}")[1], notices.append)
    assert len(notices) == num_notices
    assert all("training.devices has no effect" in notice.message for notice in notices)


def test_a_device_that_the_config_names_is_never_replaced(machine, info, ignore):
    machine(cuda=1)
    old, _ = changed(info, device="cuda:1", precision="fp32")
    old = old.model_copy(
        update={"config": apply_overrides(info.config, ["training.device=cuda:1"])}
    )
    with pytest.raises(UsageError, match="device cuda:1: this machine has 1 CUDA device"):
        choose_machine(old, old.config, ignore)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"device": "cuda:0"}, "device: the run had cuda:0 and continues with cpu"),
        ({"device_name": "Other CPU"}, "processor: the run had Other CPU and continues with "),
        ({"cpu_capability": "AVX"}, "CPU instructions: the run had AVX and continues with "),
        (
            {"environment": {"MKL_CBWR": "AVX2"}},
            "MKL_CBWR: the run had AVX2 and continues with none",
        ),
        ({"attention": "varlen_attn"}, "batching: the run had packed rows (varlen_attn)"),
    ],
)
def test_what_is_not_as_it_was_is_a_warning_and_recorded(run, info, machine, stored, message):
    machine(cuda=0)
    write_provenance(run, changed(info, **stored)[0])
    now, notices = resume(run)
    (warned,) = [
        warning for warning, is_warning in notices if is_warning and warning.startswith(message)
    ]
    assert warned.endswith("so numbers may differ in the last digits from step 3 on")
    assert any(change.step == 2 and change.message.startswith(message) for change in now.changes)
    assert now.execution == info.execution
    assert not any(is_warning for _, is_warning in resume(run, steps=6)[1])


# The batching


def test_a_batching_that_cannot_be_used_is_proved_again_and_the_other_one_recorded(
    run, monkeypatch
):
    monkeypatch.setattr(
        batching_module, "why_not_packed", lambda model: "transformers cannot replace the attention"
    )
    info, notices = resume(run)
    assert (
        "batching: chosen again, because transformers cannot replace the attention",
        False,
    ) in notices
    change = (
        "batching: the run had packed rows (one example length at a time), logits at targets "
        "and continues with "
    )
    change += "padded rows (sdpa), logits at targets"
    assert (f"{change}, so numbers may differ in the last digits from step 3 on", True) in notices
    assert change in [recorded.message for recorded in info.changes]
    assert info.execution.why_padded == "transformers cannot replace the attention"
    monkeypatch.undo()
    assert not resume(run, steps=6)[0].execution.is_packed, (
        "what it continued with stays the choice"
    )


def test_the_user_changes_the_batching(run):
    info, notices = resume(run, "training.packing=off")
    assert not info.execution.is_packed
    assert [change.message.split(":")[0] for change in info.changes] == [
        "batching", "training.max_steps", "training.packing", "training.schedule_steps",
    ]  # fmt: skip
    assert any(message.startswith("batching: ") for message, _ in notices)
    assert not any(is_warning for _, is_warning in notices), "the user asked for it"
