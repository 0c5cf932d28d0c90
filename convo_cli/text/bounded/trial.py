"""Trial of a foreign tokenizer or config: the bounded process loads it and uses it on probes.

Probes repeat one character or a pair, or mix many, which exposes slow patterns. No probe contains
every rare character, so `convo_cli.text.tokenizers.expansion` bounds what a tokenizer can do with
any of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from convo_cli.errors import ModelError, first_line
from convo_cli.text.spiece.agreement import compare, sentencepieces
from convo_cli.text.spiece.piece_model import read_spiece
from convo_cli.text.spiece.slow_tokenizer import (
    NO_CONVERSION,
    SlowTokenizer,
    find_slow_tokenizer,
)
from convo_cli.text.templates.pieces import special_tokens
from convo_cli.text.tokenizers.expansion import excess
from convo_cli.text.tokenizers.plain_text import plain_text_backend
from convo_cli.text.tokenizers.pretrained import open_tokenizer
from convo_cli.text.tokenizers.probes import PROBES
from convo_cli.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_IDS = 32
"""Most ids for one character of a probe; byte fallback gives 4."""
MAX_ADDED_IDS = 64
"""Most ids that a post-processor may put around a text."""
_PUMPED = 1000
"""Characters of a long probe; a pattern whose time grows with their cube panics."""
_ASCII = tuple(map(chr, range(128)))
_COMMON = (" ", "\n", "a", "A", "1", ".", "'", "<", "▁", "é", "中", "🙂")
_HINT = "take the model from another source"


def try_tokenizer(folder: Path, source: str) -> Sequence[str]:
    """Return the message and the hint of the fault in a folder's tokenizer; () without a fault."""
    try:
        tokenizer = open_tokenizer(folder, source)
        if slow := find_slow_tokenizer(folder, source):
            _require_agreement(slow, tokenizer, source)
        else:
            with suppress(ModelError):  # it is only copied
                read_spiece(folder, source)
        if found := _fault(tokenizer):
            raise ModelError(f"{source}: its tokenizer {found}", hint=_HINT)
    except MemoryError:
        raise
    except ModelError as error:
        return error.message, error.hint or ""
    except BaseException as error:  # noqa: BLE001  (a panic of Rust is not an Exception)
        reason = first_line(error)
        return f"{source}: its tokenizer fails ({reason})", _HINT
    return ()


def _require_agreement(
    slow: SlowTokenizer, tokenizer: PreTrainedTokenizerBase, source: str
) -> None:
    """Raise ModelError if SentencePiece cannot load its model, or most probes differ."""
    special = special_tokens(tokenizer)
    backend = plain_text_backend(tokenizer, (), special - {str(tokenizer.unk_token)})
    untyped: Any = tokenizer

    def pieces_of(texts: Sequence[str]) -> list[list[str]]:
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [untyped.convert_ids_to_tokens(encoding.ids) for encoding in encodings]

    found = compare(slow, PROBES, sentencepieces(slow, PROBES, source), pieces_of)
    if len(found.differences) > len(PROBES) // 2:
        raise ModelError(
            f"{source}: its tokenizer {slow.name} cannot be converted: {found.differences[0]}",
            hint=NO_CONVERSION,
        )


def try_config(folder: Path, source: str) -> Sequence[str]:
    """Read config.json as transformers does, within the limits; loading reports its errors."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (transformers raises many types)
        pass
    return ()


def _fault(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return what is wrong with a tokenizer, as words that continue a sentence."""
    stated = tokenizer.backend_tokenizer.to_str()
    if found := excess(json.loads(stated)):
        return found
    untyped: Any = tokenizer
    alone = len(untyped("a", add_special_tokens=False)["input_ids"])
    around = len(untyped("a", add_special_tokens=True)["input_ids"]) - alone
    if around > MAX_ADDED_IDS:
        return f"adds {around:,} tokens to each text (at most {MAX_ADDED_IDS} are allowed)"
    plain = Tokenizer.from_str(stated)
    plain.encode_special_tokens = True
    spelled = _spelled(sorted(token.content for token in tokenizer.added_tokens_decoder.values()))
    for backend, texts in (
        (tokenizer.backend_tokenizer, (*_pumped(), *spelled)),
        (plain, (*PROBES, *spelled)),
    ):
        for text in texts:
            ids = backend.encode(text, add_special_tokens=False).ids
            if len(ids) > MAX_IDS * len(text) + MAX_ADDED_IDS:
                limit = f"at most {MAX_IDS} for each are allowed"
                characters = counted(len(text), "character")
                return f"turns {characters} into {len(ids):,} tokens ({limit})"
            untyped.decode(ids, clean_up_tokenization_spaces=False)
    return None


def _pumped() -> Iterator[str]:
    for character in _ASCII:
        yield character * _PUMPED
    for one, other in product(_COMMON, repeat=2):
        yield (one + other) * (_PUMPED // 4)
    mixture = "".join(PROBES)
    yield from (mixture, mixture.replace(" ", ""), mixture[::-1])


def _spelled(tokens: Sequence[str]) -> list[str]:
    """Return two texts that spell some of the added tokens."""
    chosen = [token for token in tokens[:: max(1, len(tokens) // 50)] if token]
    return ["".join(chosen), " ".join(chosen)]
