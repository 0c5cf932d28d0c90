"""Sections of the model card about the run's settings, its scores and the health of its replies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from convo_cli.export.card.card_facts import CardFacts
from convo_cli.export.card.markdown import as_code, as_markdown, bullets, table
from convo_cli.report.page_tables import Table, config_table, nearest_preset
from convo_cli.report.reading.run_log import Evaluation
from convo_cli.report.scores import score_table
from convo_cli.report.shown import number
from convo_cli.wording import counted

_PUBLIC = ("model.scratch.", "model.lora.", "tokenizer.", "dialogue.", "training.", "generation.",
           "evaluation.metric", "seed", "deterministic")  # fmt: skip
"""Sections of the config that cannot hold a path, a name of a person, or a key of the data."""
_PRIVATE = ("dialogue.template_options",)
_SENTENCE = 500  # characters of a message
_MAX_CAUTIONS = 8


def training_settings(facts: CardFacts) -> str:
    """Return the section's text; empty if the run's config is not known."""
    config = facts.config
    if config is None or facts.info is None:
        return ""
    training, lines = config.training, []
    if facts.log is not None and facts.log.steps:
        seen = [f"{facts.log.tokens_seen:,} tokens"] if facts.log.tokens_seen else []
        seen += [f"{facts.log.epochs:.3g} epochs"] if facts.log.epochs else []
        lines.append(f"{counted(facts.log.steps[-1], 'step')} ({', '.join(seen)}).")
    batch = (
        f"{training.batch_tokens:,} tokens" if training.batch_tokens else f"{training.batch_size:,}"
    )
    lines.append(
        f"AdamW, learning rate {training.learning_rate:g} ({training.schedule}, "
        f"{counted(training.warmup_steps, 'step')} of warm-up), weight decay "
        f"{training.weight_decay:g}; a step has {batch}"
        f"{'' if training.batch_tokens else ' examples'}."
    )
    lines.append(f"Precision {facts.info.execution.precision}; seed {config.seed}.")
    if (lora := config.model.lora) is not None:
        lines.append(f"LoRA of rank {lora.rank}, alpha {lora.alpha}, dropout {lora.dropout:g}.")
    return "\n\n".join([bullets(lines), *_differences(facts)])


def _differences(facts: CardFacts) -> Iterator[str]:
    config = facts.config
    assert config is not None, "checked before"
    rows = [
        (as_code(key), as_markdown(own), as_markdown(preset))
        for key, own, _, preset in (map(str, row) for row in config_table(config).rows if row[1])
        if key.startswith(_PUBLIC) and not key.startswith(_PRIVATE) and own != preset
    ]
    name = as_code(nearest_preset(config))
    if rows:
        yield f"Settings that differ from the preset {name}, the most similar one:"
        yield table(("key", "this run", "preset"), rows)
    else:
        yield f"All settings are those of the preset {name}."


def scores(facts: CardFacts) -> str:
    """Return the section's text; empty if these weights were not scored."""
    test, own = facts.test, facts.evaluation
    parts: list[str] = []
    if test is not None:
        as_evaluation = Evaluation(
            test.step, test.loss, test.perplexity, test.metrics, {}, test.intervals, test.floors,
            None, None, (), has_health=False,
        )  # fmt: skip
        num = test.num_targets
        replies = "1 reply" if test.num_replies == 1 else f"{test.num_replies:,} replies"
        parts.append(
            f"On the test data, {_likelihood(as_evaluation)}, over {num:,} targets and {replies}."
        )
        parts += _table(score_table(as_evaluation, ""))
        notes = [test.floors_sentence] if test.floors_sentence else []
        notes += list(test.cautions[:_MAX_CAUTIONS])
        if notes:
            parts.append(bullets(f"{as_markdown(_sentence(note), _SENTENCE)}" for note in notes))
    if own is not None and own.loss is not None:
        what = "On the validation data, which also chose the checkpoint, "
        parts.append(f"{what}{_likelihood(own)}.")
        if test is None:
            parts += _table(score_table(own, ""))
    return "\n\n".join(parts)


def _likelihood(one: Evaluation) -> str:
    loss, perplexity = number(one.loss), number(one.perplexity)
    return f"the loss is {loss} nats per target and the perplexity {perplexity}"


def _sentence(text: str) -> str:
    first = text.partition(" ")[0]
    begin = text[:1].upper() if first.isalpha() else text[:1]  # not the name of a metric
    return f"{begin}{text[1:]}{'' if text.endswith('.') else '.'}"


def _table(scored: Table | None) -> Iterator[str]:
    if scored is None:
        return
    rows = [[as_markdown(one) for one in row] for row in scored.rows]
    yield table([as_markdown(one) for one in scored.head], rows, scored.numeric)
    yield scored.note


def health(facts: CardFacts) -> str:
    """Return the section's text: how replies end, repeat themselves and copy; empty if unknown."""
    own, test = facts.evaluation, facts.test
    metrics: Mapping[str, float] = own.metrics if own else test.metrics if test else {}
    real = own.real_scores if own else {}
    lines = []
    for name, what in (
        ("stop-rate", "of the replies ended before the token limit"),
        ("repetition", "of a reply's 4-word sequences repeat an earlier one, on average"),
        ("echo", "of a reply's word pairs are in the user's last turn, on average"),
    ):
        if name in metrics:
            beside = f" (real replies: {100 * real[name]:.3g} %)" if name in real else ""
            lines.append(f"{100 * metrics[name]:.3g} % {what}{beside}.")
    if own is not None:
        if own.end_nll is not None and own.inner_nll is not None:
            lines.append(
                f"End tokens of the real replies have an nll of {number(own.end_nll)} nats, their "
                f"other tokens {number(own.inner_nll)}."
            )
        lines += [
            f"**Finding:** {as_markdown(_sentence(one), _SENTENCE)}" for _, one in own.findings
        ]
    return bullets(lines)
