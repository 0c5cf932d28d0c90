"""Sections of the model card about the training data, and about what was trained on.

A data file is named by its hash alone: its name and its path may tell whose data it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from convo_cli.data.checks.report import FileReport
from convo_cli.export.card.card_facts import CardFacts, DataSet
from convo_cli.export.card.markdown import as_code, as_markdown, bullets, table
from convo_cli.prepare.preflight import SET_NAMES
from convo_cli.report.reading.run_log import number_of
from convo_cli.wording import counted

_MAX_FILES = 40
_LEAST_SHARE = 0.001
_TURNS = {
    "assistant": "the assistant's turns, each with its end token",
    "all": "the turns of user and assistant, each with its end token",
    "last": "the last assistant turn of each dialogue, with its end token",
}


def training_data(facts: CardFacts) -> str:
    """Return the section's text; empty if nothing is known."""
    if not facts.data:
        return ""
    files = [
        (_label(one, index), one.reports[index] if one.reports else None, file)
        for one in facts.data
        for index, file in enumerate(one.files)
    ]
    parts, has_reports = [], any(report for _, report, _ in files)
    if files:
        head = ["data", *(("dialogues", "turns", "repeated") if has_reports else ("lines",))]
        rows = [
            [label, *_counts_of(report, file.num_lines, has_reports), as_code(file.sha256)]
            for label, report, file in files[:_MAX_FILES]
        ]
        parts.append(table([*head, "SHA-256 of the file"], rows, range(1, len(head))))
        if (more := len(files) - _MAX_FILES) > 0:
            parts.append(f"{counted(more, 'more file')} of the run are not listed.")
    lines = [*_about_training(facts), *_about_shared(facts)]
    return "\n\n".join([*parts, *([bullets(lines)] if lines else [])])


def _label(one: DataSet, index: int) -> str:
    name = SET_NAMES[one.name]
    return f"{name} {index + 1}" if len(one.files) > 1 else name


def _counts_of(report: FileReport | None, num_lines: int, has_reports: bool) -> list[str]:
    if not has_reports:
        return [f"{num_lines:,}" if num_lines else "–"]
    if report is None:
        return ["–", "–", "–"]
    return [f"{n:,}" for n in (report.num_dialogues, report.num_turns, report.num_duplicates)]


def _about_training(facts: CardFacts) -> Iterator[str]:
    train = facts.data_set("train")
    if train is None:
        return
    if train.reports:
        roles: Counter[str] = Counter()
        for report in train.reports:
            roles.update(report.num_turns_by_role)
        spoken = [f"{count:,} of the {as_markdown(role)}" for role, count in roles.items() if count]
        yield f"Turns of the training data: {', '.join(spoken)}."
        if shares := scripts(train.reports):
            named = [
                f"{as_markdown(name)} {100 * share:.3g} %"
                for name, share in shares.items()
                if share >= _LEAST_SHARE
            ]
            yield f"Writing systems, by their share of the letters: {', '.join(named[:10])}."
    num = _whole(train.counts, "num_dialogues")
    if num:
        different = ""
        if facts.num_different is not None and facts.num_different < num:
            different = f", {facts.num_different:,} of them different"
        yield f"Trained on {counted(num, 'dialogue')}{different}."
    if held_back := _whole(train.counts, "num_held_back"):
        yield f"{counted(held_back, 'dialogue')} of its files were held back for validation."
    if left_out := _whole(train.counts, "num_left_out"):
        yield f"{counted(left_out, 'dialogue')} with a turn longer than a window were left out."


def _about_shared(facts: CardFacts) -> Iterator[str]:
    """Name dialogues that two data sets share; the scores of such data look better."""
    later = [one for one in facts.data if one.name != "train" and one.files]
    if facts.shared is None or not later:
        return
    for one in facts.shared:
        asked = facts.data_set(one.later)
        num = sum(report.num_dialogues for report in asked.reports) if asked else 0
        yield (
            f"**Leak:** {one.num_dialogues:,} of {num:,} {SET_NAMES[one.later]} dialogues are also "
            f"in the {SET_NAMES[one.earlier]} data, so scores on them look better than they are."
        )
    if not facts.shared:
        names = " or ".join(SET_NAMES[one.name] for one in later)
        yield f"No {names} dialogue is also in the training data."


def trained_on(facts: CardFacts) -> str:
    """Return the section's text; empty if the run's config is not known."""
    config, train = facts.config, facts.data_set("train")
    if config is None:
        return ""
    dialogue = config.dialogue
    lines = [f"Targets (the tokens that enter the loss): {_TURNS[dialogue.train_on]}."]
    if (share := dialogue.user_turns_until) > 0 and dialogue.train_on != "all":
        until = "the whole run" if share >= 1 else f"the first {100 * share:.3g} % of the run"
        lines.append(f"User turns are targets, too, for {until}.")
    counts = {} if train is None else train.counts
    tokens = _whole(counts, "num_dialogue_tokens")
    by_role = counts.get("num_targets_by_role")
    if tokens and isinstance(by_role, Mapping):
        targets = sum(int(number_of(value) or 0) for value in by_role.values())
        lines.append(
            f"{targets:,} of {tokens:,} tokens are targets ({100 * targets / tokens:.3g} %)."
        )
    if over := _whole(counts, "num_over_length"):
        lines.append(
            f"{counted(over, 'dialogue')} longer than {dialogue.max_length:,} tokens became "
            "windows of whole turns: each target is trained on once, with as much context as fits."
        )
    if split := _whole(counts, "num_split"):
        lines.append(f"{counted(split, 'dialogue')} had a turn that was cut to fit a window.")
    return bullets(lines)


def scripts(reports: Sequence[FileReport]) -> dict[str, float]:
    """Return the share of each writing system in the letters of several files, largest first."""
    total = sum(report.num_characters for report in reports)
    shares: Counter[str] = Counter()
    for report in reports:
        for name, share in report.scripts.items():
            shares[name] += share * report.num_characters / max(1, total)  # type: ignore[assignment]
    return dict(shares.most_common())


def _whole(counts: Mapping[str, Any], key: str) -> int:
    return int(number_of(counts.get(key)) or 0)
