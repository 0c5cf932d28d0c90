"""Tokenizer for the words of speakers, which it never reads as special tokens."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from convo_cli.text.tokenizers.vocabulary import MARK

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def plain_text_backend(
    tokenizer: PreTrainedTokenizerBase,
    unmarked: Iterable[str],
    special: Collection[str],
    *,
    begins_rendering: bool = False,
) -> Tokenizer:
    """Return a copy of the tokenizer that yields no ``special`` token, and never cuts or pads.

    ``unmarked`` are tokens of the template that the tokenizer does not mark as special. With
    ``begins_rendering`` it encodes the text with which a rendering begins.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in unmarked]
    )
    backend.encode_special_tokens = True
    splitter = backend.pre_tokenizer
    if has_first_space(tokenizer) and not begins_rendering:
        splitter.prepend_scheme = "never"
        backend.pre_tokenizer = splitter
    return _without_spellings(backend, special)


def has_first_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the first text of a rendering, and no other, gets a space before it.

    It has none if the rendering begins with a special token.
    """
    splitter = tokenizer.backend_tokenizer.pre_tokenizer
    return isinstance(splitter, pre_tokenizers.Metaspace) and splitter.prepend_scheme == "first"


def _without_spellings(backend: Tokenizer, tokens: Collection[str]) -> Tokenizer:
    """Return a tokenizer that gives no text the id of one of these special tokens.

    ``backend`` already encodes special tokens as text, but the vocabulary may contain a word that
    is spelled like one of them.
    """
    texts = [text for token in tokens for text in (token, f"a {token} {token}{token} a{token}b")]
    encodings = iter(backend.encode_batch_fast(texts, add_special_tokens=False))
    spelled = {
        token
        for token in tokens
        if backend.token_to_id(token) in [*next(encodings).ids, *next(encodings).ids]
    }
    if not spelled:
        return backend
    spec = json.loads(backend.to_str())
    model = spec["model"]
    spelled.discard(model.get("unk_token"))
    words = model["vocab"]
    if isinstance(words, dict):
        model["vocab"] = {
            MARK + word if word in spelled else word: index for word, index in words.items()
        }
    else:
        model["vocab"] = [
            [MARK + word if word in spelled else word, score] for word, score in words
        ]
    if "merges" in model:
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if spelled.isdisjoint({*pair, "".join(pair)})]
    spec["added_tokens"] = [
        token for token in spec["added_tokens"] if token["content"] not in spelled
    ]
    spec["post_processor"] = None
    changed = Tokenizer.from_str(json.dumps(spec))
    changed.encode_special_tokens = True
    return changed
