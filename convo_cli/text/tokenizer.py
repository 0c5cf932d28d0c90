"""Tokenizers: a pretrained model's own, or a SentencePiece model trained on the training dialogues.

A trained one is kept twice: `spiece.model`, which SentencePiece reads, and `tokenizer.json`, which transformers reads
without protobuf. Both give the same ids, because the model is trained without normalisation, without a dummy prefix
and with byte fallback, and because the pieces that stand for no text (`<unk>`, the bytes) get a score that keeps them
from matching text that merely looks like them. (One exception: of two unigram cuts that are exactly as likely, such as
e+ee and ee+e, SentencePiece's 32-bit sums may choose the other one.)
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from convo_cli.config.schema import TokenizerConfig
from convo_cli.errors import DataError, ModelError
from convo_cli.text import bounded
from convo_cli.text.bounded_process import TRY_TOKENIZER, trial_limits
from convo_cli.text.hub import local_folder
from convo_cli.text.pieces import special_tokens
from convo_cli.text.probes import PROBES
from convo_cli.text.vocabulary import close_gaps, settle_ids

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerBase

SPIECE_FILE = "spiece.model"
SPACE_MARK = "▁"  # U+2581: how SentencePiece writes a space inside a piece
TEXT_SUFFIXES = {".json", ".jinja", ".model", ".txt", ".tiktoken"}
MAX_ADDED_TOKENS = 2**16
_NEVER_MATCHED = -1e6
_ASCII = "".join(chr(code) for code in range(0x21, 0x7F))
_NUM_THREADS = 16  # a constant: the scores of a unigram model depend on it, and so would the ids on the machine
_MAX_TRAINING_CHARACTERS = 50_000_000  # about 100 MB of text; SentencePiece holds its corpus in memory


def train_sentencepiece(texts: Iterable[str], config: TokenizerConfig) -> bytes:
    """Train a SentencePiece model and return it in SentencePiece's own format.

    Raises DataError where the texts are too few for any vocabulary of this kind.
    """
    import sentencepiece

    model = io.BytesIO()
    lines = _Lines(texts)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=config.kind,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            hard_vocab_limit=False,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            required_chars=_ASCII,
            max_sentence_length=1 << 24,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=_NUM_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        if lines.error is not None:  # the text could not be read on, which SentencePiece wraps into an error of its own
            raise lines.error from None
        if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
            raise DataError(
                f"tokenizer.vocab_size is {config.vocab_size}, but the characters of the training text and the bytes "
                f"need {needed[1]} pieces",
                hint="raise tokenizer.vocab_size, or lower tokenizer.character_coverage",
            ) from error
        raise DataError(
            f"SentencePiece could not train a {config.kind} tokenizer of {config.vocab_size} pieces "
            f"({first_line(error)})",
            hint="the training text may be too small: lower tokenizer.vocab_size, or set tokenizer.kind: unigram",
        ) from error
    return model.getvalue()


def from_sentencepiece(model: bytes) -> PreTrainedTokenizerBase:
    """A transformers tokenizer that gives the same ids as the SentencePiece model."""
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerFast

    try:
        processor = SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ModelError(f"not a SentencePiece model: {error}") from error
    backend = Tokenizer(_backend_model(processor))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE_MARK, prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


def load_pretrained_tokenizer(
    source: str, revision: str | None = None, *, is_own: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder or hub id; ModelError where it cannot be read or has no fast form.

    It is loaded and tried in a process with limits before it is loaded here. Only what this process itself has just
    written (``is_own``) is loaded at once; a run directory with its manifest may be a stranger's.
    """
    folder = local_folder(source, revision)
    if not is_own:
        require_bearable(TRY_TOKENIZER, folder, source)
    return open_tokenizer(folder, source)


def require_bearable(work: bytes, folder: Path, source: str) -> None:
    """Raise ModelError where the tokenizer or the config of the folder cannot be read within limits, or is refused."""
    num_bytes = sum(file.stat().st_size for file in folder.iterdir() if file.is_file() and file.suffix in TEXT_SUFFIXES)
    request = json.dumps([str(folder.absolute()), source, num_bytes]).encode()
    what = "tokenizer" if work == TRY_TOKENIZER else "config.json"
    try:
        refused = json.loads(bounded.ask(work, request))
    except bounded.EndedError as end:
        raise ModelError(
            f"{source}: its {what} {end.reason(trial_limits(num_bytes))}", hint="take the model from another source"
        ) from None
    if refused:
        message, hint = refused
        raise ModelError(message, hint=hint or None)


def open_tokenizer(folder: Path, source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, without a trial; ModelError names it as ``source``."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises half a dozen types for what is one mistake to the user
        raise ModelError(
            f"{source}: no readable tokenizer ({_unreadable(folder, error)})",
            hint="the folder needs tokenizer.json (or the files of its slow tokenizer) beside config.json",
        ) from error
    if not getattr(tokenizer, "is_fast", False):  # RAG's is two tokenizers, and says nothing of it
        raise ModelError(
            f"{source}: its tokenizer {type(tokenizer).__name__} has no fast form",
            hint="convo needs the character offsets that only fast tokenizers give",
        )
    if len(tokenizer) < 256:
        raise ModelError(
            f"{source}: its tokenizer has only {len(tokenizer)} tokens, so its vocabulary was not found",
            hint="the folder needs tokenizer.json; transformers falls back to an empty vocabulary without a word",
        )
    if (num_added := len(tokenizer.added_tokens_decoder)) > MAX_ADDED_TOKENS:
        raise ModelError(
            f"{source}: its tokenizer has {num_added:,} added tokens, and {MAX_ADDED_TOKENS:,} are more than any has",
            hint="tokens of an ordinary vocabulary belong into the tokenizer's model, not beside it",
        )
    tokenizer.backend_tokenizer.no_padding()  # tokenizer.json may ask for a billion ids
    tokenizer.backend_tokenizer.no_truncation()
    settle_ids(tokenizer, _stated_ids(folder / "tokenizer.json"), source)
    try:
        tokenizer.backend_tokenizer.encode_batch_fast(list(PROBES))
    except Exception as error:  # the tokenizers library has no type of its own for it
        raise ModelError(
            f"{source}: its tokenizer fails on text outside its vocabulary ({first_line(error)})",
            hint="the model in tokenizer.json needs an unk_token that is in its vocabulary",
        ) from error
    return tokenizer


def keep_special_tokens_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    """Undo ``split_special_tokens``, with which transformers' apply_chat_template spells role tokens as text.

    Texts of turns are encoded without special tokens in any case.
    """
    if tokenizer.split_special_tokens:
        tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = False
        tokenizer.backend_tokenizer.encode_special_tokens = False


def add_special_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> tuple[str, ...]:
    """Add the tokens the tokenizer lacks, as special tokens; return those that were new."""
    vocabulary = tokenizer.get_vocab()
    special = special_tokens(tokenizer)
    new = tuple(token for token in tokens if token not in vocabulary)
    plain = [token for token in tokens if token not in special]
    if plain:
        close_gaps(tokenizer, "the model")
        added = [AddedToken(token, special=True, normalized=False) for token in plain]
        tokenizer.add_special_tokens({"extra_special_tokens": added}, replace_extra_special_tokens=False)
        settle_ids(tokenizer, {}, "the model")
    return new


class _Lines:
    """Texts cut at newlines (SentencePiece's sentences) up to a bounded total; NUL and the space mark never come in."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.error: BaseException | None = None
        """What ended the texts early."""

    def __iter__(self) -> Iterator[str]:
        total = 0
        try:
            for text in self._texts:
                for line in text.splitlines():
                    total += len(line)
                    if total > _MAX_TRAINING_CHARACTERS:
                        return
                    yield line
        except BaseException as error:
            self.error = error
            raise


def _backend_model(processor: SentencePieceProcessor) -> models.Model:
    """The pieces as a model of the tokenizers library: Unigram from scores, BPE from the merges they imply."""
    size = processor.get_piece_size()
    pieces = [processor.id_to_piece(index) for index in range(size)]
    scores = [processor.get_score(index) for index in range(size)]
    is_text = [not (processor.is_unknown(i) or processor.is_control(i) or processor.is_byte(i)) for i in range(size)]
    if _is_unigram(scores, is_text):
        entries = [
            (piece, score if text else _NEVER_MATCHED)
            for piece, score, text in zip(pieces, scores, is_text, strict=True)
        ]
        return models.Unigram(entries, unk_id=processor.unk_id(), byte_fallback=True)
    ids = {piece: index for index, piece in enumerate(pieces)}
    textual = {piece for piece, text in zip(pieces, is_text, strict=True) if text}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted((p for p in textual if len(p) > 1), key=lambda p: ids[p])
        for cut in range(1, len(piece))
        if piece[:cut] in textual and piece[cut:] in textual
    ]
    return models.BPE(ids, merges, unk_token=pieces[processor.unk_id()], fuse_unk=True, byte_fallback=True)


def _is_unigram(scores: list[float], is_text: list[bool]) -> bool:
    """Unigram scores are log-probabilities; BPE scores are the whole numbers 0, -1, -2 … of the merge order."""
    return any(score != int(score) for score, text in zip(scores, is_text, strict=True) if text)


class _AddedToken(msgspec.Struct):
    id: int
    content: str


class _TokenizerFile(msgspec.Struct):
    added_tokens: list[_AddedToken] = []


def _stated_ids(file: Path) -> dict[str, int]:
    """The ids that tokenizer.json gives to its added tokens; none where there is no such file."""
    try:
        stated = msgspec.json.decode(file.read_bytes(), type=_TokenizerFile)
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return {token.content: token.id for token in stated.added_tokens}


def _unreadable(folder: Path, error: Exception) -> str:
    """Why a tokenizer cannot be loaded; names its file where that is the reason."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return "there is no tokenizer.json"
    try:
        json.loads(file.read_bytes())
    except (ValueError, RecursionError) as damage:
        return f"tokenizer.json is damaged: {first_line(damage)}"
    return first_line(error)


def first_line(error: Exception) -> str:
    """What a library's error says, without the pages that may follow."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
