"""README.md of an export: a card worth publishing, in which every text of others is only shown.

A fact that the exported folder and its run do not have leaves out its line. Nothing in the card
names a user, a host or a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from convo_cli import __version__
from convo_cli.export.card.base_model import Base, Licence, find_base, read_publisher_fields
from convo_cli.export.card.card_facts import CardFacts, read_facts
from convo_cli.export.card.card_metadata import front_matter
from convo_cli.export.card.data_section import trained_on, training_data
from convo_cli.export.card.markdown import as_code, as_markdown, bullets
from convo_cli.export.card.score_section import health, scores, training_settings
from convo_cli.export.card.usage_section import usage
from convo_cli.export.format import CARD_FILE, About
from convo_cli.export.proof.receipt import Compared, Receipt
from convo_cli.export.source import Source
from convo_cli.export.tokenizer_kinds import tokenizer_kind
from convo_cli.model.adapters.lora import adapter_of
from convo_cli.report.shown import number
from convo_cli.wording import counted

_CONVO = "[convo](https://pypi.org/project/convo-cli/)"


def write_card(
    folder: Path, title: str, name: str, about: About, source: Source, receipt: Receipt
) -> None:
    """Write the card of an export into its folder; ``title`` is that of the published folder."""
    facts, base = read_facts(source), find_base(source)
    is_export = source.loaded is None and facts.state is None
    stated = read_publisher_fields(source.folder) if is_export else None
    is_adapter = not about.merges
    licence = stated.licence if stated else None
    sections = (
        ("How to use it", usage(about, source)),
        ("Training data", training_data(facts)),
        ("What was trained on", trained_on(facts)),
        ("Training", training_settings(facts)),
        ("Scores", scores(facts)),
        ("Health of the replies", health(facts)),
        ("Check of this export", bullets(_check(receipt))),
        ("Limits", bullets(_limits(source, facts))),
        ("Base model", bullets(_base(base))),
        ("Licence", " ".join(_licence(base, licence))),
        ("How it was made", bullets(_making(source, facts, receipt, name))),
    )
    parts = [
        front_matter(title, about, facts, base, stated, is_adapter=is_adapter),
        f"# {as_markdown(title)}",
        _summary(base, facts, is_adapter=is_adapter),
        bullets(_model(source, receipt)),
        *(f"## {heading}\n\n{text}" for heading, text in sections if text),
    ]
    card = "\n\n".join(part.strip("\n") for part in parts) + "\n"
    (folder / CARD_FILE).write_text(card, encoding="utf-8", newline="\n")


def _summary(base: Base | None, facts: CardFacts, *, is_adapter: bool) -> str:
    what = "A LoRA adapter for multi-turn conversations" if is_adapter else (
        "A multi-turn conversation model"
    )  # fmt: skip
    if base is not None:
        which = base.markdown if base.hub_id else "a pretrained model that was a local folder"
        return f"{what}, {'for' if is_adapter else 'fine-tuned from'} {which}, with {_CONVO}."
    if facts.config is not None and facts.config.model.scratch is not None:
        return f"{what}, trained from scratch with {_CONVO}. It has no base model."
    return f"{what}, trained with {_CONVO}."


def _model(source: Source, receipt: Receipt) -> Iterator[str]:
    encoder, model = source.generator.encoder, source.generator.model
    size = sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if "lora_" not in name and "trainable_tokens" not in name
    )
    yield f"Architecture: {as_code(str(model.config.model_type))}, {size:,} parameters"
    if (adapter := adapter_of(model)) is not None:
        yield f"Adapter: LoRA of rank {adapter.config.r}, alpha {adapter.config.lora_alpha}"
    yield f"Tokenizer: {tokenizer_kind(encoder.tokenizer)}, {len(encoder.tokenizer):,} tokens"
    stop = ", ".join(map(as_code, encoder.template.stop_tokens[:5]))
    yield f"Template: {as_code(encoder.template.name)}; a reply ends with {stop}"
    yield f"Context: sequences of at most {encoder.max_length:,} tokens"
    yield f"Weights: {receipt.dtype}"


def _check(receipt: Receipt) -> Iterator[str]:
    """Yield the receipt in two lines."""
    again = "`receipt.json` has the details; `convo export FOLDER --verify` repeats the check"
    if receipt.runtime is None:
        yield f"Not checked where it was written, because its runtime was not installed. {again}."
        return
    parts = [
        _compared(receipt.hard_texts, "hard texts (convo's own, of many scripts and signs)"),
        _compared(receipt.training_texts, "texts of the training data"),
        _compared(receipt.prompts, "prompts"),
    ]
    if (replies := receipt.replies) is not None:
        equal = f"{replies.num_equal_tokens:,} of {replies.num_tokens:,} tokens of greedy replies"
        tied = f" ({counted(replies.num_ties, 'difference')} between equally likely tokens)"
        ties = tied if replies.num_ties else ""
        parts.append(f"{equal}{ties}")
    same = ", ".join(part for part in parts if part)
    by = as_code(receipt.runtime.version)
    yield f"Opened by {by}, it gave the checkpoint's tokens for {same}."
    if (found := receipt.perplexity) is not None:
        again = (
            f"Perplexity on {found.data_in_words} ({counted(found.num_targets, 'token')}): "
            f"{number(found.export, 5)}; the checkpoint's is {number(found.checkpoint, 5)}. {again}"
        )
    yield f"{again}."


def _compared(part: Compared | None, what: str) -> str:
    return "" if part is None else f"{part.num_equal:,} of {part.num:,} {what}"


def _limits(source: Source, facts: CardFacts) -> Iterator[str]:
    length = source.generator.encoder.max_length
    yield (
        f"It was trained on at most {length:,} tokens at a time. In a longer conversation, drop "
        "the oldest turns and keep the system text."
    )
    is_new = facts.config is not None and facts.config.model.scratch is not None
    yield (
        "It is meant for conversations like those of its training data, and knows no more than "
        f"that{' data' if is_new else ' and its base model'}."
    )
    if facts.test is None:
        scored = "the validation data" if facts.evaluation is not None else "no data"
        yield f"It was scored on {scored}, and on no test data."
    yield (
        "Truthfulness, safety and bias were not measured, and neither were languages that the "
        "data lack."
    )


def _base(base: Base | None) -> Iterator[str]:
    if base is None:
        return
    if base.hub_id is not None:
        yield f"{base.markdown}, on the hub"
    else:
        yield (
            "Its folder has no public name. If it is a copy of a model on the hub, the publisher "
            "adds `base_model:` to the top of this card. SHA-256 of its files:"
        )
        yield from (f"{as_code(file)}: {as_code(sha)}" for file, sha in base.first_files)
    if base.licence is not None:
        yield f"Licence, as its card names it: {base.licence.markdown}"
    else:
        yield "Licence: not known, because its card was not found, or names none"


def _licence(base: Base | None, own: Licence | None) -> Iterator[str]:
    if own is not None:
        yield f"The card of the exported folder names the licence {own.markdown}."
        return
    if base is not None and base.licence is not None and base.licence.binds_changed_versions:
        yield f"{base.licence.markdown}, because the base model's licence demands it."
        return
    yield "This model has no licence yet."
    yield (
        "Its publisher adds `license:` to the top of this card, after checking that the licences "
        "of the training data" + (" and of the base model allow it." if base else " allow it.")
    )


def _making(source: Source, facts: CardFacts, receipt: Receipt, name: str) -> Iterator[str]:
    run_id = receipt.run_id or (facts.state.run_id if facts.state else "")
    step = receipt.step if receipt.step is not None else None
    if step is None and facts.state is not None:
        step = facts.state.progress.step
    if run_id and step is not None:
        of = f", {source.loaded.title.partition('(')[2][:-1]}" if source.loaded else ""
        yield f"Checkpoint: step {step:,} of the run {as_code(run_id)}{of.rstrip(', ')}"
    if facts.info is not None:
        if (parent := facts.info.parent) is not None:
            yield f"Fork of the run {as_code(parent.run_id)} at step {parent.step:,}"
        yield f"Trained with convo {as_markdown(facts.info.convo)}"
    yield f"Exported with convo {__version__} as {as_code(name)}"
