"""Tokenizers of folders that hold a SentencePiece model, but no tokenizer.json.

transformers converts some classes by itself, to a tokenizer that differs from SentencePiece, and
has no fast form of others. convo converts the model itself: pieces from the file, special tokens
and their ids from the tokenizer's class and config.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken

from convo_cli.errors import ModelError
from convo_cli.storage.foreign_files import json_entries
from convo_cli.text.spiece.class_rules import (
    PLAIN,
    RULES,
    ClassRules,
    Settings,
    is_number_and_comma,
)
from convo_cli.text.spiece.conversion import backend_model, backend_of
from convo_cli.text.spiece.piece_model import (
    CONTROL,
    UNKNOWN,
    USER_DEFINED,
    PieceModel,
    SpieceFile,
    read_pieces,
    read_spiece,
)
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
               "mask_token")  # fmt: skip
"""Attributes of a tokenizer that name a special token."""
_CARRIED = ("model_max_length", "padding_side", "truncation_side", "model_input_names")
_STATED_IN = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_MAX_UNUSED = 2**16
NO_CONVERSION = (
    "save a fast tokenizer with plain transformers: PreTrainedTokenizerFast(…).save_pretrained(…) "
    "writes tokenizer.json"
)
"""Hint for a tokenizer that convo cannot convert."""


@dataclass(frozen=True)
class SlowTokenizer:
    """A SentencePiece model with the rules and the settings of its tokenizer class."""

    file: SpieceFile
    pieces: PieceModel
    name: str
    """The class of the tokenizer, or "SentencePiece" if the folder states none."""
    rules: ClassRules
    settings: Settings

    @property
    def prefix(self) -> str:
        """Return where the class puts a space before a text: "always", "first" or "never"."""
        if not self.pieces.adds_prefix or self.settings.get("add_prefix_space") is False:
            return "never"
        return "first" if self.settings.get("legacy") is False else "always"


def find_slow_tokenizer(folder: Path, source: str) -> SlowTokenizer | None:
    """Return the SentencePiece tokenizer of a folder; None if its tokenizer is another one.

    Raises ModelError if its model is damaged, or if convo does not know its class.
    """
    if (folder / "tokenizer.json").is_file() or (file := read_spiece(folder, source)) is None:
        return None
    settings, config = _object(folder / "tokenizer_config.json"), _object(folder / "config.json")
    stated = settings.get("tokenizer_class") or config.get("tokenizer_class")
    name = str(stated or _class_of_model(config)).removesuffix("Fast")
    rules = RULES.get(name)
    if rules is None:
        if (folder / "vocab.json").is_file() or (folder / "vocab.txt").is_file():
            return None  # the class reads that file
        if stated:
            known = ", ".join(sorted(one for one in RULES if RULES[one] is not PLAIN))
            raise ModelError(
                f"{source}: convo cannot convert {file.name} for the tokenizer class "
                f"{quoted(name)}, because it does not know how the class changes texts and ids "
                f"(it knows the classes without changes, and {known})",
                hint=NO_CONVERSION,
            )
        name, rules = "SentencePiece", PLAIN
    return SlowTokenizer(
        file, read_pieces(file.content, Path(source, file.name)), name, rules, settings
    )


def convert(
    slow: SlowTokenizer, tokenizer: Any, folder: Path, source: str
) -> PreTrainedTokenizerBase:
    """Return a fast tokenizer with the ids of SentencePiece and the special tokens of the class.

    ``tokenizer`` is that of transformers for the folder. ModelError if two tokens get one id.
    """
    from transformers import PreTrainedTokenizerFast

    stated, rows = _stated_tokens(folder), _num_rows(folder)
    ids = _piece_ids(slow)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    # transformers finds no vocabulary for some classes, and then numbers the tokens on its own.
    is_read = all(vocabulary.get(text) == index for text, index in _text_ids(slow, ids).items())
    kinds = zip(slow.pieces.texts, slow.pieces.kinds, strict=True)
    symbols = {text for text, kind in kinds if kind == USER_DEFINED}
    added = dict[str, AddedToken]()
    for index, token in sorted(tokenizer.added_tokens_decoder.items()):
        text = token.content
        if text in ids:
            if text in symbols and text not in stated:
                continue
        elif is_read and (text in stated or rows is None or index < rows):
            ids[text] = index
        elif text in stated:
            ids[text] = 1 + max(ids.values())
        else:
            continue  # a default of the class that the model has no embedding for
        added[text] = AddedToken(
            text, lstrip=token.lstrip, rstrip=token.rstrip, special=True, normalized=False
        )
    _require_ids(ids, source)
    named = {key: str(getattr(tokenizer, key)) for key in TOKEN_NAMES if getattr(tokenizer, key)}
    defaults = {key: slow.pieces.texts[at] for key, at in slow.pieces.special_ids.items()}
    named = {**defaults, **{key: text for key, text in named.items() if text in ids}}
    for text in named.values():
        added.setdefault(text, AddedToken(text, special=True, normalized=False))
    cut = [text for text in slow.pieces.texts if is_number_and_comma(text)]
    never = {*added, *(cut if slow.rules.cuts_numbers else ())}
    backend = backend_of(
        slow.pieces,
        backend_model(slow.pieces, ids, never),
        first_steps=slow.rules.steps(slow.settings),
        prefix=slow.prefix,
    )
    if is_read and getattr(tokenizer, "is_fast", False):
        backend.post_processor = tokenizer.backend_tokenizer.post_processor
    backend.add_special_tokens([added[text] for text in sorted(added, key=ids.__getitem__)])
    others = [token for text, token in added.items() if text not in named.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=others,
        **{key: getattr(tokenizer, key) for key in _CARRIED},
        **{key: added[text] for key, text in named.items()},
    )


def _piece_ids(slow: SlowTokenizer) -> dict[str, int]:
    """Return the id of each piece."""
    ids = dict[str, int]()
    for index, (text, kind) in enumerate(zip(slow.pieces.texts, slow.pieces.kinds, strict=True)):
        fixed = slow.rules.fixed.get(text)
        if kind in (CONTROL, UNKNOWN) and fixed is not None:
            ids[text] = fixed
        else:
            ids[text] = index + slow.rules.offset
    return {**slow.rules.fixed, **ids}


def _text_ids(slow: SlowTokenizer, ids: Mapping[str, int]) -> dict[str, int]:
    """Return the ids of the pieces that stand for text."""
    kinds = zip(slow.pieces.texts, slow.pieces.kinds, strict=True)
    return {text: ids[text] for text, kind in kinds if kind not in (CONTROL, UNKNOWN)}


def _require_ids(ids: Mapping[str, int], source: str) -> None:
    owners = dict[int, str]()
    for text, index in ids.items():
        if (other := owners.setdefault(index, text)) != text:
            raise ModelError(
                f"{source}: its tokenizer gives the id {index} to two tokens, {quoted(other)} and "
                f"{quoted(text)}",
                hint=NO_CONVERSION,
            )
    if max(owners) >= len(owners) + _MAX_UNUSED:
        raise ModelError(
            f"{source}: its tokenizer has the id {max(owners):,}, but only {len(owners):,} tokens",
            hint=NO_CONVERSION,
        )


def _stated_tokens(folder: Path) -> set[str]:
    """Return every string in the files that state tokens, and every key of added_tokens.json."""
    found = set[str]()
    for name in _STATED_IN:
        values = _object(folder / name)
        found.update(values if name == "added_tokens.json" else ())
        entries = [value for _, value in json_entries(values)]
        entries += [one for value in entries if isinstance(value, list) for one in value]
        found.update(value for value in entries if isinstance(value, str))
    return found


def _num_rows(folder: Path) -> int | None:
    """Return the number of embeddings that config.json states; None without a number."""
    config = _object(folder / "config.json")
    texts = config.get("text_config")
    rows = config.get("vocab_size", texts.get("vocab_size") if isinstance(texts, dict) else None)
    return rows if isinstance(rows, int) else None


def _class_of_model(config: Mapping[str, Any]) -> str:
    """Return the class that transformers uses for the kind of model, or ""."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    return str(TOKENIZER_MAPPING_NAMES.get(str(config.get("model_type"))) or "")


def _object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one if there is none."""
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
