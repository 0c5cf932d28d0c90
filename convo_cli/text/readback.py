"""Check that a saved encoder reloads unchanged, and a form of the tokenizer that does.

transformers rebuilds many tokenizers from their vocabulary and flags, but does not save all flags:
LlamaTokenizer loses ``legacy``. A tokenizer that is saved without its class is loaded exactly as
tokenizer.json describes it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from convo_cli.data.dialogue import Dialogue, Turn, as_messages
from convo_cli.errors import ChangedError, DataError, ModelError
from convo_cli.events import Emit, Notice
from convo_cli.text.contract import load_encoder, tokenizer_sha256
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.text.tokenizers.pretrained import open_tokenizer
from convo_cli.text.tokenizers.probes import PROBES
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CARRIED = ("model_max_length", "padding_side", "truncation_side", "model_input_names",
            "clean_up_tokenization_spaces", "split_special_tokens")  # fmt: skip
_HINT = "save the model with another class of tokenizer, such as PreTrainedTokenizerFast"


def reloadable(
    tokenizer: PreTrainedTokenizerBase, model_folder: Path, emit: Emit
) -> PreTrainedTokenizerBase:
    """Return the tokenizer if it reloads unchanged, else an equal one without its class.

    ``model_folder`` holds the config.json that decides, with the tokenizer's own config, which
    class transformers loads. Raises ModelError if neither form reloads unchanged.
    """
    if _lost_by_saving(tokenizer, tokenizer, model_folder) is None:
        return tokenizer
    plain = _without_class(tokenizer)
    if lost := _lost_by_saving(plain, tokenizer, model_folder):
        raise _refusal(lost)
    why = f"{type(tokenizer).__name__} does not save all of its settings"
    emit(Notice(f"tokenizer: saved as PreTrainedTokenizerFast, because {why}"))
    return plain


def require_equal(
    encoder: DialogueEncoder,
    folder: Path,
    texts: Iterable[str] = (),
    dialogues: Iterable[Dialogue] = (),
) -> None:
    """Raise ModelError unless the folder's encoder gives the same ids and texts.

    They are compared on the probe texts, ``texts``, dialogues made of the probe texts, and
    ``dialogues``.
    """
    try:
        read = load_encoder(folder)
    except ChangedError as error:
        raise _refusal(error.message) from error
    spoken = [*PROBES, *texts]
    both = zip(spoken, encoder.text_ids(spoken), read.text_ids(spoken), strict=True)
    for text, before, after in both:
        if before != after:
            raise _refusal(
                f"{_text(text)} in a turn has the ids {before}, but {after} once reloaded"
            )
        if (old := encoder.decode(before)) != (new := read.decode(before)):
            change = f"{_text(old)}, but {_text(new)} once reloaded"
            raise _refusal(f"the ids {before} are the reply {change}")
    halves = zip(PROBES[::2], PROBES[1::2], strict=True)
    whole = [Dialogue((Turn("user", one), Turn("assistant", two))) for one, two in halves]
    whole += dialogues
    both_examples = zip(whole, _examples(encoder, whole), _examples(read, whole), strict=True)
    for dialogue, mine, other in both_examples:
        if mine != other:
            shown = json.dumps(as_messages(dialogue.turns), ensure_ascii=False)
            raise _refusal(f"the dialogue {shown} has other ids and targets once reloaded")
    if difference := _difference(encoder.tokenizer, read.tokenizer, spoken):
        raise _refusal(difference)


def _text(text: str) -> str:
    return quoted(text, limit=200)


def _refusal(difference: str) -> ModelError:
    return ModelError(
        f"the tokenizer changes when it is saved and loaded: {difference}", hint=_HINT
    )


def _lost_by_saving(
    saved: PreTrainedTokenizerBase, original: PreTrainedTokenizerBase, model_folder: Path
) -> str | None:
    """Return how ``saved`` differs from ``original`` once it is saved and loaded, or None."""
    with TemporaryDirectory(prefix="convo-") as folder:
        if (config := model_folder / "config.json").is_file():
            shutil.copyfile(config, Path(folder, "config.json"))
        saved.save_pretrained(folder)
        try:
            read = open_tokenizer(local_folder(folder), folder)
        except ModelError as error:
            return error.message
    one, other = (tokenizer.backend_tokenizer.to_str() for tokenizer in (original, read))
    if one != other and tokenizer_sha256(original) != tokenizer_sha256(read):
        return "its vocabulary, normalizer, splitter, decoder or post-processor differs"
    return _difference(original, read, PROBES)


def _difference(original: Any, read: Any, texts: Sequence[str]) -> str | None:
    """Return the first difference between two tokenizers used through transformers, or None."""
    ids = (one(list(texts))["input_ids"] for one in (original, read))
    for text, before, after in zip(texts, *ids, strict=True):
        if before != after:
            return f"{_text(text)} has the ids {before}, but {after} once reloaded"
        if (old := original.decode(before)) != (new := read.decode(before)):
            return f"the ids {before} are {_text(old)}, but {_text(new)} once reloaded"
    if (mine := original.special_tokens_map) != (other := read.special_tokens_map):
        one, two = (json.dumps(names, ensure_ascii=False, default=str) for names in (mine, other))
        return f"its special tokens are {one}, but {two} once reloaded"
    return None


def _without_class(tokenizer: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer as a PreTrainedTokenizerFast, which loads tokenizer.json unchanged."""
    from transformers import PreTrainedTokenizerFast

    special = tokenizer.special_tokens_map.items()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        chat_template=tokenizer.chat_template,
        extra_special_tokens=list(tokenizer.extra_special_tokens),
        **{name: getattr(tokenizer, name) for name in _CARRIED},
        **{name: token for name, token in special if isinstance(token, str)},
    )


def _examples(encoder: DialogueEncoder, dialogues: Iterable[Dialogue]) -> list[object]:
    """Return the ids and targets of each dialogue's windows; None if the template refuses it."""
    results = list[object]()
    for dialogue in dialogues:
        try:
            (windows,) = encoder.encode([dialogue])
            results.append(
                [(window.input_ids.tolist(), window.targets.tolist()) for window in windows]
            )
        except DataError:
            results.append(None)
    return results
