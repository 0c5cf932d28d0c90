"""Options that several commands share, declared once so that they look and behave the same
everywhere.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout instead of text.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show only results, warnings and errors.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one config key, e.g. training.max_steps=500. Repeatable.",
    ),
]
ReasoningOption = Annotated[
    Literal["keep", "drop"] | None,
    typer.Option(
        "--reasoning",
        help="Keep or drop the assistant's reasoning in the data (data.reasoning in a config).",
    ),
]
