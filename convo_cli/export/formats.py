"""The formats of `convo export` by name."""

from __future__ import annotations

from convo_cli.export.folders import adapter, huggingface, legacy
from convo_cli.export.format import Format

FORMATS: dict[str, Format] = {"huggingface": huggingface, "legacy": legacy, "adapter": adapter}
