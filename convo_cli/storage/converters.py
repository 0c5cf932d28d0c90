"""Commands that convert models which convo does not open to folders of safetensors.

The user runs them, with transformers and the packages that a hint names; convo never does. A script
is a tuple of lines for ``python -c``.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from convo_cli.errors import typeable

_LONGEST_STEM = 60  # characters, at most 240 of the 255 bytes of a file name
_START = "import sys; sys.path = [p for p in sys.path if p]"
"""Keeps Python from importing modules of the working folder, which may be that of the weights."""
FOLDER_SCRIPT = (
    "import os, pathlib, shutil, sys",
    "from transformers import AutoModelForCausalLM",
    "old, new = sys.argv[1:]",
    "os.makedirs(new)",
    "suffixes = '.json', '.model', '.txt', '.jinja'",
    "texts = [f for f in pathlib.Path(old).iterdir() if f.suffix in suffixes]",
    "[shutil.copy(f, new) for f in texts if f.name != 'MANIFEST.json']",
    "AutoModelForCausalLM.from_pretrained(old, weights_only=True).save_pretrained(new)",
)
"""Program that converts OLD, a folder of transformers with pytorch_model.bin, to the folder NEW."""
HUB_SCRIPT = (
    *FOLDER_SCRIPT[:3],
    "from huggingface_hub import snapshot_download",
    "old = snapshot_download(old, allow_patterns=['*.json', '*.model', '*.txt', '*.bin'])",
    *FOLDER_SCRIPT[3:],
)
"""The same for a hub id."""
FILE_SCRIPT = (
    "import sys, torch",
    "from torch.serialization import add_safe_globals, get_unsafe_globals_in_checkpoint",
    "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer",
    "old, base, new = sys.argv[1:]",
    "ignore = {'__init__': lambda *a, **k: None, '__setstate__': lambda *a: None}",
    "names = get_unsafe_globals_in_checkpoint(old)",
    "add_safe_globals([(type('Ignored', (), dict(ignore)), name) for name in names])",
    "saved = torch.load(old, map_location='cpu', weights_only=True)",
    "state = saved.get('state_dict') or saved.get('model') or saved",
    "table = 'transformer.wte.weight'",
    "prefix = next(n for n in state if n.endswith(table))[: -len(table)]",
    "state = {n[len(prefix) :]: w for n, w in state.items() if n.startswith(prefix)}",
    "masks = ('.attn.bias', '.attn.masked_bias')",
    "state = {n: w for n, w in state.items() if not n.endswith(masks)}",
    "tokenizer = AutoTokenizer.from_pretrained(base)",
    "added = ['[CLS]', '[SEP]', '[PAD]'][: max(0, len(state[table]) - len(tokenizer))]",
    "tokenizer.add_tokens(added, special_tokens=True)",
    "config = AutoConfig.from_pretrained(base, vocab_size=len(state[table]))",
    "model = AutoModelForCausalLM.from_config(config)",
    "model.load_state_dict(state)",
    "model.save_pretrained(new)",
    "tokenizer.save_pretrained(new)",
)
"""Program that converts OLD, a file of GPT-2 weights, to the folder NEW.

BASE is the model that their training began with.
Everything in the file but tensors and numbers becomes an object without content. A vocabulary
that is larger than that of BASE has the tokens of multi-turn-chatbot-GPT2.
"""


ADAPTER_SCRIPT = (
    "import os, sys",
    "from peft import AutoPeftModelForCausalLM",
    "from transformers import AutoTokenizer",
    "adapter, base, new = sys.argv[1:]",
    "model = AutoPeftModelForCausalLM.from_pretrained(adapter)",
    "model.merge_and_unload().save_pretrained(new)",
    "own = os.path.exists(os.path.join(adapter, 'tokenizer_config.json'))",
    "AutoTokenizer.from_pretrained(adapter if own else base).save_pretrained(new)",
)
"""Program that adds an ADAPTER to its model BASE and writes the folder NEW."""
_AS_FLOATS = (
    "vars(model.config).pop('quantization_config', None)",
    "plain = AutoModelForCausalLM.from_config(model.config)",
    "plain.load_state_dict(model.state_dict())",
    "plain.save_pretrained(new)",
)
"""transformers does not save a model that it loaded from quantized weights; a new one can be."""
DEQUANTIZE_SCRIPT = (
    "import sys",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "old, new = sys.argv[1:]",
    "model = AutoModelForCausalLM.from_pretrained(old).dequantize()",
    *_AS_FLOATS,
    "AutoTokenizer.from_pretrained(old).save_pretrained(new)",
)
"""Program that converts OLD, a folder of weights quantized by bitsandbytes, to the folder NEW."""
GGUF_SCRIPT = (
    "import sys",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "folder, file, new = sys.argv[1:]",
    "model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file)",
    *_AS_FLOATS,
    "AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(new)",
)
"""Program that converts a GGUF FILE in a FOLDER to the folder NEW."""


def conversion(script: Iterable[str], *arguments: Path | str) -> str:
    """Return a hint with the command that converts weights; the last argument is the new folder."""
    words = [typeable(argument) for argument in arguments]
    program = "; ".join((_START, *script))
    return (
        f"if you trust its author, this writes {words[-1]}, a folder that convo opens:\n"
        f'  {typeable(sys.executable)} -c "{program}" {" ".join(words)}'
    )


def free_name(old: Path, ending: str = "safetensors") -> Path:
    """Return a new path beside the old one, such as model-safetensors."""
    stem = (old.stem if old.is_file() else old.name)[:_LONGEST_STEM] or "model"
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    paths = (old.with_name(f"{stem}-{ending}{number}") for number in numbers)
    return next(path for path in paths if not os.path.lexists(path))
