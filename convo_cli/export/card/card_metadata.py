"""Metadata of a model card for the hub: the YAML block that huggingface_hub writes and reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from huggingface_hub import EvalResult, ModelCardData

from convo_cli.export.card.base_model import Base, PublisherFields
from convo_cli.export.card.card_facts import CardFacts
from convo_cli.export.card.data_section import scripts
from convo_cli.export.card.markdown import visible
from convo_cli.export.format import About
from convo_cli.metrics.metric_table import METRICS

_OF_ONE_LANGUAGE = {
    "Hangul": "ko", "Kana": "ja", "Thai": "th", "Greek": "el", "Georgian": "ka", "Armenian": "hy",
    "Khmer": "km", "Lao": "lo", "Tamil": "ta", "Telugu": "te", "Kannada": "kn", "Gujarati": "gu",
    "Malayalam": "ml", "Sinhala": "si",
}  # fmt: skip
"""Writing systems that tell the language; Latin or Cyrillic letters do not."""
_LEAST_SHARE = 0.2  # of the letters, below which a language is quoted rather than spoken
_HUB_METRICS = {
    "bleu-1": "bleu", "bleu-2": "bleu", "bleu-3": "bleu", "bleu-4": "bleu", "chrf": "chrf",
    "nist-2": "nist_mt", "nist-4": "nist_mt", "rouge-l": "rouge", "f1": "f1",
}  # fmt: skip
"""The hub's names of metrics; others have convo's."""


def front_matter(
    title: str,
    about: About,
    facts: CardFacts,
    base: Base | None,
    stated: PublisherFields | None,
    *,
    is_adapter: bool,
) -> str:
    """Return the block with its two lines of dashes.

    A licence stands in it only if the base's own licence demands it of changed versions, or if the
    publisher of an exported export has named one.
    """
    hub_id, relation = None, None
    if base is not None and base.hub_id is not None:
        hub_id, relation = base.hub_id, "adapter" if is_adapter else "finetune"
    elif stated is not None and stated.base_model is not None:
        hub_id, relation = stated.base_model, stated.relation
    licence = stated.licence if stated else None
    if base is not None and base.licence is not None and base.licence.binds_changed_versions:
        licence = base.licence
    if licence is not None and not licence.is_listed:
        licence = None
    results = list(_results(facts))
    data = ModelCardData(
        base_model=hub_id,
        language=[*(stated.languages if stated else ()), *_languages(facts)] or None,
        library_name=about.library,
        license=None if licence is None else licence.identifier,
        license_name=_text(licence.name if licence else None),
        license_link=_text(licence.link if licence else None),
        pipeline_tag="text-generation",
        tags=["conversational", "convo", *about.tags],
        model_name=visible(title) if results else None,
        eval_results=results or None,
        base_model_relation=relation,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _text(text: str | None) -> str | None:
    return None if text is None else visible(text, 300)


def _languages(facts: CardFacts) -> list[str]:
    train = facts.data_set("train")
    shares = scripts(train.reports) if train else {}
    return [
        _OF_ONE_LANGUAGE[name]
        for name, share in shares.items()
        if name in _OF_ONE_LANGUAGE and share >= _LEAST_SHARE
    ]


def _results(facts: CardFacts) -> Iterator[EvalResult]:
    """Yield the scores on the test data, or else on the validation data."""
    if facts.test is not None:
        name, scored = "test", facts.test
        yield from _scores_of(facts, name, scored.loss, scored.perplexity, scored.metrics)
    elif (own := facts.evaluation) is not None:
        yield from _scores_of(facts, "validation", own.loss, own.perplexity, own.metrics)


def _scores_of(
    facts: CardFacts,
    name: str,
    loss: float | None,
    perplexity: float | None,
    metrics: Mapping[str, float],
) -> Iterator[EvalResult]:
    data = facts.data_set(name)
    hashes = [file.sha256 for file in data.files] if data else []
    known = {"loss": loss, "perplexity": perplexity}
    known |= {key: metrics.get(key) for key, one in METRICS.items() if one.has_floor}
    for key, value in known.items():
        if value is not None and abs(value) < 1e300:
            yield EvalResult(
                task_type="text-generation",
                task_name="Replies in a conversation",
                dataset_type="dialogues",
                dataset_name=f"{name} data of the run",
                dataset_split=name,
                dataset_args={"sha256": hashes} if hashes else None,
                metric_type=_HUB_METRICS.get(key, key),
                metric_name=key,
                metric_value=round(float(value), 4),
            )
