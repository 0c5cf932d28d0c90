"""Conversation health: signs that a run is going wrong, found at an evaluation, with their cause.

All functions are pure. `docs/evaluation.md` lists the limits with the values of healthy and broken
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from convo_cli.evaluation.health.signs import THRESHOLDS, RunSoFar, Vitals
from convo_cli.events import HealthFinding

MOVED = 1.0
"""Sum of learning rates after which a model must know more than the frequencies of tokens.

AdamW moves a weight by about that sum at most. A sum of 1 is fifty times the standard deviation of
new weights (0.02). The usual rate reaches it in 1,000 steps, a rate a hundred times as high in 10
to 30.
"""
_LEARNED = 0.2
"""Nats by which the other targets must improve on step 0 before the end token is judged."""
_TALKING, _FLUENT = 0.8, 0.7
"""Shares of the loss of guessing below which the replies and the use of the history are judged."""
_FEW_REPLIES = 8
"""Fewest replies whose echo and repetition are judged."""
_SELDOM = 0.1
"""If more of its replies end, a finished model knows how to end one."""
_ECHO_CAUSE = (
    "Check that the training data does not hold each text twice, and that its speakers have the "
    "right roles"
)


def findings_of(vitals: Vitals, so_far: RunSoFar | None = None) -> tuple[HealthFinding, ...]:
    """Return the findings of an evaluation; without a run, only those that the scores alone show.

    Step 0 has none, because nothing has been trained yet.
    """
    step = vitals.scores.step if so_far is None else so_far.step
    if step == 0:
        return ()
    messages = {kind: judge(vitals, so_far) for kind, judge in _JUDGES.items()}
    return tuple(HealthFinding(kind, text) for kind, text in messages.items() if text is not None)


def _end_token(vitals: Vitals, so_far: RunSoFar | None) -> str | None:
    end, inner = vitals.scores.end_nll, vitals.scores.inner_nll
    if inner is None:
        return None
    stop_rate = vitals.scores.metrics.get("stop-rate")
    if _is_finished(so_far) and (
        stop_rate is None or stop_rate > _SELDOM or _has_few_replies(vitals)
    ):
        return None  # the replies in the data may be shorter than those the model was trained on
    if end is None:
        return "no real reply ends with an end token, so the model cannot be trained to stop"
    start = None if so_far is None else so_far.start
    is_unlikely, is_worse = end - inner > THRESHOLDS["end-token"].limit, False
    if start is not None and start.end_nll is not None and start.inner_nll is not None:
        # A new end token may be unlikely for long, but where it is trained on, it improves most.
        learned = start.inner_nll - inner
        is_unlikely &= learned > _LEARNED and start.end_nll - end < learned / 2
        worse = end - start.end_nll
        is_worse = learned > _LEARNED and worse > THRESHOLDS["end-token since step 0"].limit
    if not (is_unlikely or is_worse):
        return None
    before = f"other targets have {inner:.2f}"
    if is_worse and start is not None:
        before = f"at step 0 it was {start.end_nll:.2f}"
    stops = "" if stop_rate is None else f", and {stop_rate:.0%} of the replies stop by themselves"
    return (
        f"the model does not end its replies: the token that ends the real ones has an nll of "
        f"{end:.2f} ({before}){stops}. The end token is probably not trained on: check the "
        "targets with `convo validate-data --config CONFIG --show-tokens 3`"
    )


def _loss(vitals: Vitals, so_far: RunSoFar | None) -> str | None:
    if so_far is None:
        return None
    cause = "training.learning_rate is probably too high, or the targets are wrong"
    loss, frequency, start = vitals.scores.loss, so_far.frequency_loss, so_far.start
    if (
        frequency is not None
        and so_far.sum_of_rates >= MOVED
        and loss > THRESHOLDS["loss"].limit * frequency
    ):
        return (
            f"the model has learned little: its loss is {loss:.2f}, and guessing each token "
            f"by its frequency in the training data gives {frequency:.2f}; {cause}"
        )
    if (
        start is not None
        and so_far.training_loss is not None
        and loss - start.loss > THRESHOLDS["loss since step 0"].limit
        and so_far.training_loss > start.loss
    ):
        return (
            f"training makes the model worse: its loss is {loss:.2f}, and was "
            f"{start.loss:.2f} at step 0; {cause}"
        )
    return None


def _echo(vitals: Vitals, so_far: RunSoFar | None) -> str | None:
    facts = None if so_far is None else so_far.training_facts
    if facts is not None and facts.share_of_copies > THRESHOLDS["echo in the data"].limit:
        return (
            f"the model learns to repeat the user: {facts.share_of_copies:.0%} of the replies of "
            "the training data are copies of the user's turn before them. Check how the training "
            "data was made"
        )
    says = "the model repeats the user"
    # In other data than the training data, real replies may begin in ways the model never uses.
    probes = None if _is_finished(so_far) else vitals.probes
    if probes is not None and probes.echo_gain - 2 * probes.echo_error > THRESHOLDS["echo"].limit:
        return (
            f"{says}: the first token of the user's turn has an nll of {probes.echo_nll:.2f} as "
            f"the first token of the reply, and that of the real replies {probes.first_nll:.2f}. "
            f"{_ECHO_CAUSE}"
        )
    if found := _excess("echo", THRESHOLDS["echo in replies"].limit, vitals, so_far):
        return (
            f"{says}: {found[0]:.0%} of the word pairs of its replies are in the user's turn, and "
            f"{found[1]:.0%} of those of the real replies. {_ECHO_CAUSE}"
        )
    return None


def _repetition(vitals: Vitals, so_far: RunSoFar | None) -> str | None:
    found = _excess("repetition", THRESHOLDS["repetition"].limit, vitals, so_far)
    if found is None:
        return None
    return (
        f"the replies repeat themselves: {found[0]:.0%} of their 4-word sequences occurred in the "
        f"same reply before, and {found[1]:.0%} of those of the real replies. Train longer if the "
        "loss still falls; else lower training.learning_rate, and check the data for repeated text"
    )


def _history(vitals: Vitals, so_far: RunSoFar | None) -> str | None:
    probes = vitals.probes
    if probes is None or probes.num_replies < _FEW_REPLIES or not _knows(_FLUENT, vitals, so_far):
        return None
    if probes.history_gain > THRESHOLDS["history"].limit * probes.own_nll:
        return None
    return (
        "the model does not use what was said before: the real replies have an nll of "
        f"{probes.own_nll:.3f} after their own history and {probes.other_nll:.3f} after that of "
        "another dialogue. Check that the replies of the training data answer the turns before them"
    )


def _roles(vitals: Vitals, so_far: RunSoFar | None) -> str | None:
    if so_far is None or so_far.training_facts is None or so_far.validation_facts is None:
        return None
    training, validation = so_far.training_facts, so_far.validation_facts
    if not (training.num_dialogues and validation.num_dialogues):
        return None
    own, other = training.share_opened_by_assistant, validation.share_opened_by_assistant
    if abs(own - other) <= THRESHOLDS["roles"].limit:
        return None
    return (
        f"the assistant speaks first in {own:.0%} of the training dialogues and in {other:.0%} of "
        "the validation dialogues, so user and assistant are probably swapped in some of them. "
        "Check data.first_speaker and data.speakers"
    )


def _excess(
    name: str, limit: float, vitals: Vitals, so_far: RunSoFar | None
) -> tuple[float, float] | None:
    """Return a metric of the replies and of the real ones, if the first exceeds it by ``limit``."""
    own, real = vitals.scores.metrics.get(name), vitals.scores.real_scores.get(name)
    if own is None or real is None or _has_few_replies(vitals):
        return None
    end, inner = vitals.scores.end_nll, vitals.scores.inner_nll
    if end is None or inner is None or end > inner or not _knows(_TALKING, vitals, so_far):
        return None  # a reply that does not end drifts, and then repeats itself
    return (own, real) if own - real > limit else None


def _is_finished(so_far: RunSoFar | None) -> bool:
    """Return whether the model is finished, so its data may differ from its training data."""
    return so_far is not None and so_far.step is None


def _has_few_replies(vitals: Vitals) -> bool:
    return len(vitals.scores.samples) < _FEW_REPLIES


def _knows(share: float, vitals: Vitals, so_far: RunSoFar | None) -> bool:
    """Return whether the loss is below a share of that of guessing tokens by their frequency.

    Early in training, every model repeats "I am a a a" and ignores the history.
    """
    frequency = None if so_far is None else so_far.frequency_loss
    return frequency is None or vitals.scores.loss < share * frequency


_JUDGES: Mapping[str, Callable[[Vitals, RunSoFar | None], str | None]] = {
    "end-token": _end_token,
    "loss": _loss,
    "echo": _echo,
    "repetition": _repetition,
    "history": _history,
    "roles": _roles,
}
