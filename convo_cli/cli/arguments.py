"""Checks of arguments without torch and transformers, so that mistakes are reported at once."""

from __future__ import annotations

import errno
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from convo_cli.errors import UsageError, expand_home, path_too_long, typeable

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_MODEL = "give the path of a folder that exists, or a hub id"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")

_PATHS = {"config", "data", "files", "fix", "model", "out", "output", "run_dir", "source"} | {
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
                "the working directory no longer exists", hint="change to a folder that does: cd"
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
    """Raise UsageError for an invalid device name; `choose_device` checks that the machine has the
    device.
    """
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"--device {name}: unknown", hint="auto, cpu, cuda, cuda:0 or mps")


def is_text(argument: str) -> bool:
    """Return whether an argument is Unicode text; Python decodes other bytes as halves of surrogate
    pairs.
    """
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def require_model(source: str) -> None:
    """Raise for a model that cannot be opened; the contents of a run or checkpoint are verified on
    loading.
    """
    from convo_cli.runs.directory import RunDirectory
    from convo_cli.storage.sealed import MANIFEST_FILE

    path = Path(source)
    if not source or not (RunDirectory(path).is_run or (path / MANIFEST_FILE).exists()):
        require_pretrained(source)


def require_pretrained(source: str) -> None:
    """Raise unless this is the folder of a transformers model or a hub id; the hub itself is asked
    later.
    """
    path = Path(source)
    if source and path.is_dir():
        from convo_cli.runs.model_folder import require_model_folder

        require_model_folder(path)
    elif source and path.exists():
        raise UsageError(f"{source}: not a directory", hint=_MODEL)
    elif not _HUB_ID.fullmatch(source):
        raise UsageError(f"{source or repr(source)}: no such directory", hint=_MODEL)


def require_run_or_checkpoint(folder: Path) -> None:
    """Raise UsageError unless this is a folder; its contents are verified when they are loaded."""
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: " + ("not a directory" if folder.exists() else "no such directory"),
            hint="give a run directory, such as runs/convo, or one of its checkpoints",
        )


def require_new_file(out: Path, inputs: Sequence[str], *, is_forced: bool) -> None:
    """Raise UsageError if `--fix` cannot write ``out`` or would replace a file that may be
    needed.
    """
    try:
        _require_new_file(out, inputs, is_forced=is_forced)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise path_too_long(str(out)) from None
        raise UsageError(
            f"--fix {out}: {error.strerror or error}", hint="name another file"
        ) from None


def _require_new_file(out: Path, inputs: Sequence[str], *, is_forced: bool) -> None:
    from convo_cli.storage.files import special_kind_at

    if any(out.exists() and Path(path).exists() and out.samefile(path) for path in inputs):
        raise UsageError(
            f"--fix {out}: that is the file to be fixed",
            hint="name another file; the input stays as it is",
        )
    if out.is_dir():
        raise UsageError(f"--fix {out}: a directory", hint=f"--fix {typeable(out / 'fixed.jsonl')}")
    if (kind := special_kind_at(out)) is not None:
        raise UsageError(f"--fix {out}: not a regular file, but {kind}", hint="name another file")
    if out.parent.exists() and not out.parent.is_dir():
        raise UsageError(
            f"--fix {out}: {out.parent} is not a folder", hint="name a file in a folder"
        )
    if not out.absolute().parent.is_dir():
        raise UsageError(
            f"--fix {out}: there is no folder {out.parent}", hint=f"mkdir -p {typeable(out.parent)}"
        )
    if out.exists() and not is_forced:
        raise UsageError(
            f"--fix {out}: already exists", hint="name another file, or add --force to replace it"
        )
