"""The tokens of a conversation in the files of a Hugging Face folder.

Programs look up the end of a reply in three places: config.json, tokenizer_config.json and
generation_config.json. An export states it in all of them. docs/exports.md lists which program
reads which.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli.errors import ConvoError
from convo_cli.events import Emit, Notice
from convo_cli.export.format import TEMPLATE_FILE
from convo_cli.model.context import context_length
from convo_cli.text.contract import load_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.tokenizers.vocabulary import num_ids
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NO_LIMIT = 2**53
"""transformers writes 10^30 for a tokenizer without a limit."""
_OF_THIS_MACHINE = ("backend", "is_local", "local_files_only")
"""Keys that only say how transformers loaded the tokenizer."""
_EOS_VARIABLE = re.compile(r"\beos_token\b")


def state_config(folder: Path, encoder: DialogueEncoder, torch_dtype: str) -> None:
    """Write the tokens of the encoder and the type of the weights into config.json."""
    values = _read(folder / "config.json")
    inner = values.get("text_config")
    for part in [values, inner] if isinstance(inner, dict) else [values]:
        part["eos_token_id"] = encoder.stop_ids[0]
        if encoder.tokenizer.bos_token_id is not None:
            part["bos_token_id"] = encoder.tokenizer.bos_token_id
        # RoBERTa counts positions from its padding id, so a stated one stays.
        stated = part.get("pad_token_id")
        if not (isinstance(stated, int) and 0 <= stated < num_ids(encoder.tokenizer)):
            part["pad_token_id"] = encoder.pad_id
        # transformers 5 reads the first, programs with an older one the second.
        part["dtype"] = part["torch_dtype"] = torch_dtype
    if values.get("model_type") == "gpt2":
        values.setdefault("n_ctx", values["n_positions"])  # OpenAI's name, which llama.cpp reads
    _write(folder / "config.json", values)


def state_tokens(
    folder: Path, encoder: DialogueEncoder, model: PreTrainedModel, emit: Emit
) -> None:
    """Write the chat template, and the tokens of the encoder into tokenizer_config.json.

    The tokenizer keeps another end token if its ids or the chat template depend on that one. The
    folder must hold all other files of the tokenizer, and dialogue.json.
    """
    chat_template = encoder.template.chat_template
    (folder / TEMPLATE_FILE).write_text(chat_template, encoding="utf-8", newline="\n")
    file, tokenizer = folder / "tokenizer_config.json", encoder.tokenizer
    values = _read(file)
    for key in _OF_THIS_MACHINE:
        values.pop(key, None)
    # Releases before 5 know neither this class nor a list under this key, and read the same files.
    if values.get("tokenizer_class") == "TokenizersBackend":
        values["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(values.get("extra_special_tokens"), list):
        values["additional_special_tokens"] = values.pop("extra_special_tokens")
    limit = context_length(model)
    if limit and not values.get("model_max_length", _NO_LIMIT) < _NO_LIMIT:
        values["model_max_length"] = limit
    values["chat_template"] = chat_template  # text-generation-inference reads it only here
    end, own = encoder.template.stop_tokens[0], str(tokenizer.eos_token or "")
    named = dict[str, str]()
    if tokenizer.pad_token_id is None:
        named["pad_token"] = str(tokenizer.convert_ids_to_tokens(encoder.pad_id))
    writes_own = end != own and _EOS_VARIABLE.search(chat_template) is not None
    if end != own and not writes_own:
        named["eos_token"] = end
    _write(file, values | named)
    reason = "the chat template writes it"
    if named and not _opens_alike(folder):
        # transformers marks a named token as special, which may change the ids of texts.
        _write(file, values)
        reason = f"ids would change with {quoted(end, 50)}"
    elif not writes_own:
        return
    emit(
        Notice(
            f"export: the tokenizer's end token stays {quoted(own, 50)}, because {reason}; "
            "config.json and generation_config.json state the end of a reply"
        )
    )


def _opens_alike(folder: Path) -> bool:
    """Return whether the folder still fits its dialogue.json."""
    try:
        load_encoder(folder)
    except ConvoError:
        return False
    return True


def _read(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(file.read_bytes())
    return values


def _write(file: Path, values: dict[str, Any]) -> None:
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8", newline="\n")
