"""The formats of `convo export` by name."""

from __future__ import annotations

from convo_cli.export.folders import adapter, huggingface, legacy
from convo_cli.export.format import Format
from convo_cli.export.llama_cpp import gguf_format
from convo_cli.export.other_runtimes import ctranslate2_format, onnx_format

FORMATS: dict[str, Format] = {
    "huggingface": huggingface,
    "legacy": legacy,
    "adapter": adapter,
    "gguf": gguf_format,
    "ctranslate2": ctranslate2_format,
    "onnx": onnx_format,
}
