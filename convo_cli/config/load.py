"""Loading of a config file with `--set` overrides into a checked RunConfig, and its YAML."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from convo_cli.config.explain import problems_of, refusal, unknown_key
from convo_cli.config.forerunners.forms import find_form
from convo_cli.config.keys import config_keys
from convo_cli.config.places import OPTION, KeyPath, Place, Problem, Source, clipped, dotted
from convo_cli.config.reading.config_text import MAX_BYTES, parse_config, read_text
from convo_cli.config.reading.yaml_source import parse_yaml
from convo_cli.config.schema import DATA_SETS, RunConfig
from convo_cli.config.synonyms import SYNONYMS
from convo_cli.errors import ConfigError, typeable
from convo_cli.unseen import has_unseen

SEAL = "# SHA-256 of what follows: "
"""First line of the config in a run directory, whose data paths are relative to that directory."""


@dataclass(frozen=True, slots=True)
class LocatedConfig:
    """A config with the places of its values, for problems that the schema cannot find."""

    config: RunConfig
    source: Source

    def problem(self, path: KeyPath, message: str, hint: str = "") -> Problem:
        """Return a problem of the value at ``path``; a list that is one text has no items."""
        if isinstance(path[-1], int) and path not in self.source.values:
            path = path[:-1]
        return Problem(self.source.place_of_value(path), path, message, hint)


def load_config(
    path: Path, overrides: Sequence[str] = (), *, opener: Callable[[str, int], int] | None = None
) -> RunConfig:
    """Read a config file with `KEY=VALUE` overrides; one ConfigError lists all problems of both.

    ``opener`` is that of `open`.
    """
    return locate_config(path, overrides, opener=opener).config


def locate_config(
    path: Path, overrides: Sequence[str] = (), *, opener: Callable[[str, int], int] | None = None
) -> LocatedConfig:
    """Read a config as `load_config` does, and keep the places of its values."""
    text = read_text(path, opener)
    source = parse_config(text, str(path))
    _refuse_other_tools(source, path)
    if _has_seal(text):
        _locate(source.value.get("data"), path.parent)
    return LocatedConfig(_resolve(source, overrides), source)


def _refuse_other_tools(source: Source, path: Path) -> None:
    """Raise ConfigError for a forerunner's config, instead of one problem for each of its keys."""
    form = find_form(source.value)
    if form is not None:
        message = f"a config of {form.tool} ({form.title}), not of convo"
        hint = f"convo init-config --from {typeable(path)} -o {_free_name(path)}"
        raise Problem(Place(str(path)), (), message).error(hint)


def _free_name(path: Path) -> str:
    """Return a name for the converted config that is not in use."""
    names = (Path("config.yaml"), Path(f"{path.stem}-convo.yaml"))
    return typeable(next((name for name in names if not name.exists()), Path("convo.yaml")))


def _has_seal(text: str) -> bool:
    """Return whether the seal of a run's config is among the comments at the top of the file."""
    comments = takewhile(lambda line: line.startswith("#") or not line.strip(), text.splitlines())
    return any(line.startswith(SEAL) for line in comments)


def _locate(data: Any, folder: Path) -> None:
    """Resolve the data paths of a run's config from the run directory."""
    for key in DATA_SETS if isinstance(data, dict) else ():
        if isinstance(paths := data.get(key), list):
            data[key] = [_located_entry(entry, folder) for entry in paths]


def _located_entry(entry: Any, folder: Path) -> Any:
    if isinstance(entry, dict) and isinstance(entry.get("path"), str):
        return {**entry, "path": _located(entry["path"], folder)}
    return _located(entry, folder) if isinstance(entry, str) else entry


def _located(path: str, folder: Path) -> str:
    """Resolve a path from the run directory, else from the working folder or a parent of the run.

    So a run that was moved without its data still finds it. The hash of a file shows whether it is
    the same data.
    """
    if Path(path).is_absolute():
        return path
    home = folder.resolve()
    below = Path(*(part for part in Path(path).parts if part != ".."))
    places = [
        Path(os.path.normpath(home / path)),
        *(above / below for above in (Path.cwd(), *home.parents)),
    ]
    return str(next((place for place in places if os.access(place, os.F_OK)), places[0]))


def apply_overrides(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return the config with some keys changed, checked again as a whole."""
    return locate_overrides(config, overrides).config


def locate_overrides(config: RunConfig, overrides: Sequence[str]) -> LocatedConfig:
    """Change some keys as `apply_overrides` does, and keep the places of the values."""
    place = Place("the run's config")
    keys: dict[KeyPath, Place] = {tuple(name.split(".")): place for name in config_keys()}
    source = Source(config.model_dump(mode="json"), keys=keys, values={(): place})
    return LocatedConfig(_resolve(source, overrides), source)


def keys_set_by(overrides: Sequence[str]) -> frozenset[str]:
    """Return the dotted keys that the overrides name."""
    return frozenset(text.partition("=")[0].strip() for text in overrides)


def build_config(
    values: Mapping[str, Any], origin: str, overrides: Sequence[str] = ()
) -> RunConfig:
    """Build a config from values that are not in a file; `origin` is their name in errors."""
    return _resolve(Source(deepcopy(values), values={(): Place(origin)}), overrides)


def dump_config(config: RunConfig) -> str:
    """Return the whole config as plain YAML, which `load_config` reads back to an equal one."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # typed by its initial None
    yaml.width = MAX_BYTES
    values = config.model_dump(mode="json")
    # json also encodes the bytes of file names that are no text, which pydantic refuses.
    yaml.allow_unicode = not has_unseen(json.dumps(values, ensure_ascii=False))
    stream = io.StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()


def _resolve(source: Source, overrides: Sequence[str]) -> RunConfig:
    problems = [*source.problems, *filter(None, (_override(text, source) for text in overrides))]
    refused = {problem.path for problem in problems if problem.path}
    try:
        config = RunConfig.model_validate(source.value)
    except ValidationError as error:
        problems += [
            problem for problem in problems_of(error, source) if problem.path not in refused
        ]
        raise refusal(problems) from None
    if problems:
        raise refusal(problems)
    return config


def _override(text: str, source: Source) -> Problem | None:
    """Put one `KEY=VALUE` into the source, or return its problem."""
    name, equals, written = (part.strip() for part in text.partition("="))
    if not name or not equals:
        return Problem(
            Place(f"{OPTION}{clipped(text)}"),
            (),
            "not of the form KEY=VALUE, such as training.max_steps=500",
        )
    path: KeyPath = tuple(name.split("."))
    place = Place(f"{OPTION}{clipped(name)}", text=written)
    outer = config_keys().get(dotted(path[:-1]))
    if name not in config_keys() and (outer is None or not outer.is_mapping):
        known = max(
            (length for length in range(len(path)) if dotted(path[:length]) in config_keys()),
            default=0,
        )
        if path[-1] not in SYNONYMS:
            return unknown_key(place, path[: known + 1])
        parsed = _parsed(written, place)
        return unknown_key(place, path, None if parsed is None else parsed.value)
    if not written:
        return Problem(place, (), 'nothing after the =; write null or ""')
    parsed = _parsed(written, place)
    if parsed is None:
        return Problem(place, (), f"{clipped(written)} is not a YAML value; put text in quotes")
    if parsed.problems:
        return Problem(place, (), parsed.problems[0].message)
    key = config_keys().get(name)
    if isinstance(parsed.value, dict) and key is not None and not key.is_mapping:
        return Problem(place, (), "one key at a time; put text with a colon and a space in quotes")
    if isinstance(parsed.value, str) and " #" in written and written[0] not in "'\"":
        return Problem(place, (), "YAML ends at the #; put the text in quotes")
    section = source.value
    for length in range(1, len(path)):
        if section.get(path[length - 1]) is None:
            section[path[length - 1]] = {}
            source.keys[path[:length]] = place
        section = section[path[length - 1]]
        if not isinstance(section, dict):
            return None  # The value in the file is refused anyway.
    # In YAML a lone - begins a list; here it can only mean stdin, and the schema refuses that.
    section[path[-1]] = "-" if written == "-" else parsed.value
    source.values = {at: where for at, where in source.values.items() if at[: len(path)] != path}
    source.keys[path] = source.values[path] = place
    return None


def _parsed(written: str, place: Place) -> Source | None:
    """Return the value of an override; None if it is not YAML."""
    try:
        return parse_yaml(written, str(place))
    except ConfigError:
        return None
