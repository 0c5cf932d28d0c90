"""The formats of `convo export` by name."""

from __future__ import annotations

from convo_cli.export.adapter import ADAPTER
from convo_cli.export.exporting import Format
from convo_cli.export.huggingface import HUGGINGFACE
from convo_cli.export.legacy import LEGACY

FORMATS: dict[str, Format] = {"huggingface": HUGGINGFACE, "legacy": LEGACY, "adapter": ADAPTER}
