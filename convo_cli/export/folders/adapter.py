"""Export format `adapter`: the adapter of a run with `model.lora` alone, which peft opens.

Nothing in it names the place of the base on this machine.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli.events import Emit
from convo_cli.export.format import About, Dtype, Runtime
from convo_cli.storage.foreign_files import ADAPTER_CONFIG, remove_foreign_entries

if TYPE_CHECKING:
    from convo_cli.export.source import Source

_USAGE = """\
It belongs to {base}.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
base = AutoModelForCausalLM.from_pretrained("path/to/its/base")
base.resize_token_embeddings({num_embeddings})  # rows for the tokens of the template
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```
"""


def about() -> About:
    """Return what the format needs and holds."""
    return About(
        summary="the adapter of a run with model.lora alone, for peft",
        usage=_USAGE,
        weights="adapter_model.safetensors",
        other_names=("lora", "peft"),
        commands=("convo chat {folder} --base PATH  (where its base is)",),
        runs_with=("torch", "transformers", "peft"),
        library="peft",
        merges=False,
        tags=("lora",),
        uses_generation_config=True,
    )


def write(source: Source, folder: Path, dtype: Dtype, emit: Emit) -> None:
    """Write adapter and tokenizer; the base is named by hub id and commit, or not at all."""
    from convo_cli.export.folders.stated_tokens import state_tokens
    from convo_cli.model.adapters.adapter_files import write_adapter
    from convo_cli.model.adapters.lora import adapter_of

    original = source.generator
    adapter = adapter_of(original.model)
    assert adapter is not None, "checked before"
    for file in source.files:
        if file.name != ADAPTER_CONFIG:
            shutil.copyfile(file, folder / file.name)
    base = adapter.base
    public = base.model_copy(update={"source": base.source if base.commit else None})
    write_adapter(adapter.model_copy(update={"base": public}), folder)
    original.model.generation_config.save_pretrained(folder)
    remove_foreign_entries(folder)
    state_tokens(folder, original.encoder, original.model, emit)


def open_runtime(folder: Path, base: Path | None) -> Runtime:
    """Open the adapter on top of its base with peft; the base is computed in fp32 as in convo."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    from convo_cli.export.folders.transformers_runtime import TransformersRuntime
    from convo_cli.model.adapters.adapter_files import read_adapter

    assert base is not None, "an adapter has a base"
    num_embeddings = read_adapter(folder).base.num_embeddings
    whole: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    whole.resize_token_embeddings(num_embeddings, mean_resizing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft reads names that transformers 5.23 deprecates
        model: Any = PeftModel.from_pretrained(whole, str(folder))
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return TransformersRuntime(folder, model)
