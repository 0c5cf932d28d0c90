"""Weights in pickles: how convo recognises them, and the commands that convert them.

Opening a pickle can run code, so convo never does. The commands run in the user's own hands, with
transformers and torch alone; `torch.load(weights_only=True)` runs no code of the file. They write a
folder with safetensors, which convo opens. docs/old-weights.md explains them.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from convo_cli.errors import ModelError, typeable
from convo_cli.storage.files import read_file
from convo_cli.storage.sealed import MANIFEST_FILE
from convo_cli.wording import on_one_line

_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_OTHER_SUFFIXES = (".pkl", ".pickle")
_NOT_WEIGHTS = ("adapter_", "training_args", "optimizer", "scheduler", "scaler", "rng_state")
"""How names of files begin that trainers write beside the weights."""
_PLACES = ("", "weights", "checkpoints", "version_*/checkpoints", "lightning_logs/*/checkpoints")
"""Folders of the weights: of multi-turn-chatbot-GPT2, and of PyTorch Lightning."""
_BASE_KEYS = ("pretrained_model", "pretrained_model_or_path")
_CONFIGS = ("args.yaml", "config.yaml")
_NO_BASE = ("", "null", "~")
_LONGEST_BASE = 1000  # characters of a path or hub id
_MAX_CONFIG_BYTES = 2**18
_MAX_FILES = 1000
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


def require_no_pickle(path: Path) -> None:
    """Raise ModelError if a path is a pickle, or a folder whose only weights are pickles."""
    if (weights := _find_pickle(path)) is None:
        return
    what = (
        f"its weights are in {on_one_line(str(weights.relative_to(path)))}, a pickle"
        if weights != path
        else "a pickle"
    )
    is_of_transformers = weights.name.startswith("pytorch_model")
    if is_of_transformers and (weights.parent / "config.json").is_file():
        hint = _conversion(FOLDER_SCRIPT, weights.parent, _free_name(weights.parent))
    elif weights.suffix in _SUFFIXES:
        hint = _conversion(FILE_SCRIPT, weights, _base_of(weights), _free_name(weights))
    else:
        hint = "give the folder of a model"
    if is_of_transformers and (weights.parent / MANIFEST_FILE).is_file():
        what = f"an export of --format legacy; {what}"
        hint = f"export the run again without --format legacy; without the run, {hint}"
    raise ModelError(
        f"{path}: {what}, which can run code when it is opened, so convo never opens it", hint=hint
    )


def no_weights_on_hub(hub_id: str) -> ModelError:
    """Return the error that a model of the hub has no safetensors; it may have a pickle."""
    name = Path(hub_id).name
    return ModelError(
        f"{hub_id}: no model.safetensors on the hub",
        hint="if its weights are in pytorch_model.bin: "
        + _conversion(HUB_SCRIPT, hub_id, _free_name(Path(name))),
    )


def _conversion(script: Iterable[str], *arguments: Path | str) -> str:
    """Return a hint with the command that converts weights; the last argument is the new folder."""
    words = [typeable(argument) for argument in arguments]
    program = "; ".join((_START, *script))
    return (
        f"if you trust its author, this writes {words[-1]}, a folder that convo opens:\n"
        f'  {typeable(sys.executable)} -c "{program}" {" ".join(words)}'
    )


def _find_pickle(path: Path) -> Path | None:
    """Return the file of pickled weights at a path; None for a folder with safetensors."""
    if not path.is_dir():
        is_pickle = path.suffix in (*_SUFFIXES, *_OTHER_SUFFIXES) and path.is_file()
        return path if is_pickle else None
    if next(path.glob("*.safetensors"), None):
        return None
    for place in _PLACES:
        files = itertools.islice(path.glob(f"{place}/*" if place else "*"), _MAX_FILES)
        found = [
            file
            for file in files
            if file.suffix in _SUFFIXES
            and file.is_file()
            and not file.name.startswith(_NOT_WEIGHTS)
        ]
        if found:  # of several, the best by loss, or the first part of the weights
            return min(found, key=lambda file: ("loss" not in file.name, file.name))
    return None


def _base_of(weights: Path) -> str:
    """Return the model that weights were trained from, as the config beside them states it."""
    if (weights.parent / "config.json").is_file():
        return str(weights.parent)
    for file in (weights.parent.parent / name for name in _CONFIGS):
        try:
            lines = read_file(file, _MAX_CONFIG_BYTES).decode(errors="replace").splitlines()
        except OSError:
            continue
        for key, _, value in (line.partition(":") for line in lines):
            base = value.partition(" #")[0].strip().strip("\"'")
            if key.strip() in _BASE_KEYS and base not in _NO_BASE and len(base) <= _LONGEST_BASE:
                return base
    return "gpt2"


def _free_name(old: Path) -> Path:
    """Return a new path beside the old one."""
    stem = (old.stem if old.is_file() else old.name)[:_LONGEST_STEM] or "model"
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    paths = (old.with_name(f"{stem}-safetensors{number}") for number in numbers)
    return next(path for path in paths if not os.path.lexists(path))
