"""Export format `onnx`: one graph with a cache, written by the exporter of transformers.

Inputs and outputs have the names that programs for text generation look for: those of optimum.
"""

from __future__ import annotations

import copy
import inspect
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli.errors import ModelError, first_line
from convo_cli.events import Emit, Notice
from convo_cli.export.format import About, Dtype, Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from convo_cli.export.source import Source

_USAGE = """\
### ONNX Runtime

`pip install onnxruntime transformers`

```python
import numpy as np
import onnxruntime
from transformers import AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")

messages = [{{"role": "user", "content": "Hello!"}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
end = tokenizer.convert_tokens_to_ids({stop})

inputs = {{one.name: one for one in session.get_inputs()}}
cache = {{
    name: np.zeros(
        (1, one.shape[1], 0, one.shape[3]), np.float16 if "16" in one.type else np.float32
    )
    for name, one in inputs.items()
    if name.startswith("past_key_values")
}}
reply, new, length = [], ids, 0
while len(reply) < 64:
    length += len(new)
    feed = {{
        "input_ids": np.array([new]),
        "attention_mask": np.ones((1, length), np.int64),
        "position_ids": np.arange(length - len(new), length)[None],
        **cache,
    }}
    logits, *values = session.run(
        None, {{name: value for name, value in feed.items() if name in inputs}}
    )
    cache = dict(zip(cache, values))
    new = [int(logits[0, -1].argmax())]
    if new == [end]:
        break
    reply += new
print(tokenizer.decode(reply))
```
"""
_MODEL_FILE = "model.onnx"
_ARCHITECTURES = {
    "bloom", "cohere", "falcon", "gemma", "gemma2", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox",
    "gptj", "granite", "llama", "mistral", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3",
    "smollm3", "stablelm", "starcoder2",
}  # fmt: skip


def about() -> About:
    """Return what the format needs and holds."""
    return About(
        summary="for ONNX Runtime and programs that use it",
        usage=_USAGE,
        weights="*.onnx",
        other_names=("onnxruntime", "ort"),
        dtypes=("fp32", "fp16"),
        architectures=frozenset(_ARCHITECTURES),
        extra="onnx",
        writes_with=("onnx", "onnxscript"),
        runs_with=("onnxruntime", "transformers"),
        how_to_install_runtime="pip install onnxruntime",
        library="onnx",
        tags=("onnx",),
        remark="README.md in the folder shows a program that runs the model",
    )


def write(source: Source, folder: Path, dtype: Dtype, emit: Emit) -> None:
    """Write the graph as model.onnx and the weights as model.onnx.data."""
    import onnx_ir
    import torch

    from convo_cli.export.folders.stated_tokens import state_config
    from convo_cli.export.other_runtimes.program_files import write_program_files
    from convo_cli.export.other_runtimes.quiet_libraries import quiet

    for file in source.files:
        if file.name == "config.json":
            shutil.copyfile(file, folder / file.name)
    write_program_files(source, folder, emit)
    state_config(folder, source.generator.encoder, "float16" if dtype == "fp16" else "float32")
    # A copy, because tracing replaces parts of the model.
    model: Any = copy.deepcopy(source.generator.model).eval()
    if dtype == "fp16":
        model = model.to(torch.float16)
    emit(Notice("export: tracing the graph, which takes a few seconds for each layer"))
    with quiet():
        try:
            graph = _trace(model)
        except Exception as error:  # torch and transformers raise many types
            raise ModelError(
                f"--format onnx cannot hold this model: its graph cannot be traced "
                f"({type(error).__name__}: {first_line(error)})",
                hint="use --format gguf or --format ctranslate2",
            ) from error
    _rename(graph, model)
    _strip(graph)
    onnx_ir.save(graph, folder / _MODEL_FILE, external_data=f"{_MODEL_FILE}.data")


def open_runtime(folder: Path, base: Path | None) -> Runtime:
    """Open the folder with ONNX Runtime."""
    from convo_cli.export.other_runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime(folder)


def _trace(model: PreTrainedModel) -> Any:
    """Return the graph of one pass that continues a cache, which may be empty."""
    import torch
    from torch.export import Dim
    from transformers import DynamicCache
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    # All lengths are at least 2 and differ, because tracing takes 0, 1 and equal ones as constants.
    rows, past, length = 2, 4, 3
    cache = DynamicCache()  # without a config, so that each layer keeps all positions
    with torch.no_grad():
        model(input_ids=torch.zeros(rows, past, dtype=torch.long), past_key_values=cache)
    inputs: dict[str, Any] = {
        "input_ids": torch.zeros(rows, length, dtype=torch.long),
        "attention_mask": torch.ones(rows, past + length, dtype=torch.long),
        "position_ids": torch.arange(past, past + length).repeat(rows, 1),
        "past_key_values": cache,
    }
    if "position_ids" not in inspect.signature(model.forward).parameters:
        del inputs["position_ids"]
    rows_and_length = {0: Dim.AUTO, 1: Dim.AUTO}
    shapes: dict[str, Any] = dict.fromkeys(inputs, rows_and_length)
    shapes["past_key_values"] = [{0: Dim.AUTO, 2: Dim.AUTO}] * (2 * len(cache))
    config = OnnxConfig(dynamic_shapes=shapes)
    exported: Any = OnnxExporter().export(model, inputs, config=config)
    # An ONNXProgram of torch in transformers 5.17, an ExportedModel in later ones.
    return getattr(exported, "program", None) or exported.model


def _rename(graph: Any, model: PreTrainedModel) -> None:
    """Give inputs, outputs and their sizes the names of optimum."""
    import onnx_ir

    inputs, outputs = list(graph.graph.inputs), list(graph.graph.outputs)
    texts = [value for value in inputs if "past_key_values" not in value.name]
    past, present = inputs[len(texts) :], outputs[1:]
    if len(past) != len(present) or len(past) % 2 or outputs[0].name != "logits":
        raise ModelError("--format onnx: this version of transformers writes another graph")
    for value in texts:
        length = "sequence_length"
        if value.name == "attention_mask":
            length = "past_sequence_length + sequence_length"
        value.shape = onnx_ir.Shape(["batch_size", length])
    for number, (before, after) in enumerate(zip(past, present, strict=True)):
        name = f"{number // 2}.{('key', 'value')[number % 2]}"
        heads, width = (int(str(before.shape[axis])) for axis in (1, 3))
        before.name, after.name = f"past_key_values.{name}", f"present.{name}"
        before.shape = onnx_ir.Shape(["batch_size", heads, "past_sequence_length", width])
        total = "past_sequence_length + sequence_length"
        after.shape = onnx_ir.Shape(["batch_size", heads, total, width])
    logits_width = int(str(outputs[0].shape[2]))
    outputs[0].shape = onnx_ir.Shape(["batch_size", "sequence_length", logits_width])


def _strip(graph: Any) -> None:
    """Remove the source locations that tracing records, which name files of this machine."""
    stated = {*graph.graph.inputs, *graph.graph.outputs}
    graph.metadata_props.clear()
    graph.doc_string = None
    for part in (graph.graph, *graph.functions.values()):
        part.metadata_props.clear()
        part.doc_string = None
        for value in (*part.inputs, *getattr(part, "initializers", {}).values()):
            value.metadata_props.clear()
            value.doc_string = None
        for node in part.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None
                if value not in stated:
                    value.shape = None  # in the names of the trace
