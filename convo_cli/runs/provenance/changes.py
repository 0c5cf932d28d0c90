"""Changes of a run since run.json was written, reported and recorded in its ``changes``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from convo_cli.config.schema import DATA_SETS, DataConfig, RunConfig
from convo_cli.events import Emit, Notice
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.data_files import DataFile, DataFiles
from convo_cli.runs.provenance.execution import Change, Execution
from convo_cli.runs.provenance.run_info import NUMERIC, RunInfo, read_base_model, sealed_config
from convo_cli.storage.files import read_file
from convo_cli.wording import counted

_CHECKED_BY_CONTENT = tuple(f"data.{name}" for name in DATA_SETS)
_NO_CHANGE = ("name", "output_dir", *_CHECKED_BY_CONTENT)
"""Keys that do not affect the bits: the place of the run and of its data.

The content of the data is compared instead.
"""
_ASKED_BY = {
    "device": ("training.device",),
    "precision": ("training.precision",),
    "processes": ("training.devices",),
    "sharding": ("training.sharding",),
    "batching": ("training.packing",),
    "micro-batch size": (
        "training.micro_batch_size",
        "training.batch_size",
        "training.batch_tokens",
    ),
}
"""Config keys with which the user asks for a change."""
_CPU_ONLY = ("CPU threads", "CPU instructions")
"""Properties without effect on a GPU."""


def recorded(before: RunInfo, now: RunInfo, *, step: int, emit: Emit) -> RunInfo:
    """Return ``now`` with the changes since ``before``, recorded at the ``step`` of the resume.

    A change that may affect the bits is a warning unless the user asked for it; settings and data
    are only recorded. Earlier changes after ``step`` belong to checkpoints that are not continued,
    but their effect lasts: they move to ``step``.
    """
    execution, settings = changes_of_execution(before, now), changes_of_settings(before, now)
    keys_set = {line.partition(": ")[0] for line in settings}
    for what, change in execution.items():
        is_asked_for = any(key in keys_set for key in _ASKED_BY.get(what, ()))
        message = f"{change}, so numbers may differ in the last digits from step {step + 1} on"
        emit(Notice(message, is_warning=not is_asked_for))
    earlier = [
        change.model_copy(update={"step": min(change.step, step)}) for change in before.changes
    ]
    new = [Change(step=step, message=message) for message in (*execution.values(), *settings)]
    return now.model_copy(update={"changes": (*earlier, *new)})


def changes_of_execution(before: RunInfo, now: RunInfo) -> dict[str, str]:
    """Return changes since the last start or resume that may affect the bits.

    The keys are names, the values clauses with both values.
    """
    old, new = dict(_decisive(before)), dict(_decisive(now))
    is_on_cpu = {before.execution.device, now.execution.device} == {"cpu"}
    return {
        what: f"{what}: the run had {old.get(what, 'none')} and continues with "
        f"{new.get(what, 'none')}"
        for what in dict.fromkeys((*old, *new))
        if old.get(what) != new.get(what) and (is_on_cpu or what not in _CPU_ONLY)
    }


def changes_of_settings(before: RunInfo, now: RunInfo) -> list[str]:
    """Return a clause for each change of config, data or base model since the last resume."""
    old, new = (dict(leaves(info.config.model_dump(mode="json"))) for info in (before, now))
    keys = [key for key in dict.fromkeys((*old, *new)) if key not in _NO_CHANGE]
    changed = [
        f"{key}: {as_json(old.get(key))} -> {as_json(new.get(key))}"
        for key in keys
        if old.get(key) != new.get(key)
    ]
    changed += [
        f"data.train: weight of {path}: {old:g} -> {new:g}"
        for path, old, new in _other_weights(before.config.data, now.config.data)
    ]
    for what in DATA_SETS:
        if [file.sha256 for file in getattr(before, what)] != [
            file.sha256 for file in getattr(now, what)
        ]:
            changed.append(f"data.{what}: other content")
    old_base, new_base = before.base_model, now.base_model
    if (old_base and old_base.sha256) != (new_base and new_base.sha256):
        changed.append("the base model's files: other content")
    return changed


def changes_of_config(run: RunDirectory, info: RunInfo, config: RunConfig) -> list[str]:
    """Return the keys of config.yaml, read as ``config``, that were changed outside convo.

    Data paths are not among them, because data is identified by its content.
    """
    text = read_file(run.config)
    *_, below_seal = text.split(b"\n", 2)
    if text == sealed_config(below_seal):
        return []
    before, now = (dict(leaves(one.model_dump(mode="json"))) for one in (info.config, config))
    return [
        f"{run.config}: {key} is {as_json(now.get(key))}, but {as_json(before.get(key))} in "
        f"{run.info.name}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in _CHECKED_BY_CONTENT
    ]


def changes_of_data(info: RunInfo, data: DataFiles) -> list[str]:
    """Return a clause for each data file whose content or position differs from the start."""
    changes = []
    for key, after in zip(DATA_SETS, data, strict=True):
        before: tuple[DataFile, ...] = getattr(info, key)
        if len(before) != len(after):
            now = counted(len(after), "file")
            changes.append(f"data.{key} lists {now}, but the run began with {len(before)}")
            continue
        changes += [
            f"{new.path}: not the data that the run began with ({old.path} in run.json has "
            f"SHA-256 {old.sha256}, this file has {new.sha256})"
            for old, new in zip(before, after, strict=True)
            if old.sha256 != new.sha256
        ]
    return changes


def changes_of_weights(before: DataConfig, now: DataConfig) -> list[str]:
    """Return a clause for each training file whose weight differs from the start of the run."""
    return [
        f"{path}: its weight is {new:g}, but the run began with {old:g}"
        for path, old, new in _other_weights(before, now)
    ]


def _other_weights(before: DataConfig, now: DataConfig) -> Iterable[tuple[str, float, float]]:
    """Yield path, weight before and weight now; nothing if there are more or fewer files."""
    if len(before.train) == len(now.train):
        for path, old, new in zip(now.train, before.weights, now.weights, strict=True):
            if old != new:
                yield path, old, new


def changes_of_base_model(run: RunDirectory, info: RunInfo) -> list[str]:
    """Return a clause for each file of the base model that differs from the start of the run.

    No clause if the folder no longer exists.
    """
    before = info.base_model
    if before is None or before.commit is not None:
        return []
    folder = before.folder(run)
    if not folder.is_dir():
        return []
    now = read_base_model(before.source, folder).sha256
    return [
        f"{folder / name}: not the base model that the run began with "
        f"(SHA-256 {_short(before.sha256.get(name))}, now {_short(now.get(name))})"
        for name in sorted(before.sha256.keys() | now.keys())
        if before.sha256.get(name) != now.get(name)
    ]


def _decisive(info: RunInfo) -> Iterable[tuple[str, str]]:
    execution: Execution = info.execution
    yield "device", execution.device
    yield "processor", execution.device_name
    yield "precision", execution.precision
    yield "processes", str(execution.num_processes)
    yield "sharding", execution.sharding
    yield "CPU threads", str(execution.num_threads)
    yield "CPU instructions", execution.cpu_capability
    yield "batching", execution.batching
    yield "micro-batch size", _pass_size(info)
    yield from execution.environment.items()
    yield "convo", info.convo
    yield from ((name, info.packages[name]) for name in NUMERIC if name in info.packages)


def _pass_size(info: RunInfo) -> str:
    number, batch = info.micro_batch_size, info.config.training.batch
    is_whole = number is None or (batch.unit == "examples" and number >= batch.number)
    return "the whole step" if is_whole else counted(number or 0, "example")


def as_json(value: Any) -> str:
    """Format a value as in a config file."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def leaves(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the dotted name and value of every key that is not a section."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "none"
