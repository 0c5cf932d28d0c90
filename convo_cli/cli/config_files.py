"""Files that `init-config` writes: the config, its JSON Schema, and the sample dialogues."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from convo_cli.errors import DiskError, UsageError, typeable

SAMPLES = "sample_data"
"""Folder of the sample dialogues in the working directory; the sample config names files in it."""
_INSTALLED = Path(__file__).parents[1] / SAMPLES
_IN_CHECKOUT = Path(__file__).parents[2] / SAMPLES
_MAX_SCHEMA_BYTES = 2**20
_OTHER_NAME = "choose another name with -o"


def write_new(path: Path, text: str, *, may_replace: bool) -> None:
    """Write a new file, or replace a regular one; never through a link or into a device."""
    from convo_cli.cli.given_paths import require_no_file_of_a_run
    from convo_cli.storage.atomic import disk_errors, write_file
    from convo_cli.storage.files import special_kind_at

    try:
        with disk_errors(path):
            if (kind := special_kind_at(path)) is not None:
                raise UsageError(f"{path}: not a regular file, but {kind}", hint=_OTHER_NAME)
            if path.exists() and not may_replace:
                raise UsageError(
                    f"{path}: already exists", hint="choose another name with -o, or add --force"
                )
            require_no_file_of_a_run(path, "-o")
            if path.parent.exists() and not path.parent.is_dir():
                raise UsageError(f"{path}: {path.parent} is not a folder", hint=_OTHER_NAME)
            if not path.parent.is_dir():
                raise UsageError(
                    f"{path}: there is no folder {path.parent}",
                    hint=f"mkdir -p {typeable(path.parent)}",
                )
        write_file(path, text)
    except DiskError as error:
        raise DiskError(error.message, hint="choose another place with -o") from error


def write_schema(path: Path) -> str:
    """Write the schema that the first line of a config names, and return a line about it.

    A file that convo did not write stays as it is.
    """
    from convo_cli.cli.views.config_view import schema_document
    from convo_cli.config.reference import json_schema
    from convo_cli.storage.atomic import disk_errors
    from convo_cli.storage.files import special_kind_at

    schema = json_schema()
    with disk_errors(path):
        is_free = not path.exists() and special_kind_at(path) is None
        if not is_free and not is_own_schema(path):
            return f"Left {path} unchanged: it is not a JSON Schema written by convo"
    write_new(path, schema_document(schema).text, may_replace=True)
    return f"Wrote {path} for editors"


def is_own_schema(path: Path) -> bool:
    """Return whether a file is a JSON Schema that convo wrote."""
    from convo_cli.config.reference import json_schema
    from convo_cli.storage.files import special_kind_at

    if special_kind_at(path) is not None:
        return False
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_SCHEMA_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("title") == json_schema()["title"]


def copy_samples(named: Iterable[str]) -> bool:
    """Create the sample files if one of the ``named`` data files is a sample that does not exist.

    Existing files stay as they are. Returns whether a file was created; DiskError if one cannot be.
    """
    from convo_cli.storage.atomic import disk_errors, make_directory, write_file

    paths = [Path(path) for path in named]
    folder = Path(SAMPLES)
    try:
        with disk_errors(folder):
            if all(path.parent != folder or path.exists() for path in paths):
                return False
            if not folder.is_dir():
                make_directory(folder)
            for sample in (_INSTALLED if _INSTALLED.is_dir() else _IN_CHECKOUT).iterdir():
                if not (copy := folder / sample.name).exists():
                    write_file(copy, sample.read_bytes())
    except DiskError as error:
        raise DiskError(error.message, hint="use your own data: --train FILE") from error
    return True
