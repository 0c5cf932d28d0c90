"""The formats of `convo export` by name."""

from __future__ import annotations

from convo_cli.export.folders import adapter, huggingface, legacy
from convo_cli.export.format import Format
from convo_cli.export.llama_cpp import gguf_format

FORMATS: dict[str, Format] = {
    "huggingface": huggingface,
    "gguf": gguf_format,
    "legacy": legacy,
    "adapter": adapter,
}
