"""Export format `adapter`: the adapter of a run with `model.lora` alone, which peft opens.

Nothing in it names the place of the base on this machine.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convo_cli.config.schema import PretrainedModel
from convo_cli.errors import CheckpointError
from convo_cli.events import Emit
from convo_cli.export.exporting import TEMPLATE_FILE, Format
from convo_cli.export.proof.comparison import Receipt, verify_export
from convo_cli.model.adapters.adapter_files import find_base, write_adapter
from convo_cli.model.adapters.lora import adapter_of, base_folder_of
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.loading import load_model
from convo_cli.storage.foreign_files import ADAPTER_CONFIG, remove_foreign_entries

_CARD = """\
---
library_name: peft
pipeline_tag: text-generation
tags: [conversational, convo, lora]
---

# {name}

A LoRA adapter for multi-turn conversations, trained with
[convo](https://pypi.org/project/convo-cli/) {version}. It belongs to {base}.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
base = AutoModelForCausalLM.from_pretrained("path/to/its/base")
base.resize_token_embeddings({num_embeddings})  # rows for the tokens of the template
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```

Template `{template}`; a reply ends with {stop}; trained on sequences of at most {max_length}
tokens.
"""


def _write(files: Sequence[Path], original: Generator, folder: Path, _: Emit) -> None:
    adapter = adapter_of(original.model)
    assert adapter is not None, "checked before"
    for file in files:
        if file.name != ADAPTER_CONFIG:
            shutil.copyfile(file, folder / file.name)
    base = adapter.base
    public = base.model_copy(update={"source": base.source if base.commit else None})
    write_adapter(adapter.model_copy(update={"base": public}), folder)
    original.model.generation_config.save_pretrained(folder)
    remove_foreign_entries(folder)
    chat_template = original.encoder.template.chat_template
    (folder / TEMPLATE_FILE).write_text(chat_template, encoding="utf-8", newline="\n")


def _verify(folder: Path, original: Generator, _: Emit) -> Receipt:
    """Compare the replies of the base with this adapter, put together by peft."""
    from peft import PeftModel

    adapter = adapter_of(original.model)
    checkpoint = original.folder
    assert adapter is not None, "checked before"
    assert checkpoint is not None, "an export has a source"
    place = PretrainedModel(str(base_folder_of(original.model)), None)
    files = find_base(checkpoint, adapter.base, place)
    base: Any = load_model(str(files.path))
    files.require_unchanged()
    base.resize_token_embeddings(adapter.base.num_embeddings, mean_resizing=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft reads names that transformers 5.23 deprecates
            model = PeftModel.from_pretrained(base, str(folder))
    except (ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"peft cannot open the exported adapter ({error})") from error
    return verify_export(folder, original, model=model)


ADAPTER = Format(_write, _verify, _CARD, merges=False)
