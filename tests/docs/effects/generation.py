"""How replies are sampled, seen in `convo chat` of the run."""

from __future__ import annotations

import re

from tests.docs.effects.entry import effect
from tests.docs.effects.workshop import ONE_STEP, VALIDATION

REPLIES = "replies of `convo chat` with four seeds"


def _all_greedy(run):
    return set(run.replies) == {run.greedy_reply}


@effect(
    "generation.max_new_tokens", 3, 8, seen_in="the note of `convo chat`, samples.jsonl",
    given={**ONE_STEP, **VALIDATION, "evaluation.reply_dialogues": 2},
)  # fmt: skip
def _(three, eight):
    """A reply is cut at this number of tokens, in chat and in evaluation."""
    notes = [run.chat("--seed", 1).err.splitlines()[-1] for run in (three, eight)]
    assert notes == ["note: line 1: cut at 3 tokens", "note: line 1: cut at 8 tokens"]
    short, long = (run.samples[0]["reply"] for run in (three, eight))
    assert len(short) < len(long)
    assert long.startswith(short)


@effect("generation.temperature", 0.0, 1.0, seen_in=REPLIES, given=ONE_STEP)
def _(cold, warm):
    """At 0 every seed gives the likeliest reply; above 0 the reply depends on the seed."""
    assert _all_greedy(cold)
    assert len(set(warm.replies)) > 1


@effect("generation.top_k", 0, 1, seen_in=REPLIES, given={**ONE_STEP, "generation.top_p": 1.0})
def _(every, one):
    """Only the k likeliest tokens are sampled: 1 gives the likeliest reply."""
    assert len(set(every.replies)) > 1
    assert _all_greedy(one)


@effect("generation.top_p", 1.0, 1e-6, seen_in=REPLIES, given=ONE_STEP)
def _(every, few):
    """Only the likeliest tokens that add up to p are sampled: a tiny p leaves one token."""
    assert len(set(every.replies)) > 1
    assert _all_greedy(few)


@effect(
    "generation.min_p", 0.0, 0.999, seen_in=REPLIES, given={**ONE_STEP, "generation.top_p": 1.0}
)
def _(every, few):
    """Tokens less likely than this fraction of the likeliest are dropped: 0.999 leaves one."""
    assert len(set(every.replies)) > 1
    assert _all_greedy(few)


@effect(
    "generation.repetition_penalty", 1.0, 10.0, seen_in="the greedy reply of `convo chat`",
    given={"generation.temperature": 0.0},
)  # fmt: skip
def _(without, penalised):
    """Used tokens become less likely: a model that only repeats itself stops doing so."""
    repeats = re.compile(r"(.+?)\1+\n")
    assert repeats.fullmatch(without.chat().out)
    assert not repeats.fullmatch(penalised.chat().out)
