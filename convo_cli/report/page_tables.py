"""Tables of a report page: data, config, checkpoints, history and versions of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from convo_cli.config.keys import config_keys
from convo_cli.config.presets import PRESETS
from convo_cli.config.schema import DATA_SETS, RunConfig
from convo_cli.report.reading.gathering import Gathered
from convo_cli.report.reading.recent_losses import recent_losses
from convo_cli.report.reading.run_log import LAST_STEPS, number_of
from convo_cli.report.shown import device_of, moment, number, size
from convo_cli.runs.provenance.changes import as_json, leaves
from convo_cli.wording import counted

_MAX_ROWS = 40
_MAX_FILES = 20
_PLACES = ("name", "output_dir", *(f"data.{name}" for name in DATA_SETS))
"""Keys that every run sets for itself, so comparing them with defaults tells nothing."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table for the template; cells are texts."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    """Columns of numbers, aligned to the right."""
    note: str = ""


def bounded(rows: Iterable[Sequence[str]], limit: int = _MAX_ROWS) -> list[Sequence[str]]:
    """Return the first rows, and a row with the number of the others."""
    rows = list(rows)
    if len(rows) <= limit:
        return rows
    return [*rows[:limit], (f"… and {len(rows) - limit:,} more", *[""] * (len(rows[0]) - 1))]


def data_table(run: Gathered) -> Table | None:
    """Return the counts of each data set that the last start logged."""
    counts = [
        (name, run.log.starts[-1].get(key) if run.log.starts else None)
        for name, key in (("training", "training"), ("validation", "validation"), ("test", "test"))
    ]
    sets = {name: value for name, value in counts if isinstance(value, Mapping)}
    if not sets:
        return None
    plain = (
        ("dialogues", "num_dialogues"),
        ("examples", "num_examples"),
        ("tokens", "num_dialogue_tokens"),
        ("median tokens of a dialogue", "median_tokens"),
        ("longest dialogue, tokens", "max_tokens"),
        ("cut into windows", "num_over_length"),
        ("with a turn that was cut", "num_split"),
        ("left out: a turn is too long", "num_left_out"),
        ("held back for validation", "num_held_back"),
    )
    rows = [
        (label, *(_count(values.get(key)) for values in sets.values()))
        for label, key in plain
        if any(values.get(key) for values in sets.values())
    ]
    roles = [_mapping(values.get("num_targets_by_role")) for values in sets.values()]
    for role in dict.fromkeys(role for one in roles for role in one):
        if any(one.get(role) for one in roles):
            rows.append((f"targets: {role} tokens", *(_count(one.get(role)) for one in roles)))
    numeric = frozenset(range(1, 1 + len(sets)))
    return Table("Size of the data", ("", *sets), bounded(rows), numeric)


def file_table(run: Gathered) -> Table | None:
    """Return path, lines and hash of every data file, and what the log has of several files."""
    if run.info is None:
        return None
    files = run.log.starts[-1].get("files") if run.log.starts else None
    shares = [_mapping(one) for one in files] if isinstance(files, list) else []
    losses = next((one.loss_by_file for one in reversed(run.log.evaluations.values())), ())
    recent = recent_losses(run.log.last_steps)
    scored = "validation" if run.info.validation else "train"
    rows = [
        (
            "training" if name == "train" else name,
            file.path,
            _count(file.num_lines or None),
            file.sha256[:12],
            *(_share(shares, index if name == "train" else None) if shares else ()),
            *([_loss(recent, index if name == "train" else None)] if recent else ()),
            *([_loss(losses, index if name == scored else None)] if losses else ()),
        )
        for name in DATA_SETS
        for index, file in enumerate(getattr(run.info, name))
    ]
    head = ["data", "file", "lines", "SHA-256"]
    head += ["weight", "tokens of the steps"] if shares else []
    head += [f"training loss, last {LAST_STEPS} steps"] if recent else []
    head += ["last validation loss"] if losses else []
    numeric = frozenset({2, *range(4, len(head))})
    caption = "Files, as they were when the run began"
    return Table(caption, head, bounded(rows, _MAX_FILES), numeric)


def _share(shares: Sequence[Mapping[str, Any]], index: int | None) -> tuple[str, str]:
    """Return weight and share of a training file; empty for other files."""
    if index is None or index >= len(shares):
        return "", ""
    weight, share = (number_of(shares[index].get(name)) for name in ("weight", "share"))
    return number(weight), "–" if share is None else f"{100 * share:.3g}%"


def _loss(losses: Sequence[float | None], index: int | None) -> str:
    return "" if index is None or index >= len(losses) else number(losses[index])


def config_table(config: RunConfig) -> Table:
    """Return the keys whose value is neither the default nor that of the most similar preset."""
    defaults, own = default_values(), dict(leaves(config.model_dump(mode="json")))
    preset = nearest_preset(config)
    values = preset_values(preset)
    keys = [
        key
        for key in own
        if key not in _PLACES and (own[key] != defaults.get(key) or own[key] != values.get(key))
    ]
    rows = [
        (key, *(as_json(values_of.get(key)) for values_of in (own, defaults, values)))
        for key in sorted(keys, key=lambda key: own[key] == values.get(key))
    ]
    return Table(
        f"Keys that differ from the defaults or from the most similar preset, {preset}",
        ("key", "this run", "default", f"preset {preset}"),
        bounded(rows, 80),
        note="" if rows else "Every key has its default value.",
    )


def nearest_preset(config: RunConfig) -> str:
    """Return the preset with the fewest other values, not counting names and files."""
    own = dict(leaves(config.model_dump(mode="json")))

    def distance(name: str) -> int:
        other = preset_values(name)
        keys = (own.keys() | other.keys()) - set(_PLACES)
        return sum(own.get(key) != other.get(key) for key in keys)

    return min(PRESETS, key=distance)


@cache
def preset_values(name: str) -> dict[str, Any]:
    """Return the values of a preset by dotted key."""
    return dict(leaves(PRESETS[name].config().model_dump(mode="json")))


@cache
def default_values() -> dict[str, Any]:
    """Return the default of every key that has one, as it is in JSON."""
    return {
        key.path: list(key.default) if isinstance(key.default, tuple) else key.default
        for key in config_keys().values()
        if not key.is_section and not key.is_required
    }


def checkpoint_table(run: Gathered) -> Table:
    """Return every saved checkpoint with its scores, and whether it is the last or a best one."""
    rows = [
        (
            f"step-{one.step:08d}",
            number(one.loss),
            number(one.metric, 3),
            ", ".join(one.kinds) + ("" if one.is_whole else " (damaged)"),
            size(one.num_bytes) if one.num_bytes else "–",
        )
        for one in run.saved
    ]
    head = ("checkpoint", "validation loss", run.metric or "metric", "note", "size")
    return Table("Checkpoints on the disk", head, bounded(rows[::-1]), frozenset({1, 2, 4}))


def history_table(run: Gathered) -> Table:
    """Return starts, resumes, changes, warnings and the end of the run, in order of steps."""
    rows = sorted(_history(run), key=lambda row: row[0])
    shown = [(f"{step:,}", when, what) for step, _, when, what in rows]
    more = run.log.num_warnings - len(run.log.warnings)
    note = f"{more:,} more warnings are in metrics.jsonl." if more else ""
    head = ("step", "time", "what happened")
    return Table("History", head, bounded(shown), frozenset({0}), note)


def _history(run: Gathered) -> Iterator[tuple[int, int, str, str]]:
    """Yield step, rank within the step, time and text of each event."""
    parent = run.info.parent if run.info else None
    if parent:
        text = f"fork of the run {parent.name} (id {parent.run_id[:8]})"
        yield parent.step, 0, "", text
    for index, start in enumerate(run.log.starts):
        what = "resumed" if index or int(start["step"]) else "started"
        where = f"on {device_of(start)}, {start.get('precision')}"
        planned = f"{_count(start.get('max_steps'))} steps planned"
        yield int(start["step"]), 1, moment(start.get("time")), f"{what} {where}, {planned}"
    for change in run.info.changes if run.info else ():
        yield change.step, 2, "", f"changed: {change.message}"
    for step, message in run.log.warnings:
        yield step, 3, "", f"warning: {message}"
    if run.log.finished is not None:
        time = moment(run.log.finished.get("time"))
        yield int(run.log.finished["step"]), 4, time, f"end: {run.log.finished.get('reason')}"


def version_table(run: Gathered) -> Table | None:
    """Return versions, device, commit and base model."""
    info = run.info
    if info is None:
        return None
    execution = info.execution
    threads = f", {counted(execution.num_threads, 'thread')}" if execution.device == "cpu" else ""
    rows = [
        ("convo", info.convo),
        ("Python", info.python),
        *info.packages.items(),
        ("device", f"{execution.device}: {execution.device_name}{threads}"),
        *([("processes", str(execution.num_processes))] if execution.num_processes > 1 else ()),
        ("precision", execution.precision),
        ("batching", execution.batching),
        ("commit of the folder", info.git.commit if info.git else "–"),
        ("run id", info.run_id),
    ]
    if info.base_model:
        commit = f" at {info.base_model.commit}" if info.base_model.commit else ""
        rows.append(("base model", f"{info.base_model.source}{commit}"))
    return Table("Versions of the last start", ("what", "version"), bounded(rows))


def _count(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–"
    return number(int(value) if float(value).is_integer() else value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
