"""The proof that a folder gives back the encoder that was saved in it, and a form of the tokenizer that does.

transformers loads many tokenizers by building them again from their vocabulary and their flags, and saves not all of
the flags: LlamaTokenizer loses ``legacy``. Saved under no class of its own, a tokenizer is what tokenizer.json says.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from convo_cli.data.dialogue import Dialogue, Turn, as_messages
from convo_cli.errors import ChangedError, DataError, ModelError
from convo_cli.events import Notice, Report
from convo_cli.text.contract import load_encoder, tokenizer_sha256
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.probes import PROBES
from convo_cli.text.tokenizer import load_pretrained_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CARRIED = ("model_max_length", "padding_side", "truncation_side", "model_input_names",
            "clean_up_tokenization_spaces", "split_special_tokens")  # fmt: skip
_HINT = "save the model with a tokenizer that transformers loads as it was saved, such as a PreTrainedTokenizerFast"


def reloadable(tokenizer: PreTrainedTokenizerBase, model_folder: Path, report: Report) -> PreTrainedTokenizerBase:
    """The tokenizer, or an equal one of no class, whichever is the same once saved; ModelError where neither is.

    ``model_folder`` holds the config.json that decides, with the tokenizer's own, as what transformers loads it.
    """
    if _lost_by_saving(tokenizer, tokenizer, model_folder) is None:
        return tokenizer
    plain = _without_class(tokenizer)
    if lost := _lost_by_saving(plain, tokenizer, model_folder):
        raise _refusal(lost)
    name = type(tokenizer).__name__
    report(Notice(f"the tokenizer is saved without its class, because {name} does not reload as it was saved"))
    return plain


def require_equal(
    encoder: DialogueEncoder, folder: Path, texts: Iterable[str] = (), dialogues: Iterable[Dialogue] = ()
) -> None:
    """Raise ModelError unless what chat loads from the folder gives the same ids and texts as the encoder.

    Compared are the probe texts, the given ones, and dialogues of both.
    """
    try:
        read = load_encoder(folder)
    except ChangedError as error:
        raise _refusal(error.message) from error
    spoken = [*PROBES, *texts]
    for text, before, after in zip(spoken, encoder.text_ids(spoken), read.text_ids(spoken), strict=True):
        if before != after:
            raise _refusal(f"{text!r} in a turn has the ids {before}, but then {after}")
        if (old := encoder.decode(before)) != (new := read.decode(before)):
            raise _refusal(f"the ids {before} are the reply {old!r}, but then {new!r}")
    halves = zip(PROBES[::2], PROBES[1::2], strict=True)
    whole = [Dialogue((Turn("user", one), Turn("assistant", two))) for one, two in halves]
    whole += dialogues
    for dialogue, mine, other in zip(whole, _examples(encoder, whole), _examples(read, whole), strict=True):
        if mine != other:
            raise _refusal(f"the dialogue {as_messages(dialogue.turns)} has the ids {mine}, but then {other}")
    if difference := _difference(encoder.tokenizer, read.tokenizer, spoken):
        raise _refusal(difference)


def _refusal(difference: str) -> ModelError:
    return ModelError(f"the tokenizer changes when it is saved and loaded: {difference}", hint=_HINT)


def _lost_by_saving(
    saved: PreTrainedTokenizerBase, original: PreTrainedTokenizerBase, model_folder: Path
) -> str | None:
    """What differs between a tokenizer and what comes back of a form of it that is saved."""
    with TemporaryDirectory(prefix="convo-") as folder:
        if (config := model_folder / "config.json").is_file():
            shutil.copyfile(config, Path(folder, "config.json"))
        saved.save_pretrained(folder)
        try:
            read = load_pretrained_tokenizer(folder)
        except ModelError as error:
            return error.message
    one, other = (tokenizer.backend_tokenizer.to_str() for tokenizer in (original, read))
    if one != other and tokenizer_sha256(original) != tokenizer_sha256(read):
        return "its vocabulary, normalizer, splitter, decoder or post-processor is not what it was"
    return _difference(original, read, PROBES)


def _difference(original: Any, read: Any, texts: Sequence[str]) -> str | None:
    """What differs for those who use the tokenizers through transformers."""
    for text, before, after in zip(texts, *(one(list(texts))["input_ids"] for one in (original, read)), strict=True):
        if before != after:
            return f"{text!r} has the ids {before}, but then {after}"
        if (old := original.decode(before)) != (new := read.decode(before)):
            return f"the ids {before} are {old!r}, but then {new!r}"
    if (mine := original.special_tokens_map) != (other := read.special_tokens_map):
        return f"its special tokens are {mine}, but then {other}"
    return None


def _without_class(tokenizer: Any) -> PreTrainedTokenizerBase:
    """The same tokenizer as what transformers takes from tokenizer.json as it stands."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        chat_template=tokenizer.chat_template,
        extra_special_tokens=list(tokenizer.extra_special_tokens),
        **{name: getattr(tokenizer, name) for name in _CARRIED},
        **{name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)},
    )


def _examples(encoder: DialogueEncoder, dialogues: Iterable[Dialogue]) -> list[object]:
    """For each dialogue the ids and targets of its windows, or None where the template refuses it."""
    results = list[object]()
    for dialogue in dialogues:
        try:
            (windows,) = encoder.encode([dialogue])
            results.append([(window.input_ids.tolist(), window.targets.tolist()) for window in windows])
        except DataError:
            results.append(None)
    return results
