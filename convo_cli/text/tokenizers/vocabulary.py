"""Unique ids for the tokens of a tokenizer.

The tokenizers library numbers added tokens from the size of the vocabulary on. If the vocabulary
has unused ids, its size is smaller than its largest id, and a new token gets the id of a word. This
module changes the JSON form of a tokenizer, which is the only complete form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer, models

from convo_cli.errors import ModelError
from convo_cli.wording import counted, quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "\ufdd0"
"""A Unicode noncharacter, which no text has."""
_MAX_UNUSED = 2**16
_HINT = "give each token in tokenizer.json an id of its own, without gaps"


class TokenFinder:
    """Finds tokens in texts, the longest at each place, in time independent of their number.

    A regular expression with 65,536 alternatives would try each of them at every character.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._backend = Tokenizer(models.BPE())  # a model without a vocabulary drops all other text
        self._backend.add_tokens(
            [AddedToken(token, normalized=False) for token in sorted(set(tokens)) if token]
        )

    def find(self, text: str) -> list[tuple[int, int]]:
        """Return the start and end of each token in a text."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        offsets: list[tuple[int, int]] = encoding.offsets
        return offsets

    def first(self, text: str) -> tuple[int, int]:
        """Return the start and end of the first token; (-1, 0) without a token."""
        return next(iter(self.find(text)), (-1, 0))


def num_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the largest id + 1, the rows of the embeddings; `len` ignores unused ids."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))


def settle_ids(tokenizer: PreTrainedTokenizerBase, stated: Mapping[str, int], source: str) -> None:
    """Give added tokens the ids that tokenizer.json states for them.

    Raises ModelError if that is impossible, if two tokens share an id, or if too many ids are
    unused.
    """
    vocabulary = tokenizer.get_vocab()
    ids = set(vocabulary.values())
    _require_few_unused(1 + max(ids), len(vocabulary), source)
    if len(ids) == len(vocabulary) == len(tokenizer) and stated.items() <= vocabulary.items():
        return
    _require_distinct(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False), source)
    if stated.items() - vocabulary.items() or len(ids) < len(vocabulary):
        _fill(tokenizer, stated, source)
        vocabulary = tokenizer.get_vocab()
    owners = _require_distinct(vocabulary, source)
    for token, index in sorted(stated.items() - vocabulary.items()):
        if index in owners:
            conflict = f"the id of {quoted(owners[index])}"
        else:
            conflict = f"but transformers gives it {vocabulary.get(token)}"
        message = f"{source}: tokenizer.json gives {quoted(token)} the id {index}, {conflict}"
        raise ModelError(message, hint=_HINT)


def close_gaps(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Fill all unused ids, so that the next added token gets an id that no other token has."""
    if num_ids(tokenizer) != len(tokenizer):
        _fill(tokenizer, {}, source)


def _require_few_unused(end: int, num_tokens: int, source: str) -> None:
    if end - num_tokens > _MAX_UNUSED:
        tokens = counted(num_tokens, "token")
        raise ModelError(
            f"{source}: its tokenizer has the id {end - 1:,}, but only {tokens}",
            hint=_HINT,
        )


def _require_distinct(vocabulary: Mapping[str, int], source: str) -> dict[int, str]:
    """Return the token of each id; ModelError if two tokens have one id."""
    owners = dict[int, str]()
    for token, index in vocabulary.items():
        if (other := owners.setdefault(index, token)) != token:
            one, two = sorted((token, other))
            tokens = f"{quoted(one)} and {quoted(two)}"
            message = f"{source}: its tokenizer gives the id {index} to two tokens, {tokens}"
            raise ModelError(message, hint=_HINT)
    return owners


def _fill(tokenizer: PreTrainedTokenizerBase, stated: Mapping[str, int], source: str) -> None:
    """Add tokens to the vocabulary with their stated ids, and fill unused ids.

    The tokens of unused ids match no text. A token with the id of a word is left out, so that it
    gets a new one.
    """
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    words = spec["model"]["vocab"]
    if not isinstance(words, dict):
        return  # a vocabulary that is a list, as in Unigram, has no unused ids
    used = set(words.values())
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    for token, index in (added | dict(stated)).items():
        if token not in words and index not in used:
            words[token] = index
    used.update(words.values())
    _require_few_unused(max(used) + 1, len(used), source)
    for index in sorted(set(range(max(used))) - used):
        words[f"{MARK}unused {index}{MARK}"] = index
    untyped: Any = tokenizer
    # transformers has no public way to set it.
    untyped._tokenizer = Tokenizer.from_str(json.dumps(spec))
