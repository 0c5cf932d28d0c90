"""Choice of what `validate-data` and `evaluate` read: files, configs, and a run's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convo_cli.cli.config_paths import require_paths
from convo_cli.cli.given_paths import require_pretrained
from convo_cli.config.keys import config_keys
from convo_cli.config.load import LocatedConfig, build_config, keys_set_by, locate_config
from convo_cli.config.schema import DATA_SETS, DataConfig, RunConfig, TrainOn
from convo_cli.errors import UsageError, typeable

if TYPE_CHECKING:
    from convo_cli.runs.directory import RunDirectory
    from convo_cli.runs.selection import Which

_NO_LIMIT = 1_048_576
"""Window in tokens if only a tokenizer is given, because the context of its model is not known."""
_DIALOGUE_KEYS = (
    "dialogue.train_on",
    "dialogue.template",
    "dialogue.max_length",
    "dialogue.long_turns",
)
"""Keys that matter with a tokenizer alone."""
_NO_DATA = {"train": ["unused"]}
"""The required key of the data, whose files are arguments; a config cannot name stdin."""
_UNUSED_MODEL = {"model": {"scratch": {}}, "training": {"max_steps": 1}}
"""The required keys of a config of which only the data is read."""


@dataclass(frozen=True)
class ChosenData:
    """Files to check, and the config to check them with."""

    data_config: DataConfig
    run_config: RunConfig | None
    """None without --config and --tokenizer."""
    cache_home: Path | None
    """The folder with the cache of `train` for these files; None without --config."""
    located: LocatedConfig | None = None
    """The config with the places of its values; None without --config."""
    train_on: TrainOn = "assistant"

    @property
    def paths(self) -> list[str]:
        return list(self.data_config.files)

    def changed(self, changes: Mapping[str, object]) -> ChosenData:
        """Return a copy with other values in the data config."""
        return self._with(self.data_config.model_copy(update=changes))

    def of(self, files: Sequence[str]) -> ChosenData:
        """Return a copy for other files."""
        return self._with(self.data_config.of(files))

    def _with(self, data_config: DataConfig) -> ChosenData:
        run_config = self.run_config and self.run_config.model_copy(update={"data": data_config})
        return replace(self, data_config=data_config, run_config=run_config)


def choose_data(
    files: Sequence[str], config: Path | None, tokenizer: str | None, overrides: Sequence[str] = ()
) -> ChosenData:
    """Return the given files, else those of the config.

    Raises UsageError for arguments that exclude each other.
    """
    _require_consistent(files, config, tokenizer)
    if config is not None:
        located = locate_config(config, overrides)
        run_config = located.config if files else require_paths(located)
        home, train_on = Path(run_config.output_dir), run_config.dialogue.train_on
        chosen = ChosenData(run_config.data, run_config, home, located, train_on)
        return chosen.of(files) if files else chosen
    if tokenizer is not None:
        run_config = _config_of(tokenizer, files, overrides)
        return ChosenData(run_config.data, run_config, None, train_on=run_config.dialogue.train_on)
    _require_data_keys(overrides, ("dialogue.train_on",), "--config")
    run_config = build_config({"data": _NO_DATA, **_UNUSED_MODEL}, "validate-data", overrides)
    data_config = run_config.data.of(DataConfig(train=tuple(files)).train)
    return ChosenData(data_config, None, None, train_on=run_config.dialogue.train_on)


def with_overrides(data_config: DataConfig, overrides: Sequence[str]) -> DataConfig:
    """Return the data config with some of its keys changed; UsageError for any other key."""
    _require_data_keys(overrides, (), "")
    data = {**data_config.model_dump(mode="json"), **_NO_DATA}
    changed = build_config({"data": data, **_UNUSED_MODEL}, "the data of the run", overrides).data
    return changed.of(data_config.files)


def _require_data_keys(overrides: Sequence[str], others: Sequence[str], needed: str) -> None:
    """Raise UsageError for a key that says nothing about how a data file is read."""
    for name in keys_set_by(overrides):
        if name in (f"data.{key}" for key in (*DATA_SETS, "validation_split")):
            raise UsageError(f"--set {name}: the files are arguments here", hint="remove it")
        if name in config_keys() and not name.startswith("data.") and name not in others:
            allowed = " and ".join(("data.*", *others))
            hint = (
                f"add {needed} config.yaml" if needed else f"remove it; only {allowed} can be set"
            )
            raise UsageError(f"--set {name}: has no effect here", hint=hint)


def _require_consistent(files: Sequence[str], config: Path | None, tokenizer: str | None) -> None:
    if config is None and not files:
        raise UsageError("no file to check", hint="convo validate-data train.jsonl")
    if config is not None and tokenizer is not None:
        raise UsageError(
            "--config and --tokenizer both choose a tokenizer", hint="use only one of them"
        )
    for pipe in (file for file in files if file == "-" or Path(file).is_fifo()):
        if files.count(pipe) > 1:
            raise UsageError(
                f"{pipe} is given twice, but {'stdin' if pipe == '-' else 'a pipe'} can be read "
                "only once"
            )
    if "-" in files and (config or tokenizer):
        raise UsageError(
            "stdin can be read only once, but counting tokens needs a second pass",
            hint="write it to a file first",
        )


def _config_of(tokenizer: str, files: Sequence[str], overrides: Sequence[str]) -> RunConfig:
    """Return a config for counting the tokens of the files."""
    _require_data_keys(overrides, _DIALOGUE_KEYS, "--config")
    require_pretrained(tokenizer)
    values = {
        "data": {"train": list(files)},
        "model": {"pretrained": tokenizer},
        "dialogue": {"max_length": _NO_LIMIT},
        "training": {"max_steps": 1},
    }
    return build_config(values, "--tokenizer", overrides)


def checkpoint_options(models: Sequence[str], load: Which | None) -> dict[str, Which | None]:
    """Return ``--load`` for each model; with several, it applies only to run directories."""
    runs = [model for model in models if _run_of(model) and Path(model).is_dir()]
    whole = [model for model in runs if (Path(model) / "checkpoints").is_dir()]
    return {
        model: load if len(models) == 1 or model in whole or not whole else None for model in models
    }


def _run_of(model: str) -> RunDirectory | None:
    """Return the run directory at or around a model; None for other models."""
    from convo_cli.runs.directory import RunDirectory

    path = Path(model)
    runs = (RunDirectory(folder) for folder in (path, path.resolve().parent.parent))
    return next((run for run in runs if run.is_run), None)


def data_config_of(
    models: Sequence[str],
    files: Sequence[str],
    reasoning: Literal["keep", "drop"] | None,
    overrides: Sequence[str],
) -> DataConfig:
    """Return the data config of the models' runs for these files; the defaults for other models.

    Without files, it takes those of the run's ``data.test``. UsageError if there are none, or if
    the runs read data in different ways.
    """
    from convo_cli.runs.provenance.run_info import read_config

    found = {model: read_config(run).data for model in models if (run := _run_of(model))}
    if not files and len(models) > 1:
        raise UsageError(
            "several models need the data to score",
            hint=f"convo evaluate {' '.join(map(typeable, models))} test.jsonl",
        )
    files = files or next((data.test for data in found.values()), ())
    if not files:
        what = "its run has no data.test" if found else "not a run with data.test"
        raise UsageError(
            f"{models[0]}: {what}, so evaluate needs the data to score",
            hint=f"convo evaluate {typeable(models[0])} test.jsonl",
        )
    changes = {} if reasoning is None else {"reasoning": reasoning}
    chosen = {
        model: with_overrides(data.of(files), overrides).model_copy(update=changes)
        for model, data in (found or {models[0]: DataConfig(train=tuple(files))}).items()
    }
    (model, first), *others = chosen.items()
    for other, data in others:
        if data != first:
            keys = [key for key, value in first if value != getattr(data, key)]
            raise UsageError(
                f"{model} and {other} read data in different ways "
                f"({', '.join(f'data.{key}' for key in keys)}), so they would be scored on "
                "different turns",
                hint="set one value for all models with --set data.KEY=VALUE, or score each alone",
            )
    return first
