"""Data and model paths of a config, checked before torch is imported.

A problem is reported at the line and column of the path, or at its `--set`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from convo_cli.cli.given_paths import require_pretrained
from convo_cli.config.explain import refusal
from convo_cli.config.load import LocatedConfig
from convo_cli.config.places import KeyPath, Problem
from convo_cli.config.schema import DATA_SETS, RunConfig
from convo_cli.data.reader import check_source
from convo_cli.errors import ConfigError, ModelNotFoundError, UsageError
from convo_cli.model.adapters.peft_package import INSTALL, MISSING, is_peft_installed


def require_paths(located: LocatedConfig) -> RunConfig:
    """Return the config if its data and its pretrained model can be read.

    A single ConfigError lists every path that cannot be read.
    """
    problems = [*_data_problems(located), *_model_problems(located), *_adapter_problems(located)]
    if len(problems) == 1:
        raise _error(*problems)
    if problems:
        raise refusal(problems)
    return located.config


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


def require_data_of_run(located: LocatedConfig) -> None:
    """Raise ConfigError for a data file of a run that cannot be read, or for missing peft."""
    for problem in _data_problems(located):
        hint = problem.hint
        if not problem.place.is_option and problem.message.endswith("does not exist"):
            hint = f"the run stores data paths relative to itself; add --set {problem.key}=PATH"
        raise _error(replace(problem, hint=hint))
    for problem in _adapter_problems(located):
        raise _error(problem)


def _error(problem: Problem) -> ConfigError:
    """Return the error of a single problem, whose hint is that of the error."""
    return replace(problem, hint="").error(problem.hint or None)


def _data_problems(located: LocatedConfig) -> Iterator[Problem]:
    for name in DATA_SETS:
        for index, path in enumerate(getattr(located.config.data, name)):
            check = partial(check_source, path, is_read_again=True)
            yield from _problems(located, ("data", name, index), check)


def _model_problems(located: LocatedConfig) -> Iterator[Problem]:
    source = located.config.model.pretrained
    if source is not None:
        yield from _problems(located, ("model", "pretrained"), partial(require_pretrained, source))


def _adapter_problems(located: LocatedConfig) -> Iterator[Problem]:
    if located.config.model.lora is not None and not is_peft_installed():
        yield located.problem(("model", "lora"), MISSING, INSTALL)


def _problems(
    located: LocatedConfig, path: KeyPath, check: Callable[[], None]
) -> Iterator[Problem]:
    try:
        check()
    except UsageError as error:
        yield located.problem(path, error.message, error.hint or "")
