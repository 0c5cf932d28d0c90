"""Differences between a run and its resume: refused, or accepted and recorded in run.json."""

from __future__ import annotations

from convo_cli import __version__
from convo_cli.config.schema import PretrainedModel, RunConfig
from convo_cli.errors import ChangedError
from convo_cli.events import Emit, Notice
from convo_cli.prepare.inputs import Inputs
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.changes import (
    as_json,
    changes_of_base_model,
    changes_of_config,
    changes_of_data,
    changes_of_weights,
    leaves,
    recorded,
)
from convo_cli.runs.provenance.execution import Execution
from convo_cli.runs.provenance.movable import movable_base, movable_files
from convo_cli.runs.provenance.run_info import (
    RunInfo,
    installed_packages,
    read_base_model,
    read_config,
)
from convo_cli.text.tokenizers.hub import local_folder

_SETTLED = (
    "output_dir",
    "model",
    "tokenizer",
    "data.validation_split",
    "dialogue.template",
    "dialogue.template_options",
    "dialogue.max_length",
    "dialogue.long_turns",
)
"""Keys that are read only when a run starts."""
_PLACE_OF_BASE = ("model.pretrained", "model.revision")
_MAX_NAMED = 5
"""Maximum number of changes that a message lists."""


def accept_changes(
    run: RunDirectory, info: RunInfo, inputs: Inputs, *, allow_changed: bool
) -> RunInfo:
    """Return run.json with the data and base model of the resume.

    ChangedError if they, the weights of training files, or config.yaml changed and this is not
    allowed.
    """
    files, config, emit = inputs.files, inputs.config, inputs.emit
    if config.model != info.config.model:
        info = _with_moved_base(run, info, config, emit)
    if not info.is_intact:
        emit(
            Notice(
                f"{run.info}: changed since convo wrote it; continuing with it as it is",
                is_warning=True,
            )
        )
    changes = [
        *changes_of_config(run, info, read_config(run)),
        *changes_of_data(info, files),
        *changes_of_weights(info.config.data, inputs.config.data),
        *changes_of_base_model(run, info),
    ]
    if not changes:
        return info
    if not allow_changed:
        more = f"\nand {len(changes) - _MAX_NAMED} more" if len(changes) > _MAX_NAMED else ""
        raise ChangedError(
            "\n".join(changes[:_MAX_NAMED]) + more,
            hint="restore it, or continue with the change: --allow-changed (to change a config "
            "key, use --set KEY=VALUE)",
        )
    for change in changes:
        emit(Notice(f"{change}; continuing with it (--allow-changed)", is_warning=True))
    base = info.base_model
    if base is not None and base.commit is None and (folder := base.folder(run)).is_dir():
        now = read_base_model(base.source, folder).sha256
        base = base.model_copy(update={"sha256": now})
    return info.model_copy(update={**movable_files(files, run)._asdict(), "base_model": base})


def _with_moved_base(run: RunDirectory, info: RunInfo, config: RunConfig, emit: Emit) -> RunInfo:
    """Return run.json with the new place of an adapter's base; ChangedError for another model."""
    origin, base = config.model.origin, info.base_model
    assert isinstance(origin, PretrainedModel), "only the place may differ"
    found = read_base_model(origin.source, local_folder(origin.source, origin.revision))
    if base is None or found.sha256 != base.sha256:
        raise ChangedError(
            f"model.pretrained is {origin.source}, which is not the model that the run began with "
            "(its files have other hashes than in run.json)",
            hint="give the place of the same model, or start a new run",
        )
    emit(Notice(f"the base model is now {origin.source} (same files)"))
    return info.model_copy(update={"base_model": movable_base(found, run)})


def resumed_info(
    before: RunInfo,
    accepted: RunInfo,
    config: RunConfig,
    execution: Execution,
    *,
    step: int,
    emit: Emit,
) -> RunInfo:
    """Return run.json of a run that continues from ``step``, with every change recorded.

    Changes that may affect the bits are also emitted. ``accepted`` is ``before`` with the data and
    the base model that the run continues with.
    """
    now = {
        "config": config,
        "execution": execution,
        "packages": installed_packages(config),
        "convo": __version__,
    }
    return recorded(before, accepted.model_copy(update=now), step=step, emit=emit)


def with_other_files(
    before: RunInfo, accepted: RunInfo, config: RunConfig, *, step: int, emit: Emit
) -> RunInfo:
    """Return run.json of a finished run with the test data and the base's place of this resume.

    Nothing else of the resume's config is stored.
    """
    data = before.config.data.model_copy(update={"test": config.data.test})
    config = before.config.model_copy(update={"data": data, "model": config.model})
    kept = {"test": accepted.test, "base_model": accepted.base_model}
    now = before.model_copy(update={**kept, "config": config})
    return recorded(before, now, step=step, emit=emit)


def require_same_config(before: RunConfig, now: RunConfig) -> None:
    """Raise ChangedError for a changed key that is read only when a run starts.

    The base of an adapter may have moved; `accept_changes` compares its files.
    """
    movable = _PLACE_OF_BASE if before.model.lora is not None else ()
    old, new = (dict(leaves(config.model_dump(mode="json"))) for config in (before, now))
    for key in dict.fromkeys((*old, *new)):
        if key.startswith(_SETTLED) and key not in movable and old.get(key) != new.get(key):
            raise ChangedError(
                f"{key} is {as_json(new.get(key))}, but the run was started with "
                f"{as_json(old.get(key))} (see run.json)",
                hint="start a new run to change it",
            )
