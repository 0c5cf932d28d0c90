"""Replies generated from the real history of validation dialogues, scored against what was really said."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.errors import DataError
from convo_cli.events import SampleReply
from convo_cli.model.generation import Generator

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU


def choose_dialogues(dialogues: Iterable[Dialogue], count: int, seed: int) -> list[Dialogue]:
    """A fixed random choice of dialogues that have something to answer, in one pass and bounded memory."""
    chosen: list[tuple[int, Dialogue]] = []
    rng = random.Random(seed)
    candidates = (dialogue for dialogue in dialogues if _reply_index(dialogue) is not None)
    for position, dialogue in enumerate(candidates):  # reservoir sampling (Vitter 1985, algorithm R)
        if position < count:
            chosen.append((position, dialogue))
        elif (slot := rng.randrange(position + 1)) < count:
            chosen[slot] = (position, dialogue)
    return [dialogue for _, dialogue in sorted(chosen, key=lambda pair: pair[0])]


def reply_to_all(
    generator: Generator,
    dialogues: Sequence[Dialogue],
    settings: GenerationSettings,
    on_reply: Callable[[int], None] = lambda done: None,
) -> list[SampleReply]:
    """Answer the last assistant turn of each dialogue greedily, given everything said before it.

    Dialogues whose last message alone does not fit the model are left out.
    """
    greedy = settings.model_copy(update={"temperature": 0.0})
    replies = []
    for done, dialogue in enumerate(dialogues, 1):
        index = _reply_index(dialogue)
        assert index is not None, "choose_dialogues keeps only dialogues with a reply"
        history = dialogue.turns[:index]
        with suppress(DataError):
            reply = generator.reply(history, greedy)
            spoken = tuple((turn.role, turn.text) for turn in history)
            replies.append(SampleReply(spoken, dialogue.turns[index].text, reply.text, reply.stopped))
        on_reply(done)
    return replies


def score_replies(replies: Sequence[SampleReply]) -> dict[str, float]:
    """Corpus BLEU (0 to 100) and NIST of the replies alone, over words and orders up to 2 and 4.

    Words are those of sacrebleu's "intl" tokenization; kana and Chinese characters, which are written without
    spaces, count one by one.
    """
    if not replies:
        return {}
    hypotheses = [_words(reply.reply) for reply in replies]
    references = [_words(reply.reference) for reply in replies]
    return {
        "bleu-2": _bleu(2, hypotheses, references),
        "bleu-4": _bleu(4, hypotheses, references),
        "nist-2": _nist(2, hypotheses, references),
        "nist-4": _nist(4, hypotheses, references),
    }


def _bleu(order: int, hypotheses: Sequence[str], references: Sequence[str]) -> float:
    from sacrebleu.metrics.bleu import BLEU

    scorer: BLEU = BLEU(tokenize="none", max_ngram_order=order, smooth_method="exp")
    return float(scorer.corpus_score(list(hypotheses), [list(references)]).score)


def _nist(order: int, hypotheses: Sequence[str], references: Sequence[str]) -> float:
    from nltk.translate.nist_score import corpus_nist

    pairs = [(ref.split(), hyp.split()) for ref, hyp in zip(references, hypotheses, strict=True)]
    longest = max((len(hyp) for _, hyp in pairs), default=0)
    if longest == 0 or not any(ref for ref, _ in pairs):
        return 0.0
    # nltk 3.10 divides by the number of n-grams, which is 0 for an order that no reply is long enough for.
    return float(corpus_nist([[ref] for ref, _ in pairs], [hyp for _, hyp in pairs], n=min(order, longest)))


def _words(text: str) -> str:
    """Space-separated words: letters of scripts written without spaces stand alone."""
    from sacrebleu.tokenizers.tokenizer_intl import TokenizerV14International

    spaced = "".join(f" {char} " if _is_unspaced(char) else char for char in text)
    return " ".join(TokenizerV14International()(spaced).split())


def _is_unspaced(char: str) -> bool:
    code = ord(char)
    return 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF


def _reply_index(dialogue: Dialogue) -> int | None:
    """The last assistant turn that answers something and that the data does not exclude: it is the reference."""
    turns: Sequence[Turn] = dialogue.turns
    candidates = [
        k
        for k in range(1, len(turns))
        if turns[k].role == "assistant" and turns[k].is_trained and turns[k - 1].role != "system"
    ]
    return candidates[-1] if candidates else None
