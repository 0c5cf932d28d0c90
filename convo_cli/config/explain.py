"""Messages about a config: one line a problem, with its place, the value and what is allowed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from convo_cli.config.habits import advice, advice_for_other_key
from convo_cli.config.keys import Key, config_keys, in_words, keys_in
from convo_cli.config.places import SHOW_FORM, KeyPath, Place, Problem, Source, clipped, dotted
from convo_cli.config.reading.building import plain_value
from convo_cli.config.synonyms import SYNONYMS
from convo_cli.errors import ConfigError

MAX_SHOWN_PROBLEMS = 25

_YAML_1_1_BOOLS = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "no": "false",
    "off": "false",
    "n": "false",
}


def refusal(problems: Sequence[Problem]) -> ConfigError:
    """Combine problems into one error: one line each, in the order of the file, then options."""
    ordered = sorted(
        problems,
        key=lambda problem: (problem.place.is_option, problem.place.line, problem.place.column),
    )
    by_line = {str(problem): problem.detail for problem in ordered}
    lines = list(by_line)
    shown = lines[:MAX_SHOWN_PROBLEMS]
    if len(lines) > 1:
        shown.insert(0, f"{len(lines)} problems in the configuration:")
    if len(lines) > MAX_SHOWN_PROBLEMS:
        shown.append(f"and {len(lines) - MAX_SHOWN_PROBLEMS} more")
    details = list(by_line.values())[:MAX_SHOWN_PROBLEMS]
    return ConfigError("\n".join(shown), hint=SHOW_FORM, problems=details)


def problems_of(error: ValidationError, source: Source) -> list[Problem]:
    """Return every finding of the schema with the place of its value."""
    details = error.errors(include_url=False)
    # A list of which every item is refused is not too short.
    places = [detail["loc"][:-1] for detail in details]
    details = [one for one in details if one["type"] != "too_short" or one["loc"] not in places]
    inside = [
        problem
        for detail in details
        if detail["type"] == "extra_forbidden"
        for problem in _unknown_inside(detail["loc"], detail["input"], source)
    ]
    return [*(_problem(detail, source) for detail in details), *inside]


def _unknown_inside(path: KeyPath, value: Any, source: Source) -> Iterator[Problem]:
    """Yield the problems of the keys inside a section that does not exist.

    The keys of the section that was probably meant are no problems.
    """
    meant = path[:-1] if path[-1] == "<<" else (_similar_section(str(path[-1])),)
    known = {key.name for key in keys_in(dotted(meant))} if meant != ("",) else set()
    for name, inner in value.items() if isinstance(value, dict) else ():
        if name not in known:
            yield unknown_key(source.place_of_key((*path, name)), (*path, name), inner)
            yield from _unknown_inside((*path, name), inner, source)


def _similar_section(name: str) -> str:
    sections = [key.path for key in config_keys().values() if key.is_section]
    return next(iter(difflib.get_close_matches(name.lower(), sections, n=1)), "")


def unknown_key(place: Place, path: KeyPath, value: Any = None) -> Problem:
    """Return the problem of a key that does not exist, with the key that was probably meant."""
    section = config_keys().get(dotted(path[:-1]))
    if section is not None and not section.is_section:
        allowed = f"allowed: {section.allowed}"
        return Problem(place, path, f"{section.path} has no keys inside", allowed)
    return Problem(place, path, "unknown key", _probable_key(path, value))


def _probable_key(path: KeyPath, value: Any) -> str:
    name = str(path[-1])
    if name in config_keys():
        outer, _, inner = name.rpartition(".")
        return f"write {inner} on a line of its own inside the section {outer}"
    here = {key.name: key.path for key in keys_in(dotted(path[:-1]))}
    everywhere = {key.name: key.path for key in config_keys().values()}
    plain = re.sub(r"[^a-z0-9]+", "_", name.rpartition(".")[2].lower())
    if plain in here:
        return f"did you mean {here[plain]}?"
    if plain in everywhere:
        sections = [key.section for key in config_keys().values() if key.name == plain]
        places = in_words([f"under {section}" if section else "at the top" for section in sections])
        return f"it belongs {places}"
    if plain in SYNONYMS:
        known = SYNONYMS[plain]
        to_write = advice_for_other_key(plain, known, value)
        return f"convo calls it {known}" + (f"; {to_write}" if to_write else "")
    for names, cutoff in ((here, 0.6), (everywhere, 0.75)):
        if close := difflib.get_close_matches(plain, names, n=1, cutoff=cutoff):
            return f"did you mean {names[close[0]]}?"
    return f"the keys here are {', '.join(here)}" if here else ""


def _problem(detail: ErrorDetails, source: Source) -> Problem:
    path, kind = detail["loc"], detail["type"]
    if kind == "extra_forbidden":
        return unknown_key(source.place_of_key(path), path, detail["input"])
    key = config_keys().get(dotted(part for part in path if isinstance(part, str)))
    if kind == "value_error":
        message = str(detail["ctx"]["error"])
        if key is not None and not key.is_section:
            to_write = _advice(key, detail["input"]) if "integer" in key.types else ""
            return Problem(source.place_of_value(path), path, message, to_write)
        return _disagreement(message, path, source)
    assert key is not None
    if kind == "missing":
        return Problem(source.place_of_key(path), path, f"missing. {key.doc}")
    place, value = source.place_of_value(path), detail["input"]
    found = f"found {_shown(value, place)}"
    if kind == "string_pattern_mismatch":
        to_write = advice(key.path, value)
        return Problem(place, path, found if to_write else f"{found}. {key.doc}", to_write)
    return Problem(place, path, f"{found}; allowed: {key.allowed}", _advice(key, value))


def _advice(key: Key, value: Any) -> str:
    """Return a suggestion, if the intention is clear."""
    if habit := advice(key.path, value):
        return habit
    if value is None and not key.is_required:
        default = "its defaults" if key.is_section else f"the default, {json.dumps(key.default)}"
        return f"leave it out for {default}"
    if isinstance(value, str):
        if "boolean" in key.types and value.lower() in _YAML_1_1_BOOLS:
            return f"YAML 1.2 reads {value} as text; write {_YAML_1_1_BOOLS[value.lower()]}"
        if key.types & {"integer", "number", "boolean", "pair"} and isinstance(
            plain_value(value), bool | int | float
        ):
            return f"drop the quotes: {value}"
        if close := difflib.get_close_matches(value.lower(), key.choices, n=1):
            return f"did you mean {close[0]}?"
    elif isinstance(value, bool | int | float):
        if key.types & {"string", "array"} and not key.choices:
            return "put it in quotes to make it text"
        is_whole = isinstance(value, float) and value.is_integer() and 1 <= value <= 1e9
        if is_whole and "integer" in key.types:
            return f"write {int(value)}"
    return ""


def _disagreement(message: str, section: KeyPath, source: Source) -> Problem:
    """Return a problem of several keys at one that is written; an option comes first.

    The message ends with the places of the other keys.
    """
    prefix = dotted(section)
    words = re.findall(r"[a-z_]+(?:\.[a-z_]+)*", message)
    names = dict.fromkeys(
        f"{prefix}.{word}" if prefix and "." not in word else word for word in words
    )
    paths: list[KeyPath] = [
        tuple(name.split(".")) for name in names if "." in name and name in config_keys()
    ]
    written = sorted(
        (path for path in paths if source.has(path)),
        key=lambda path: not source.keys[path].is_option,
    )
    if not written:
        return Problem(source.place_of_key(section), section, message)
    first, *others = written
    place = source.keys[first]
    # The line already begins with the name of the first key.
    name, _, rest = message.partition(" ")
    if name.rstrip(":") in (dotted(first), first[-1]):
        message = rest
    if others:
        message += f" (see {', '.join(f'{dotted(path)}, {source.keys[path]}' for path in others)})"
        if place.is_option and not source.keys[others[0]].is_option and "exactly one of" in message:
            return Problem(place, first, message, f"add --set {dotted(others[0])}=null")
    return Problem(place, first, message)


def _shown(value: Any, place: Place) -> str:
    """Return the value as written, on one line and shortened."""
    return clipped(
        place.text or ("nothing" if value is None else json.dumps(value, ensure_ascii=False))
    )
