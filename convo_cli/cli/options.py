"""Options that several commands share, declared once so that they are the same everywhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import typer


def within(low: float, high: float | None = None) -> Callable[[Any], Any]:
    """Return a check of a number; typer's own range would clutter the help with its limits."""

    def check(value: Any) -> Any:
        # NaN is neither below nor above a limit.
        if value is not None and not (low <= value and (high is None or value <= high)):
            limits = f"at least {low}" if high is None else f"between {low} and {high}"
            raise typer.BadParameter(f"{value} is not {limits}")
        return value

    return check


def all_or_number(value: Any) -> int:
    """Return a number of items; ``all`` becomes more than any file has."""
    if value == "all":
        return sys.maxsize
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter("give a whole number, such as 100, or all") from None


def bytes_in(value: str | None) -> str | None:
    """Return a size such as 2GB, 500 MB or 1GiB in bytes, as decimal digits.

    MB and GB are powers of ten, as in transformers' `max_shard_size`.
    """
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?) ?([KMGT]?i?B)", value.strip(), re.I)
    if found is None:
        raise typer.BadParameter(f"{value}: give a size, such as 2GB or 500MB")
    unit = found[2].upper()
    power = " KMGT".index(unit[0]) if len(unit) > 1 else 0
    num_bytes = int(float(found[1]) * (1024 if "I" in unit else 1000) ** power)
    if num_bytes < 10**6:
        raise typer.BadParameter(f"{value}: a file of weights has at least 1MB")
    return str(num_bytes)


def place_of_model(value: str | None) -> str | None:
    """Return the value of `--base`; UsageError if it is neither a folder nor a hub id."""
    from convo_cli.cli.given_paths import require_pretrained

    if value is not None:
        require_pretrained(value)
    return value


def complete_setting(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the config keys that begin with a text, for the completion of `--set`."""
    from convo_cli.config.keys import config_keys

    for key in config_keys().values():
        if not key.is_section and key.path.startswith(incomplete):
            yield f"{key.path}=", key.doc.partition(".")[0]


def complete_preset(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the presets that begin with a text."""
    from convo_cli.config.presets import PRESETS

    for preset in PRESETS.values():
        if preset.name.startswith(incomplete):
            yield preset.name, preset.description


def complete_load(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the values of `--load` that begin with a text, each with its meaning."""
    choices = {
        "last": "the newest checkpoint",
        "loss": "the best by validation loss",
        "metric": "the best by evaluation.metric",
    }
    for name, meaning in choices.items():
        if name.startswith(incomplete):
            yield name, meaning


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout instead of text.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show only results, warnings and errors.")
]
DeviceOption = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")]
DevicesOption = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Number of devices, the GPUs to use (0,2), or auto: short for --set "
        "training.devices=….",
    ),
]
SharedWorkOption = Annotated[
    str | None,
    typer.Option(
        "--devices",
        metavar="N",
        help="Number of devices that share the work, the GPUs to use (0,2), or auto (all GPUs). "
        "Default: 1.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one config key, e.g. training.max_steps=500. Repeatable.",
        autocompletion=complete_setting,
    ),
]
LoadOption = Annotated[
    Literal["last", "loss", "metric"] | None,
    typer.Option(
        help="Checkpoint of a run directory: the newest, or the best by validation loss or metric. "
        "Default: loss if the run was evaluated, else last.",
        autocompletion=complete_load,
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="PATH",
        callback=place_of_model,
        help="Folder or hub id of an adapter's base model (model.lora), if convo does not find it; "
        "its files must be unchanged.",
    ),
]
ReasoningOption = Annotated[
    Literal["keep", "drop"] | None,
    typer.Option(
        "--reasoning",
        help="Keep or drop the assistant's reasoning in the data (data.reasoning in a config).",
    ),
]


def with_devices(overrides: list[str] | None, devices: str | None) -> list[str]:
    """Return the settings of `--set` with that of `--devices`."""
    if devices is None:
        return overrides or []
    return [*(overrides or ()), f"training.devices={_as_yaml(devices)}"]


def _as_yaml(devices: str) -> str:
    """Return a number or a list of GPUs as in a config; the brackets of a list may be missing."""
    return f"[{devices.strip('[] ')}]" if "," in devices else devices
