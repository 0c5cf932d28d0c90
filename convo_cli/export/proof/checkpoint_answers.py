"""Answers of a checkpoint to texts, prompts and targets, which its export has to give, too.

Shapes: T tokens, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.errors import CheckpointError, DataError, ModelError
from convo_cli.export.format import TIE
from convo_cli.export.proof.hard_texts import hard_texts
from convo_cli.export.proof.probe_dialogues import PROBE_DIALOGUES, without_system
from convo_cli.export.proof.run_data import RunData
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.open import generation_defaults
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.pieces import special_tokens
from convo_cli.text.tokenizers.panics import no_panics
from convo_cli.tokens.store import ASSISTANT_TARGET, Encoded

NUM_TOKENS = 24
"""Tokens of each greedy reply."""
_NUM_TARGETS = 300
_TARGETS_OF_A_REPLY = 32
_MAX_CONTEXT = 256
"""Tokens before the targets of a reply that is scored."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts with their ids by the tokenizer of the checkpoint."""

    names: Sequence[str]
    """Names for messages, which quote no text of the data."""
    texts: Sequence[str]
    ids: Sequence[Sequence[int]]
    num_left_out: int
    """Texts that spell a special token."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A dialogue, the ids of its prompt, and the checkpoint's greedy reply."""

    name: str
    turns: Sequence[Turn]
    is_own: bool
    """Whether the dialogue is convo's own, and not of the data."""
    ids: Sequence[int]
    reply: Sequence[int]
    ties: frozenset[int]
    """Positions in the reply whose two best logits are a tie."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets with their nll by the checkpoint, in nats."""

    data: Literal["validation", "replies"]
    places: Sequence[tuple[Sequence[int], int]]
    """Ids, and the position of the first target; all later ids are targets."""
    nll: Sequence[float]


@dataclass(frozen=True, slots=True)
class Answers:
    """Ids of texts, prompts and replies."""

    hard_texts: Texts
    prompts: Sequence[Prompt]
    num_prompts_left_out: int
    num_tokens: int
    """Most tokens of a reply."""
    stop_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class CheckpointAnswers(Answers):
    """All that the receipt compares."""

    training_texts: Texts | None
    targets: Targets
    absent: dict[str, str]
    """Why a part is not compared, by the name of its field in the receipt."""


def ask_checkpoint(
    original: Generator, data: RunData, *, obeys_defaults: bool, tie: float = TIE
) -> CheckpointAnswers:
    """Return the answers of a checkpoint; CheckpointError if no test prompt fits its window.

    With ``obeys_defaults``, greedy replies obey the other generation defaults of the checkpoint,
    such as its repetition penalty. Two logits that differ by less than ``tie`` are a tie.
    """
    encoder = original.encoder
    hard = [(f"{one.group}, text {k}", one.text) for k, one in enumerate(hard_texts(), 1)]
    trained = [(f"text {k}", text) for k, text in enumerate(data.training_texts, 1)]
    num_tokens = min(NUM_TOKENS, max(1, encoder.max_length // 4))
    prompts, num_left_out = _prompts(original, data, num_tokens, obeys_defaults, tie)
    places = list(_validation_places(encoder, data.validation))
    kind: Literal["validation", "replies"] = "validation" if places else "replies"
    places = places or [([*one.ids, *one.reply], len(one.ids)) for one in prompts if one.reply]
    nll = [value for ids, start in places for value in _nll(original, ids, start)]
    return CheckpointAnswers(
        hard_texts=texts_of(encoder, hard),
        prompts=prompts,
        num_prompts_left_out=num_left_out,
        num_tokens=num_tokens,
        stop_ids=encoder.stop_ids,
        training_texts=texts_of(encoder, trained) if trained else None,
        targets=Targets(kind, places, nll),
        absent=data.absent,
    )


def texts_of(encoder: DialogueEncoder, named: Sequence[tuple[str, str]]) -> Texts:
    """Encode texts by the checkpoint's tokenizer, without those that spell a special token."""
    tokenizer: Any = encoder.tokenizer
    spelled = special_tokens(tokenizer) | set(encoder.template.written_tokens) | {"<unk>"}
    kept = [pair for pair in named if not any(token in pair[1] for token in spelled)]
    texts = [text for _, text in kept]
    with no_panics(tokenizer):
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return Texts([name for name, _ in kept], texts, ids, len(named) - len(kept))


def _prompts(
    original: Generator, data: RunData, num_tokens: int, obeys_defaults: bool, tie: float
) -> tuple[list[Prompt], int]:
    """Return the prompts that fit the window with their replies, and the number of the others."""
    named: list[tuple[str, Sequence[Turn], bool]]
    named = [(f"dialogue {k}", turns, True) for k, turns in enumerate(PROBE_DIALOGUES, 1)]
    named += [(f"dialogue {k} of the data", one, False) for k, one in enumerate(data.dialogues, 1)]
    fitting = list[tuple[str, tuple[Turn, ...], bool, list[int]]]()
    for name, turns, is_own in named:
        for form in dict.fromkeys((tuple(turns), without_system(turns))):
            ids = _prompt_ids(original.encoder, form, num_tokens, is_own=is_own)
            if ids is not None:
                fitting.append((name, form, is_own, ids))
                break
    if not any(is_own for _, _, is_own, _ in fitting):
        raise CheckpointError(
            "the export cannot be compared with its checkpoint: no test prompt fits into "
            f"{original.encoder.max_length} tokens",
            hint="train with a larger dialogue.max_length",
        )
    settings = generation_defaults(original) if obeys_defaults else GenerationSettings()
    greedy = settings.model_copy(update={"temperature": 0.0, "max_new_tokens": num_tokens})
    replies = original.replies([form for _, form, _, _ in fitting], greedy)
    prompts = list[Prompt]()
    for (name, form, is_own, ids), reply in zip(fitting, replies, strict=True):
        ties = _ties(original, ids, reply.ids, greedy.repetition_penalty, tie)
        prompts.append(Prompt(name, form, is_own, ids, reply.ids, frozenset(ties)))
    return prompts, len(named) - len(prompts)


def _prompt_ids(
    encoder: DialogueEncoder, turns: Sequence[Turn], num_tokens: int, *, is_own: bool
) -> list[int] | None:
    """Return the ids of a whole prompt; None if it does not fit or the template refuses it."""
    try:
        if not is_own:
            encoder.require_parity(turns)
            if texts_of(encoder, [("", turn.text) for turn in turns]).num_left_out:
                return None
        prompt = encoder.prompt(turns, max_new_tokens=num_tokens)
    except (DataError, ModelError):
        return None
    return None if prompt.num_dropped else list(prompt.ids)


def _validation_places(
    encoder: DialogueEncoder, dialogues: Sequence[Dialogue]
) -> Iterator[tuple[list[int], int]]:
    """Yield the ids up to a few targets of each dialogue, and where these begin."""
    num = 0
    for encoded in encoder.encode_all(dialogues, "assistant", "split"):
        if not isinstance(encoded, Encoded) or not encoded.examples or num >= _NUM_TARGETS:
            continue
        example = encoded.examples[0]
        is_target = (example.targets == ASSISTANT_TARGET).tolist()
        start = is_target.index(True) if True in is_target else 0
        if not 0 < start <= _MAX_CONTEXT:
            continue
        stop = start
        while stop < min(len(is_target), start + _TARGETS_OF_A_REPLY) and is_target[stop]:
            stop += 1
        num += stop - start
        yield example.input_ids[:stop].tolist(), start


@torch.inference_mode()
def _last_logits(original: Generator, ids: Sequence[int], num: int) -> Tensor:
    """Return the logits from which the last ``num`` of the ids are predicted, (num, V)."""
    keeps = "logits_to_keep" in signature(original.model.forward).parameters
    options = {"logits_to_keep": num + 1} if keeps else {}
    input_ids = torch.tensor([list(ids)], device=original.model.device)  # (1, T)
    with original.answering():
        logits: Tensor = original.model(input_ids=input_ids, **options).logits
    return logits[0, -num - 1 : -1].float()


def _nll(original: Generator, ids: Sequence[int], start: int) -> list[float]:
    scores = _last_logits(original, ids, len(ids) - start).log_softmax(-1)
    targets = torch.tensor(list(ids[start:]), device=scores.device)
    found: list[float] = (-scores.gather(1, targets[:, None])[:, 0]).tolist()
    return found


def _ties(
    original: Generator, prompt: Sequence[int], reply: Sequence[int], penalty: float, tie: float
) -> Iterator[int]:
    """Yield the positions of a greedy reply that rounding may decide."""
    if not reply:
        return
    logits = _last_logits(original, [*prompt, *reply], len(reply))
    for position, scores in enumerate(logits.clone()):  # an ordinary tensor, to be changed
        if penalty != 1.0:
            used = torch.tensor(sorted({*prompt, *reply[:position]}), device=scores.device)
            own = scores[used]
            scores[used] = torch.where(own < 0, own * penalty, own / penalty)
        best, second = scores.topk(2).values.tolist()
        if best - second < tie:
            yield position
