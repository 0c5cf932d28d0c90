"""Comparison of an export in its own runtime with the answers of its checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from convo_cli.data.dialogue import as_messages
from convo_cli.errors import CheckpointError
from convo_cli.events import Emit, Progress
from convo_cli.export.bounded.bounded_runtime import BoundedRuntime
from convo_cli.export.format import OtherReading
from convo_cli.export.proof.checkpoint_answers import Answers, Prompt, Targets, Texts
from convo_cli.export.proof.receipt import Compared, Perplexities, Replies, RuntimeVersion
from convo_cli.wording import counted, quoted

_MAX_NLL_DIFFERENCE = 0.01
"""Largest difference of the mean nll of exact weights, in nats; kernels round differently."""
_MAX_RATIO = 1.2
"""Largest perplexity of rounded weights, as a multiple of the checkpoint's."""
_LARGEST = 700.0  # the exponential function ends at 709


class DifferenceError(CheckpointError):
    """An export gives something else than its checkpoint."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an export has to repeat exactly."""

    runtime: str
    """The name of the runtime, for messages."""
    inexact: str | None
    """Why it reads some texts differently, which is then no error; None if it must not."""
    has_exact_weights: bool
    explains: Callable[[OtherReading], bool] = lambda _: True
    """Return whether a text is one of those that ``inexact`` names."""

    def allow(self, reading: OtherReading) -> bool:
        """Return whether other ids are no error."""
        return self.inexact is not None and self.explains(reading)


def compare_answers(
    runtime: BoundedRuntime, answers: Answers, rules: Rules, stage: str, emit: Emit
) -> dict[str, Any]:
    """Ask an open runtime for the answers of its checkpoint; return the fields of a receipt.

    Raises DifferenceError for the first kind of answer that differs. ``stage`` names the progress.
    """
    opened, prompts, texts = runtime.opened, answers.prompts, answers.hard_texts
    require_stop_ids(opened.stop_ids, answers.stop_ids, texts, rules)
    # First the prompts: they name a template that differs better than the texts do.
    ids = runtime.prompt_ids([as_messages(one.turns) for one in prompts])
    found: dict[str, Any] = {
        "runtime": RuntimeVersion(
            name=opened.name, version=opened.version, classes=tuple(opened.classes)
        ),
        "prompts": compare_prompts(prompts, ids, rules, answers.num_prompts_left_out),
        "hard_texts": compare_texts(
            "a hard text", texts, runtime.text_ids(texts.texts), rules, is_own=True
        ),
    }
    replies = list[list[int]]()
    for number, one in enumerate(prompts):
        emit(Progress(stage, number, len(prompts), "dialogues"))
        replies += runtime.greedy([one.ids], answers.num_tokens)
    emit(Progress(stage, len(prompts), len(prompts), "dialogues"))
    return {**found, "replies": compare_replies(prompts, replies, rules)}


def compare_texts(
    what: str, texts: Texts, found: Sequence[Sequence[int]], rules: Rules, *, is_own: bool
) -> Compared:
    """Compare ids of texts; only a text of convo's own (``is_own``) is quoted."""
    differences, faults = list[str](), list[str]()
    for name, text, ids, wanted in zip(texts.names, texts.texts, found, texts.ids, strict=True):
        if list(ids) != list(wanted):
            quotation = f" {quoted(text)}" if is_own else ""
            differences.append(_difference(f"{what} ({name}){quotation}", ids, wanted))
            if not rules.allow(OtherReading([text], False, ids, wanted)):
                faults.append(differences[-1])
    if faults:
        raise DifferenceError(f"in {rules.runtime}, {faults[0]}{_others(len(faults))}")
    num = len(texts.ids)
    return Compared(
        num=num,
        num_equal=num - len(differences),
        num_left_out=texts.num_left_out,
        first_difference=differences[0] if differences else None,
    )


def compare_prompts(
    prompts: Sequence[Prompt], found: Sequence[Sequence[int] | str], rules: Rules, num_left_out: int
) -> Compared:
    """Compare ids of rendered prompts; a refusal by the runtime's template engine is an error."""
    differences, faults = list[str](), list[str]()
    for prompt, ids in zip(prompts, found, strict=True):
        what = f"the prompt of {_named(prompt)}"
        if isinstance(ids, str):
            raise DifferenceError(f"in {rules.runtime}, {what} is refused ({ids})")
        if list(ids) != list(prompt.ids):
            differences.append(_difference(what, ids, prompt.ids))
            texts = [turn.text for turn in prompt.turns]
            if not rules.allow(OtherReading(texts, True, ids, prompt.ids)):
                faults.append(differences[-1])
    if faults:
        raise DifferenceError(f"in {rules.runtime}, {faults[0]}{_others(len(faults))}")
    return Compared(
        num=len(prompts),
        num_equal=len(prompts) - len(differences),
        num_left_out=num_left_out,
        first_difference=differences[0] if differences else None,
    )


def compare_replies(
    prompts: Sequence[Prompt], found: Sequence[Sequence[int]], rules: Rules
) -> Replies:
    """Compare greedy replies up to the first difference of each; a tie is not a difference."""
    differences, num_equal, num_ties = list[str](), 0, 0
    for prompt, ids in zip(prompts, found, strict=True):
        place = _first(ids, prompt.reply)
        if place is None:
            num_equal += len(prompt.reply)
            continue
        num_equal += place
        if place in prompt.ties:
            num_ties += 1
        else:
            differences.append(_difference(f"the reply to {_named(prompt)}", ids, prompt.reply))
    if differences and rules.has_exact_weights:
        raise DifferenceError(f"in {rules.runtime}, {differences[0]}{_others(len(differences))}")
    return Replies(
        num=len(prompts),
        num_tokens=sum(len(prompt.reply) for prompt in prompts),
        num_equal_tokens=num_equal,
        num_ties=num_ties,
        first_difference=differences[0] if differences else None,
    )


def compare_perplexities(
    targets: Targets, found: Sequence[Sequence[float]], rules: Rules
) -> Perplexities:
    """Compare the perplexities of the same targets."""
    theirs = [value for one in found for value in one]
    ours, exported = _mean(targets.nll), _mean(theirs)
    result = Perplexities(
        data=targets.data,
        num_targets=len(theirs),
        checkpoint=math.exp(min(ours, _LARGEST)),
        export=math.exp(min(exported, _LARGEST)),
    )
    limit = _MAX_NLL_DIFFERENCE if rules.has_exact_weights else math.log(_MAX_RATIO)
    if not exported - ours <= limit or (rules.has_exact_weights and ours - exported > limit):
        raise DifferenceError(
            f"in {rules.runtime}, the perplexity of {counted(len(theirs), 'target')} is "
            f"{result.export:.4g} instead of {result.checkpoint:.4g}",
            hint=None
            if rules.has_exact_weights
            else (
                f"this type of weights may be at most {_MAX_RATIO} times worse; choose one with "
                "more bits, such as --dtype fp32"
            ),
        )
    return result


def require_stop_ids(
    found: Sequence[int], wanted: Sequence[int], texts: Texts, rules: Rules
) -> None:
    """Raise DifferenceError if the runtime does not end a reply where the checkpoint does.

    It may know more tokens that end a reply, by their names, but not those of ordinary texts.
    """
    if missing := sorted({*wanted} - {*found}):
        raise DifferenceError(
            f"in {rules.runtime}, a reply ends with ids {sorted(found)[:8]}, but not with "
            f"{missing}, which ends those of the checkpoint"
        )
    of_texts = {one for ids in texts.ids for one in ids}
    if wrong := sorted(({*found} - {*wanted}) & of_texts):
        raise DifferenceError(
            f"in {rules.runtime}, a reply also ends with id {wrong[0]}, which is a piece of text"
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _first(ids: Sequence[int], wanted: Sequence[int]) -> int | None:
    """Return the first position, from 0, at which two lists differ."""
    pairs = enumerate(zip_longest(ids, wanted))
    return next((place for place, (one, other) in pairs if one != other), None)


def _difference(what: str, ids: Sequence[int], wanted: Sequence[int]) -> str:
    place = _first(ids, wanted)
    assert place is not None, "they differ"
    one, other = (
        f"id {each[place]}" if place < len(each) else "no token" for each in (ids, wanted)
    )
    return f"{what} differs at token {place + 1}: {one} instead of {other}"


def _named(prompt: Prompt) -> str:
    return f"{prompt.name} ({quoted(prompt.turns[-1].text)})" if prompt.is_own else prompt.name


def _others(number: int) -> str:
    return f" (and {number - 1:,} more)" if number > 1 else ""
