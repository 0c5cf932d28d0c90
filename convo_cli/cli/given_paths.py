"""Checks of the paths given to a command: a config, a run, a model, or another file by mistake."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.errors import CheckpointError, UsageError, typeable
from convo_cli.runs.provenance.other_exports import require_not_for_others
from convo_cli.storage.other_models import require_no_other_form
from convo_cli.storage.similar import similar_path

if TYPE_CHECKING:
    from convo_cli.runs.selection import Which

_DATA = (".jsonl", ".ndjson")
_COMPRESSED = (".gz", ".zst")
_DIALOGUE_KEY = re.compile(rb"messages|conversations?|turns|prompt|instruction")
"""The first key of an object with a dialogue."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_OUTPUTS = ("runs/", "exports/")
"""Folders of runs and exports, by the default of `output_dir` and in the commands convo prints."""
_MODEL = "give the path of a folder that exists, or a hub id"


def is_data_file(path: Path) -> bool:
    """Return whether this is a file of dialogues, by its name or, if that is .json, its content."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in _COMPRESSED] or [""]
    if suffixes[-1] in _DATA:
        return True
    if suffixes[-1] != ".json" or not path.is_file():
        return bool(path.suffixes) and path.suffix in _COMPRESSED
    with path.open("rb") as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(b"[") or _DIALOGUE_KEY.search(start.partition(b":")[0]) is not None


def is_model(path: Path) -> bool:
    """Return whether this is a folder that `convo chat` may open, by the names in it."""
    return path.is_dir() and (_is_of_convo(path) or (path / "config.json").exists())


def new_config_command(data: Path) -> str:
    """Return the command that writes a config for a data file, under a name that is free."""
    free = (Path(name) for name in ("config.yaml", f"{data.name.partition('.')[0]}.yaml"))
    out = next((name for name in free if not name.exists()), Path("new.yaml"))
    return f"convo init-config --train {typeable(data)} -o {typeable(out)}"


def require_config(path: Path) -> None:
    """Raise UsageError if the path is not a config: a data file, a run, or a mistyped path."""
    if is_data_file(path) and path.exists():
        raise UsageError(
            f"{path}: a data file, but convo train needs a config", hint=new_config_command(path)
        )
    if (run := _run_around(path)) and path.is_dir():
        raise UsageError(
            f"{path}: {_part_of(path, run)}, but convo train needs a config",
            hint=f"convo resume {typeable(run)} continues the run",
        )
    if not path.exists() and (meant := similar_path(path)):
        raise UsageError(f"{path}: no such file", hint=f"did you mean {meant}?")


def require_other_config(path: Path) -> None:
    """Raise UsageError if the path cannot be a config of another program."""
    if not path.exists():
        meant = similar_path(path)
        raise UsageError(
            f"--from {path}: no such file", hint=f"did you mean {meant}?" if meant else None
        )
    if is_data_file(path):
        raise UsageError(f"--from {path}: a data file", hint=new_config_command(path))


def require_run(path: Path) -> None:
    """Raise if the path is not a run directory; the hint has a run around it or a similar path."""
    require_not_for_others(path)
    run = _run_around(path)
    if run == path:
        return
    if run is not None:
        what, hint = _part_of(path, run), f"convo resume {typeable(run)}"
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        what, hint = "a config", f"convo train {typeable(path)} starts a run"
    elif (path / "dialogue.json").exists():
        what, hint = "a model without the state of a run", "resume the run that it came from"
    elif not path.exists() and (meant := similar_path(path)):
        raise UsageError(f"{path}: no such run directory", hint=f"did you mean {meant}?")
    else:
        return  # `existing_run` explains it
    raise CheckpointError(f"{path}: {what}, but convo resume needs a run directory", hint=hint)


def require_model(source: str, load: Which | None) -> None:
    """Raise if the model cannot be opened; runs and checkpoints are verified when loaded.

    ``load`` selects a checkpoint, so it needs a run directory.
    """
    from convo_cli.runs.opening import require_run_for

    path = Path(source)
    if source and _is_of_convo(path):
        require_not_for_others(path)
    else:
        require_pretrained(source)
    require_run_for(load, source)


def split_models_and_data(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the models and the data files of a command line: models first.

    A folder is a model, a file or ``-`` is data. A missing path is a hub id if more follows that is
    a model or if the path does not look like a file; the first one is always a model. UsageError if
    a model comes after a data file, or if one of them is given twice.
    """
    kinds = [_is_data(path) for path in paths[1:]]
    first_data = next((place for place, is_data in enumerate(kinds, 1) if is_data), len(paths))
    models, files = list(paths[:first_data]), list(paths[first_data:])
    for path in files:
        if Path(path).is_dir():
            raise UsageError(
                f"{path}: a model after a data file, but models come first",
                hint="convo evaluate MODEL OTHER_MODEL test.jsonl",
            )
    if len(paths) > 1 and paths[0] != "-" and Path(paths[0]).is_file() and is_model(Path(paths[1])):
        words = " ".join(map(typeable, (*paths[1:], paths[0])))
        raise UsageError(
            f"{paths[0]}: a data file before the model {paths[1]}", hint=f"convo evaluate {words}"
        )
    for what, given in (("model", models), ("file", files)):
        known: set[Path | str] = set()
        for path in given:
            key: Path | str = Path(path).resolve() if Path(path).exists() else path
            if key in known:
                raise UsageError(f"{path}: given twice", hint=f"give each {what} once")
            known.add(key)
    return models, files


def _is_data(path: str) -> bool:
    """Return whether an argument after the first model is data, by what it is or looks like."""
    place = Path(path)
    if path == "-" or place.exists():
        return not place.is_dir()
    is_hub_id = _HUB_ID.fullmatch(path) is not None and not path.startswith(_OUTPUTS)
    return is_data_file(place) or not is_hub_id


def require_pretrained(source: str) -> None:
    """Raise unless this is a transformers model or a hub id; the hub itself is asked later."""
    path = Path(source)
    if source and path.is_dir():
        from convo_cli.runs.model_folder import require_model_folder

        require_model_folder(path)
    elif source and path.exists():
        require_no_other_form(path)
        require_not_for_others(path)
        what = "a data file, not a model" if is_data_file(path) else "not a directory"
        raise UsageError(f"{source}: {what}", hint=_MODEL)
    elif not _HUB_ID.fullmatch(source):
        raise UsageError(f"{source or repr(source)}: no such directory", hint=_like(path, _MODEL))
    elif "/" in source and path.parent.is_dir() and any(map(_is_of_convo, path.parent.iterdir())):
        hint = _like(path, f"look in {path.parent}, which contains convo runs or models")
        raise UsageError(f"{source}: no such directory", hint=hint)
    elif source.startswith(_OUTPUTS) and not _is_in_hub_cache(source):
        # Asking the hub takes seconds without a network, and it will not have the user's runs.
        hint = (
            f"train a run first: convo train config.yaml (a model of the hub: hf download {source})"
        )
        raise UsageError(f"{source}: no such directory", hint=_like(path, hint))


def require_no_file_of_a_run(out: Path, option: str) -> None:
    """Raise UsageError if ``out`` is a file of a run or of a model folder, also with --force.

    The page of a run may be replaced. A checkpoint gets no new file either.
    """
    from convo_cli.runs.directory import RunDirectory
    from convo_cli.storage.sealed import MANIFEST_FILE

    place = out.resolve()
    is_sealed = (place.parent / MANIFEST_FILE).exists()
    if not out.exists():
        if is_sealed and _run_around(place.parent) is not None:
            raise UsageError(f"{option} {out}: inside a checkpoint", hint="choose another folder")
        return
    run = _run_around(place)
    if run is not None and place == RunDirectory(run).report:
        return
    if run is not None or is_sealed:
        what = "the run" if run is not None else "the model"
        raise UsageError(
            f"{option} {out}: a file of {what} {out.parent}, which convo does not overwrite",
            hint="choose another file",
        )


def require_run_or_checkpoint(folder: Path, load: Which | None) -> None:
    """Raise UsageError unless this is a folder, and a run directory if ``load`` is given."""
    from convo_cli.runs.opening import require_run_for

    require_not_for_others(folder)
    if not (_is_of_convo(folder) or (folder / "dialogue.json").exists()):
        require_no_other_form(folder)
    if not folder.is_dir():
        advice = "give a run directory, such as runs/demo, or one of its checkpoints"
        what = "not a directory" if folder.exists() else "no such directory"
        raise UsageError(f"{folder}: {what}", hint=_like(folder, advice))
    require_run_for(load, folder)


def _is_in_hub_cache(source: str) -> bool:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE, f"models--{source.replace('/', '--')}").is_dir()


def _like(path: Path, otherwise: str) -> str:
    """Return a hint with the similar path, if the path is missing and there is one."""
    meant = None if path.exists() or not str(path) else similar_path(path)
    return f"did you mean {meant}?" if meant else otherwise


def _is_of_convo(path: Path) -> bool:
    """Return whether this is a run, a checkpoint or an export, by the names in it."""
    from convo_cli.runs.directory import RunDirectory
    from convo_cli.storage.sealed import MANIFEST_FILE

    return RunDirectory(path).is_run or (path / MANIFEST_FILE).exists()


def _run_around(path: Path) -> Path | None:
    """Return the run directory at this path or around it."""
    from convo_cli.runs.directory import RunDirectory

    inside = (path, *itertools.islice(path.parents, 3)) if path.exists() else ()
    return next((above for above in inside if RunDirectory(above).is_run), None)


def _part_of(path: Path, run: Path) -> str:
    if path == run:
        return "a run directory"
    kind = "a checkpoint" if path.parent == run / "checkpoints" else "a part"
    return f"{kind} of the run {run}"
