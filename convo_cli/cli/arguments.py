"""Checks of arguments and data without torch, so that mistakes are reported at once."""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.errors import DiskError, UsageError, expand_home, path_too_long, typeable
from convo_cli.events import Emit, Notice
from convo_cli.world import seat_in

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig, Devices, TrainOn
    from convo_cli.model.decoding.generator import Generator

_NUMBER = re.compile(r"[0-9]{1,9}")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")

_PATHS = {
    "api_key_file",
    "config",
    "data",
    "files",
    "fix",
    "model",
    "models",
    "out",
    "output",
    "paths",
    "run_dir",
    "samples",
    "scores",
    "source",
    "test",
    "tokenizer",
    "train",
    "validation",
}
"""Parameters of commands that are paths."""


def in_place(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command: the working directory must exist, and a ``~`` in its paths is expanded."""

    @functools.wraps(command)
    def run(**arguments: object) -> None:
        try:
            Path.cwd()
        except FileNotFoundError:
            raise UsageError(
                "the working directory no longer exists", hint="cd to a folder that exists"
            ) from None
        command(
            **{key: _at_home(value) if key in _PATHS else value for key, value in arguments.items()}
        )

    return run


def _at_home(value: object) -> object:
    """Expand a path or a list of paths that the shell left alone, for example because of quotes."""
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    if isinstance(value, (str, Path)):
        return type(value)(expand_home(str(value)))
    return value


def require_device(name: str) -> None:
    """Raise UsageError for an invalid name; `choose_device` checks that there is such a device."""
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"--device {name}: unknown", hint="auto, cpu, cuda, cuda:0 or mps")


def parse_devices(text: str | None, device: str) -> Devices:
    """Return the value of ``--devices``, or the number of processes that torchrun started.

    UsageError if it is malformed, or if ``--device`` names a single device.
    """
    from pydantic import TypeAdapter, ValidationError

    from convo_cli.config.schema import Devices
    from convo_cli.training.distributed.rank_process import is_launched

    seat = seat_in()
    value: object = 1 if seat is None else seat.size
    if text is not None and (seat is None or is_launched()):
        words = text.strip("[] ").split(",") if "," in text else [text]
        numbers = [int(word) if _NUMBER.fullmatch(word.strip()) else word for word in words]
        value = numbers if "," in text else numbers[0]
    try:
        devices: Devices = TypeAdapter(Devices).validate_python(value)
    except ValidationError:
        raise UsageError(
            f"--devices {text}: not a number of devices",
            hint="a whole number, 1 to 65,535, a list of different GPUs such as 0,2, or auto",
        ) from None
    if devices != 1 and device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {device} is one device",
            hint="with --devices, use --device cuda, cpu or auto; --devices 1,2 chooses GPUs",
        )
    return devices


def note_longest_reply(generator: Generator, max_new_tokens: int, emit: Emit) -> None:
    """Emit a notice if the window of the model allows only shorter replies than requested."""
    if max_new_tokens > generator.longest_reply:
        limit = f"replies are limited to {generator.longest_reply} tokens"
        emit(Notice(f"{limit}, half of the model's window, not {max_new_tokens:,}"))


def is_text(argument: str) -> bool:
    """Return whether an argument is Unicode text; Python decodes other bytes as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def require_new_file(
    out: Path,
    inputs: Sequence[str],
    *,
    option: str = "-o",
    example: str = "data.jsonl",
    is_forced: bool,
) -> None:
    """Raise UsageError if ``option`` cannot write ``out`` or would replace a needed file.

    ``example`` is the name in hints.
    """
    try:
        _require_new_file(out, inputs, option, example, is_forced=is_forced)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise path_too_long(str(out)) from None
        raise UsageError(
            f"{option} {out}: {error.strerror or error}", hint="choose another file"
        ) from None


def _require_new_file(
    out: Path, inputs: Sequence[str], option: str, example: str, *, is_forced: bool
) -> None:
    from convo_cli.cli.given_paths import require_no_file_of_a_run
    from convo_cli.storage.files import special_kind_at

    if str(out) == "-":
        raise UsageError(
            f"{option} -: the result is a file, not stdout", hint=f"{option} {example}"
        )
    if any(out.exists() and Path(path).exists() and out.samefile(path) for path in inputs):
        raise UsageError(
            f"{option} {out}: this is an input file",
            hint="choose another file; convo leaves its input unchanged",
        )
    if out.is_dir():
        place = typeable(out / example)
        raise UsageError(f"{option} {out}: a directory", hint=f"{option} {place}")
    if (kind := special_kind_at(out)) is not None:
        raise UsageError(
            f"{option} {out}: not a regular file, but {kind}", hint="choose another file"
        )
    if out.parent.exists() and not out.parent.is_dir():
        raise UsageError(
            f"{option} {out}: {out.parent} is not a folder", hint="choose a file in a folder"
        )
    if not out.absolute().parent.is_dir():
        raise UsageError(
            f"{option} {out}: there is no folder {out.parent}",
            hint=f"mkdir -p {typeable(out.parent)}",
        )
    if out.exists() and not is_forced:
        raise UsageError(
            f"{option} {out}: already exists",
            hint="choose another file, or add --force to replace it",
        )
    require_no_file_of_a_run(out, option)
    if not os.access(out.absolute().parent, os.W_OK):
        raise DiskError(
            f"{option} {out}: files cannot be created in {out.parent}",
            hint="choose another folder, or get write permission there (see `ls -ld`)",
        )


def require_good_data(
    data: DataConfig,
    *,
    what: str,
    train_on: TrainOn | None = "assistant",
    max_validation: int | None = None,
) -> None:
    """Raise DataError for errors at the beginning of the data files, before torch is imported.

    ``train_on`` is None if a dialogue without a target is not an error.
    """
    from convo_cli.config.schema import DATA_SETS
    from convo_cli.data.checks.problem_tally import DataProblemsError
    from convo_cli.data.checks.validate import find_first_errors
    from convo_cli.data.problems import ProblemError

    found = [
        find_first_errors(
            getattr(data, name),
            data,
            train_on=train_on or "assistant",
            max_lines=max_validation if name == "validation" else None,
        )
        for name in DATA_SETS
    ]
    groups = [group for one in found for group in one.groups]
    proposals = {
        f"to map the data, if {proposal.reason} mean this: {proposal.options}"
        for one in found
        for proposal in one.proposals.values()
    }
    if train_on is None:
        groups = [group for group in groups if group.code != "no-target"]
    if sum(group.count for group in groups) == 1:
        raise ProblemError(groups[0].problems[0], further_hints=sorted(proposals))
    if groups:
        files = dict.fromkeys(problem.file for group in groups for problem in group.problems)
        command = " ".join(["convo validate-data", *map(typeable, files)])
        raise DataProblemsError(
            what, groups, further_hints=[*sorted(proposals), f"see every problem: {command}"]
        )
