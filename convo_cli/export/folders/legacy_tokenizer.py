"""Tokenizer files that old transformers reads: SentencePiece, GPT-2's merges, or tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convo_cli.export.bounded import bounded_runtime
from convo_cli.export.bounded.runtime_pipe import RuntimeFailedError
from convo_cli.export.folders import folder_tokenizer
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.spiece.piece_model import SPIECE_FILE, read_pieces
from convo_cli.text.spiece.slow_tokenizer import TOKEN_NAMES
from convo_cli.text.templates.pieces import special_tokens
from convo_cli.text.tokenizers.probes import PROBES

SPIECE_FILES = (SPIECE_FILE,)
GPT2_FILES = ("vocab.json", "merges.txt")
PLAIN_FILES = ("tokenizer.json",)
ADDED_FILE = "added_tokens.json"
"""Beside the files of SentencePiece and GPT-2."""
_NAMED_BY_TEMPLATE = {
    "convmodel": {"sep_token": "<sep>"},
    "cls-sep": {"cls_token": "[CLS]", "sep_token": "[SEP]"},
}
"""The names under which the two forerunners look up the tokens of their templates."""
_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized")


def write_tokenizer(
    encoder: DialogueEncoder, spiece: bytes | None, folder: Path
) -> tuple[str, ...]:
    """Write the tokenizer of an encoder; return the names of its vocabulary files."""
    tokenizer: Any = encoder.tokenizer
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    named = _named_tokens(encoder)
    files: tuple[str, ...]
    if spiece is not None:
        files, tokenizer_class = SPIECE_FILES, "BertGenerationTokenizer"
        pieces = read_pieces(spiece, SPIECE_FILE)
        num_pieces = len(pieces.texts)
        # Each of these has a default that transformers would add to the vocabulary.
        named = (
            dict.fromkeys(TOKEN_NAMES[:5]) | {"unk_token": pieces.texts[pieces.unk_index]} | named
        )
        (folder / SPIECE_FILE).write_bytes(spiece)
    elif _is_gpt2(backend):
        files, tokenizer_class = GPT2_FILES, "GPT2Tokenizer"
        vocabulary = backend["model"]["vocab"]
        num_pieces = len(vocabulary)
        named = dict.fromkeys(TOKEN_NAMES[:3]) | named
        write_json(folder / files[0], vocabulary, indent=None)
        merges = [
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in backend["model"]["merges"]
        ]
        _write(folder / files[1], "\n".join(["#version: 0.2", *merges, ""]))
    else:
        files, tokenizer_class = PLAIN_FILES, "PreTrainedTokenizerFast"
        num_pieces = 0
        write_json(folder / files[0], backend | {"truncation": None, "padding": None}, indent=None)
    added = sorted(tokenizer.added_tokens_decoder.items())
    extra = [token for _, token in added if token.special and token.content not in named.values()]
    states = {token.content: {key: getattr(token, key) for key in _FLAGS} for _, token in added}
    config = {
        "tokenizer_class": tokenizer_class,
        "model_max_length": tokenizer.model_max_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": encoder.template.chat_template,
        "added_tokens_decoder": {
            str(index): states[token.content] | {"special": token.special} for index, token in added
        },
        "additional_special_tokens": [token.content for token in extra],
        **named,
    }
    write_json(folder / "tokenizer_config.json", config)
    # Before 4.34, transformers strips white space around a special token that is a bare string.
    special: dict[str, object] = {
        name: states.get(token, token) for name, token in named.items() if token is not None
    }
    special["additional_special_tokens"] = [states[token.content] for token in extra]
    write_json(folder / "special_tokens_map.json", special)
    if files != PLAIN_FILES:
        behind = {token.content: index for index, token in added if index >= num_pieces}
        write_json(folder / ADDED_FILE, behind)
    return files


def reads_alike(folder: Path, encoder: DialogueEncoder) -> bool:
    """Return whether transformers reads texts from a folder as the encoder does.

    It does not for tokenizers that came from fairseq, which shift the ids of their SentencePiece
    model, and for those that change the text first.
    """
    tokenizer: Any = encoder.tokenizer
    spelled, end = special_tokens(tokenizer) | {"<unk>"}, encoder.template.stop_tokens[0]
    plain = [text for text in PROBES[::5] if not any(token in text for token in spelled)]
    texts = [f"{end}{text}" for text in plain]
    expected: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    try:
        with bounded_runtime.BoundedRuntime(folder_tokenizer, folder, None) as runtime:
            return runtime.text_ids(texts) == expected
    except RuntimeFailedError:
        return False


def _named_tokens(encoder: DialogueEncoder) -> dict[str, str | None]:
    """Return the tokens by their names, with those that the template's own program looks up."""
    stated = encoder.tokenizer.special_tokens_map
    named: dict[str, str | None] = {
        name: str(stated[name]) for name in TOKEN_NAMES if isinstance(stated.get(name), str)
    }
    return _NAMED_BY_TEMPLATE.get(encoder.template.name, {}) | named


def _is_gpt2(backend: Mapping[str, Any]) -> bool:
    """Return whether vocabulary and merges alone define the tokenizer, as they do for GPT-2."""
    model, splitter = backend["model"], backend["pre_tokenizer"] or {}
    return (
        model["type"] == "BPE"
        and not any(model.get(key) for key in ("byte_fallback", "ignore_merges", "dropout"))
        and not (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))
        and backend["normalizer"] is None
        and splitter.get("type") == "ByteLevel"
        and splitter.get("add_prefix_space") is False
        and splitter.get("use_regex", True)
    )


def write_json(file: Path, values: Mapping[str, object], indent: int | None = 2) -> None:
    """Write a JSON file in UTF-8, with the same bytes on every system."""
    _write(file, json.dumps(values, indent=indent, ensure_ascii=False) + "\n")


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")
