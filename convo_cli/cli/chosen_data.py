"""Choice of the data that `validate-data` checks: the files, their data config, the run config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convo_cli.cli.config_paths import require_paths
from convo_cli.cli.given_paths import require_pretrained
from convo_cli.config.load import LocatedConfig, build_config, locate_config
from convo_cli.config.schema import DataConfig, RunConfig, TrainOn
from convo_cli.errors import UsageError

_NO_LIMIT = 1_048_576
"""Window in tokens if only a tokenizer is given, because the context of its model is not known."""


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

    @property
    def paths(self) -> list[str]:
        return list(self.data_config.files)

    @property
    def train_on(self) -> TrainOn:
        return "assistant" if self.run_config is None else self.run_config.dialogue.train_on

    def changed(self, changes: Mapping[str, object]) -> ChosenData:
        """Return a copy with other values in the data config."""
        return self._with(self.data_config.model_copy(update=changes))

    def of(self, files: Sequence[str]) -> ChosenData:
        """Return a copy for other files."""
        return self._with(self.data_config.of(files))

    def _with(self, data_config: DataConfig) -> ChosenData:
        run_config = self.run_config and self.run_config.model_copy(update={"data": data_config})
        return replace(self, data_config=data_config, run_config=run_config)


def choose_data(files: Sequence[str], config: Path | None, tokenizer: str | None) -> ChosenData:
    """Return the given files, else those of the config.

    Raises UsageError for arguments that exclude each other.
    """
    _require_consistent(files, config, tokenizer)
    if config is not None:
        located = locate_config(config)
        run_config = located.config if files else require_paths(located)
        chosen = ChosenData(run_config.data, run_config, Path(run_config.output_dir), located)
        return chosen.of(files) if files else chosen
    if tokenizer is not None:
        run_config = _config_of(tokenizer, files)
        return ChosenData(run_config.data, run_config, None)
    return ChosenData(DataConfig(train=tuple(files)), None, None)


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


def _config_of(tokenizer: str, files: Sequence[str]) -> RunConfig:
    """Return a config for counting the tokens of the files."""
    require_pretrained(tokenizer)
    values = {
        "data": {"train": list(files)},
        "model": {"pretrained": tokenizer},
        "dialogue": {"max_length": _NO_LIMIT},
        "training": {"max_steps": 1},
    }
    return build_config(values, "--tokenizer")
