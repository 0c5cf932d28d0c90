"""Dialogues for evaluations: those that get a reply, and facts of the training data; both cached.

They are checked when they are opened.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from convo_cli import __version__
from convo_cli.data.dialogue import HEAD_ROLES, Dialogue, as_messages, tool_definitions
from convo_cli.data.held_out.references import choose_dialogues, reference_index
from convo_cli.data.held_out.training_facts import OF_THE_RUN, TrainingFacts, collect_facts
from convo_cli.errors import CheckpointError
from convo_cli.events import begin
from convo_cli.prepare.inputs import Inputs

REPLIES = "replies"
"""The cache kind of the dialogues."""
FACTS = "facts"
"""The cache kind of the facts."""
_FILE = "dialogues.json"
_FACTS_FILE = "facts.json"


def find_reply_dialogues(inputs: Inputs, data_set: str) -> tuple[Dialogue, ...]:
    """Choose `evaluation.reply_dialogues` of this data set, or open an earlier choice.

    Their ``file`` is empty, because equal data may have another path. No file is read if the number
    is 0. FileChangedError if a file changed since it was hashed.
    """
    config, cache = inputs.config, inputs.cache
    count = config.evaluation.reply_dialogues
    if not inputs.files_of(data_set) or not count:
        return ()

    def make(folder: Path) -> None:
        begin("choosing dialogues for replies", inputs.emit)
        with inputs.read(data_set) as dialogues:
            chosen = choose_dialogues(dialogues, count, config.seed)
        (folder / _FILE).write_bytes(msgspec.json.encode([replace(one, file="") for one in chosen]))

    def open_(folder: Path) -> tuple[Dialogue, ...]:
        with open(folder / _FILE, "rb", opener=cache.opener) as file:
            return _read(file.read(), folder, count)

    key = {
        **inputs.reading(data_set),
        "packages": {"convo": __version__},
        "count": count,
        "seed": config.seed,
    }
    return cache.get(REPLIES, key, make, open_)[0]


def find_training_facts(inputs: Inputs) -> TrainingFacts:
    """Read the training data once for its facts, or open those of an earlier pass.

    Without validation and test data, nothing is compared with them, and no file is read.
    """
    if not inputs.files_of("validation") and not inputs.files_of("test"):
        return TrainingFacts()

    def make(folder: Path) -> None:
        begin("collecting training replies", inputs.emit)
        with inputs.read("train") as dialogues:
            facts = collect_facts(dialogues, OF_THE_RUN)
        (folder / _FACTS_FILE).write_bytes(msgspec.json.encode(facts))

    def open_(folder: Path) -> TrainingFacts:
        with open(folder / _FACTS_FILE, "rb", opener=inputs.cache.opener) as file:
            try:
                return msgspec.json.decode(file.read(), type=TrainingFacts)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise CheckpointError(f"{folder / _FACTS_FILE}: {error}") from error

    key = {**inputs.reading("train"), "packages": {"convo": __version__}}
    return inputs.cache.get(FACTS, key, make, open_)[0]


def _read(content: bytes, folder: Path, count: int) -> tuple[Dialogue, ...]:
    """Decode the dialogues; CheckpointError if convo cannot have chosen them."""
    try:
        dialogues = msgspec.json.decode(content, type=tuple[Dialogue, ...])
        for dialogue in dialogues:
            as_messages(dialogue.turns)
            tool_definitions(dialogue.turns)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder / _FILE}: {error}") from error
    if len(dialogues) > count or not all(map(_may_be_chosen, dialogues)):
        raise CheckpointError(
            f"{folder / _FILE}: more than {count:,} dialogues, or one that the reader refuses"
        )
    return dialogues


def _may_be_chosen(dialogue: Dialogue) -> bool:
    turns = dialogue.turns
    has_text = all(turn.text.strip() or turn.uses_tools for turn in turns)
    head = [turn.role for turn in turns if turn.role in HEAD_ROLES]
    is_ordered = head in (["tools"], ["system"], ["tools", "system"], []) and all(
        turn.role == role for turn, role in zip(turns, head, strict=False)
    )
    return has_text and is_ordered and reference_index(dialogue.turns) is not None
