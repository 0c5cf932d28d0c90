"""Export format `ctranslate2`: a model for CTranslate2, written by its own converter.

The converter reads a model of transformers into a description, which has gaps: it leaves out
settings that a config of transformers 5 has, without a message. `_complete` fills those gaps, and
`_objection` names the models whose settings the description cannot hold.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from convo_cli.errors import ModelError
from convo_cli.events import Emit
from convo_cli.export.format import About, Dtype, Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from convo_cli.export.source import Source
    from convo_cli.text.encoder import DialogueEncoder

_USAGE = """\
### CTranslate2

`pip install ctranslate2 transformers`

```python
import ctranslate2
from transformers import AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
generator = ctranslate2.Generator(folder)

messages = [{{"role": "user", "content": "Hello!"}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
[result] = generator.generate_batch(
    [tokenizer.convert_ids_to_tokens(ids)],
    sampling_topk=1,
    max_length=64,
    end_token={stop},
    include_prompt_in_result=False,
)
print(tokenizer.decode(result.sequences_ids[0], skip_special_tokens=True))
```
"""
_QUANTIZATION: dict[Dtype, str] = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8": "int8",
}
_ROTARY = {"llama", "mistral", "qwen2", "qwen3"}
_SCALINGS = ("default", "linear", "llama3")
"""Forms of rotary positions that the description holds as transformers computes them."""


def about() -> About:
    """Return what the format needs and holds."""
    return About(
        summary="for CTranslate2, a fast runtime for CPUs and GPUs",
        usage=_USAGE,
        weights="model.bin",
        other_names=("ct2", "ctranslate"),
        dtypes=("fp32", "fp16", "bf16", "int8"),
        architectures=frozenset({"gpt2", "gptj", "bloom", "gemma", *_ROTARY}),
        extra="ctranslate2",
        writes_with=("ctranslate2",),
        runs_with=("ctranslate2", "transformers"),
        how_to_install_runtime="pip install ctranslate2",
        library="ctranslate2",
        tags=("ctranslate2",),
        remark="README.md in the folder shows a program that runs the model",
        objection=_objection,
        attention_window=_window,
    )


def write(source: Source, folder: Path, dtype: Dtype, emit: Emit) -> None:
    """Convert a copy of the model; the folder's config.json is CTranslate2's own."""
    from ctranslate2.converters import TransformersConverter

    from convo_cli.export.other_runtimes.program_files import write_program_files
    from convo_cli.export.other_runtimes.quiet_libraries import quiet

    encoder = source.generator.encoder
    # The converter takes layers out of the model that it reads.
    model: Any = copy.deepcopy(source.generator.model)
    _require_window(model.config, encoder.max_length)
    write_program_files(source, folder, emit)
    stated = folder / "stated"
    model.config.save_pretrained(stated)
    converter: Any = TransformersConverter(str(stated))
    converter.load_model = lambda *_, **__: model
    converter.load_tokenizer = lambda *_, **__: _vocabulary(model, encoder)
    with quiet():
        spec = converter._load()
    shutil.rmtree(stated)
    _complete(spec, model.config)
    spec.validate()
    spec.optimize(quantization=_QUANTIZATION[dtype])
    spec.save(str(folder))


def open_runtime(folder: Path, base: Path | None) -> Runtime:
    """Open the folder with CTranslate2."""
    from convo_cli.export.other_runtimes.ctranslate2_runtime import CTranslate2Runtime

    return CTranslate2Runtime(folder)


def _vocabulary(model: PreTrainedModel, encoder: DialogueEncoder) -> SimpleNamespace:
    """Return what the converter reads of a tokenizer: exactly one token for each row.

    CTranslate2 loads only models that name an unknown and a first token.
    """
    tokenizer: Any = encoder.tokenizer
    rows = model.get_output_embeddings().weight.shape[0]
    known = {i: token for token, i in tokenizer.get_vocab().items() if i < rows}
    taken = set(known.values())
    tokens = dict[str, int]()
    for row in range(rows):
        token = known.get(row, f"<|row {row}|>")
        while row not in known and token in taken:
            token += "|"
        tokens[token] = row
    end = encoder.template.stop_tokens[0]
    return SimpleNamespace(
        get_vocab=lambda: tokens,
        bos_token=tokenizer.bos_token or end,
        eos_token=end,
        unk_token=tokenizer.unk_token or end,
        pad_token=tokenizer.pad_token or end,
    )


def _complete(spec: Any, config: Any) -> None:
    """Set what the converter of CTranslate2 4.8 leaves at the defaults of its runtime."""
    import numpy as np

    if spec.config.layer_norm_epsilon is None:
        spec.config.layer_norm_epsilon = config.layer_norm_epsilon
    rope = getattr(config, "rope_parameters", None)
    if rope is None:
        return
    added = {"rotary_base": np.float32(rope["rope_theta"])}
    if head_dim := getattr(config, "head_dim", None):
        added["head_dim"] = np.int32(head_dim)
    if rope["rope_type"] == "llama3":
        added["rotary_scaling_factor"] = np.float32(rope["factor"])
        added["original_max_position_embeddings"] = np.int32(
            rope["original_max_position_embeddings"]
        )
    for layer in spec.decoder.layer:
        vars(layer.self_attention).update(added)  # a description refuses new attributes


def _require_window(config: Any, max_length: int) -> None:
    """Drop a sliding window that no dialogue reaches; raise ModelError for a narrower one.

    CTranslate2 4.8 computes other values, or none, for a prompt longer than the window.
    """
    window = getattr(config, "sliding_window", None)
    if window is None:
        return
    if window < max_length:
        raise ModelError(
            f"--format ctranslate2 cannot hold this model: its sliding window of {window:,} tokens "
            f"is shorter than its dialogues, of up to {max_length:,}",
            hint="use --format gguf or --format onnx",
        )
    config.sliding_window = None


def _window(config: Mapping[str, Any]) -> int | None:
    window = config.get("sliding_window")
    return int(window) if window and config.get("use_sliding_window", True) else None


def _objection(config: Mapping[str, Any]) -> str | None:
    kind = config["model_type"]
    if kind == "gpt2":
        if not config.get("scale_attn_weights", True):
            return "its scale_attn_weights is false"
        if config.get("scale_attn_by_inverse_layer_idx", False):
            return "its scale_attn_by_inverse_layer_idx is true"
        return None
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    rope = rope if isinstance(rope, Mapping) else {}
    form = rope.get("rope_type") or rope.get("type") or "default"
    scalings = _SCALINGS if kind in _ROTARY else ("default",)
    activation = config.get("hidden_act", config.get("activation_function"))
    if kind in _ROTARY and activation not in (None, "silu", "swish"):
        return f"its hidden_act is {activation}; CTranslate2 computes silu"
    if kind == "gemma" and activation not in (None, "gelu_pytorch_tanh", "gelu_new"):
        return f"its hidden_act is {activation}; CTranslate2 computes gelu_pytorch_tanh"
    if form not in scalings:
        return f"its rotary positions are of the form {form}"
    return None
