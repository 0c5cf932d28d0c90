"""Data and model paths of a config, expanded and checked before torch is imported.

A problem is reported at the line and column of the path, or at its `--set`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from convo_cli.cli.given_paths import require_pretrained
from convo_cli.config.explain import refusal
from convo_cli.config.load import LocatedConfig
from convo_cli.config.places import KeyPath, Problem
from convo_cli.config.schema import DATA_SETS, RunConfig
from convo_cli.data.file_lists import files_of
from convo_cli.data.reader import check_source
from convo_cli.errors import ConfigError, ModelNotFoundError, UsageError
from convo_cli.model.adapters.peft_package import INSTALL, MISSING, is_peft_installed

_MAX_FILES = 1_000
"""Most files of a data set that a folder or pattern may name; the config of the run lists them."""
_JOIN = "join them: cat data/*.jsonl > all.jsonl"
_TWICE = {"train": "list it once; {path: FILE, weight: 2} trains on it twice in an epoch"}


def require_paths(located: LocatedConfig) -> RunConfig:
    """Return the config with every data file by name, if all of them and the model can be read.

    A single ConfigError lists every path that cannot be read, and every file that is listed twice.
    """
    config, problems = _expanded(located, is_new=True)
    problems += [*_model_problems(located), *_adapter_problems(located)]
    if len(problems) == 1:
        raise _error(*problems)
    if problems:
        raise refusal(problems)
    return config


@contextmanager
def placing_missing_model(located: LocatedConfig | None) -> Iterator[None]:
    """Add the place of model.pretrained to the error that neither a folder nor the hub has it."""
    try:
        yield
    except ModelNotFoundError as error:
        if located is None:
            raise
        path = ("model", "pretrained")
        raise _error(located.problem(path, error.message, error.hint or "")) from None


def require_data_of_run(located: LocatedConfig) -> RunConfig:
    """Return the config of a run with every data file by name.

    ConfigError for a file that cannot be read, or for missing peft.
    """
    config, problems = _expanded(located, is_new=False)
    for problem in problems:
        hint = problem.hint
        if not problem.place.is_option and problem.message.endswith("does not exist"):
            hint = f"the run stores data paths relative to itself; add --set {problem.key}=PATH"
        raise _error(replace(problem, hint=hint))
    for problem in _adapter_problems(located):
        raise _error(problem)
    return config


def _error(problem: Problem) -> ConfigError:
    """Return the error of a single problem, whose hint is that of the error."""
    return replace(problem, hint="").error(problem.hint or None)


def _expanded(located: LocatedConfig, *, is_new: bool) -> tuple[RunConfig, list[Problem]]:
    """Return the config with the files of folders and patterns, and the problems of all files.

    A file that is listed twice is a problem only of a new run.
    """
    data = located.config.data
    files: dict[str, list[str]] = {name: [] for name in DATA_SETS}
    weights: list[float] = []
    problems: list[Problem] = []
    for name, found in files.items():
        known: set[tuple[int, int]] = set()
        for index, entry in enumerate(getattr(data, name)):
            with _placing(located, ("data", name, index), problems):
                for file in files_of(entry):
                    check_source(file, is_read_again=True)
                    status = Path(file).stat()  # the same for another name of the file
                    target = (status.st_dev, status.st_ino)
                    if is_new and target in known:
                        raise UsageError(f"{file} is listed twice", hint=_TWICE.get(name))
                    known.add(target)
                    found.append(file)
                    if name == "train":
                        weights.append(data.weights[index])
        if len(found) > max(_MAX_FILES, len(getattr(data, name))):
            message = f"{len(found):,} files; a run can have {_MAX_FILES:,}"
            problems.append(located.problem(("data", name), message, _JOIN))
    named = data.with_files({name: tuple(found) for name, found in files.items()}, tuple(weights))
    return located.config.model_copy(update={"data": named}), problems


def _model_problems(located: LocatedConfig) -> list[Problem]:
    source, problems = located.config.model.pretrained, list[Problem]()
    if source is not None:
        with _placing(located, ("model", "pretrained"), problems):
            require_pretrained(source)
    return problems


def _adapter_problems(located: LocatedConfig) -> Iterator[Problem]:
    if located.config.model.lora is not None and not is_peft_installed():
        yield located.problem(("model", "lora"), MISSING, INSTALL)


@contextmanager
def _placing(located: LocatedConfig, path: KeyPath, problems: list[Problem]) -> Iterator[None]:
    """Add a UsageError of the block to the problems, at the value at ``path``."""
    try:
        yield
    except UsageError as error:
        problems.append(located.problem(path, error.message, error.hint or ""))
