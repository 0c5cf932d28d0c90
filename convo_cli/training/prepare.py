"""From dialogue files to an encoder and token stores: all that happens to the data before step 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from convo_cli.config.schema import RunConfig
from convo_cli.data.dialogue import Dialogue, has_target
from convo_cli.data.reader import read_dialogues
from convo_cli.data.store import ASSISTANT_TARGET, USER_TARGET, Example, TokenStore
from convo_cli.errors import DataError
from convo_cli.events import Notice, Progress, Report
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.template import make_template
from convo_cli.text.tokenizer import (
    add_special_tokens,
    from_sentencepiece,
    load_pretrained_tokenizer,
    train_sentencepiece,
)

_CHUNK = 256  # dialogues encoded at once: the tokenizer works on all cores
_PARITY_DIALOGUES = 64


@dataclass(frozen=True)
class PreparedText:
    """The encoder of a new run; ``spiece`` is the SentencePiece model it was made from, if it was."""

    encoder: DialogueEncoder
    spiece: bytes | None
    num_new_tokens: int


def build_encoder(config: RunConfig, report: Report) -> PreparedText:
    """The pretrained model's tokenizer, or one trained on the training dialogues, with the template's tokens added."""
    spiece = None
    if config.model.pretrained is not None:
        tokenizer = load_pretrained_tokenizer(config.model.pretrained, config.model.revision)
    else:
        report(Progress("training the tokenizer", 0))
        texts = (turn.text for dialogue in read_dialogues(config.data.train, config.data) for turn in dialogue.turns)
        spiece = train_sentencepiece(texts, config.tokenizer)
        tokenizer = from_sentencepiece(spiece)
        if len(tokenizer) < config.tokenizer.vocab_size:
            report(
                Notice(
                    f"tokenizer.vocab_size is {config.tokenizer.vocab_size}, but the training text gives only "
                    f"{len(tokenizer)} pieces"
                )
            )
    template = make_template(config.dialogue.template, tokenizer)
    if template.name != config.dialogue.template:
        report(Notice(f"dialogue.template: auto is {template.name} here"))
    new = add_special_tokens(tokenizer, template.special_tokens)
    if tokenizer.eos_token is None:
        tokenizer.eos_token = template.stop_tokens[-1]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    encoder = DialogueEncoder(tokenizer, template, max_length=config.dialogue.max_length)
    return PreparedText(encoder, spiece, len(new))


def encode_files(
    paths: Sequence[str],
    config: RunConfig,
    encoder: DialogueEncoder,
    report: Report,
    *,
    stage: str,
    max_dialogues: int | None = None,
) -> TokenStore:
    """Encode every dialogue of the files, or the first ``max_dialogues``; a window without a target is left out.

    Raises DataError where a dialogue has nothing to learn, where a turn is longer than a window, and ModelError where
    transformers would render the first dialogues otherwise than training does.
    """
    dialogues = islice(read_dialogues(paths, config.data), max_dialogues)
    return TokenStore.build(_encode(dialogues, config, encoder, report, stage))


def _encode(
    dialogues: Iterable[Dialogue], config: RunConfig, encoder: DialogueEncoder, report: Report, stage: str
) -> Iterator[list[Example]]:
    learns_from_users = config.dialogue.train_on == "all" or config.dialogue.user_turns_until > 0
    kinds = [ASSISTANT_TARGET, USER_TARGET] if learns_from_users else [ASSISTANT_TARGET]
    without_target: list[str] = []
    done = 0
    stream = iter(dialogues)
    while chunk := list(islice(stream, _CHUNK)):
        if done == 0:
            for dialogue in chunk[:_PARITY_DIALOGUES]:
                encoder.require_parity(dialogue.turns)
        for dialogue, windows in zip(chunk, encoder.encode(chunk, config.dialogue.train_on), strict=True):
            if not has_target(dialogue.turns, config.dialogue.train_on):
                without_target.append(dialogue.where)
            yield [window for window in windows if np.isin(window.targets, kinds).any()]
        done += len(chunk)
        report(Progress(stage, done))
    if done == 0:
        raise DataError("there is not one dialogue in the data")
    if without_target:
        some = ", ".join(without_target[:5]) + (" …" if len(without_target) > 5 else "")
        raise DataError(
            f"{len(without_target)} {'dialogue has' if len(without_target) == 1 else 'dialogues have'} nothing to "
            f"learn: no {'turn' if config.dialogue.train_on == 'all' else 'assistant turn'} is a target ({some})",
            hint="remove these lines (`convo validate-data` lists them), or tell who the assistant is: data.speakers, "
            "data.first_speaker",
        )
