"""Dialogues of the rows of a table or of a JSON dump, whatever file they come from.

The first row decides: a tree of replies (OASST), answers that people compared (Arena), a chosen and
a rejected answer (HH-RLHF, DPO), one message, a text with tags, or a dialogue in a shape that convo
reads from JSON Lines.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from convo_cli.data.shapes.known_keys import DIALOGUE_KEYS, REASONING_KEYS, TRAIN_KEYS
from convo_cli.data.shapes.table import shape_of
from convo_cli.errors import DataError, UsageError
from convo_cli.importers.dumps.field_names import (
    MessageFields,
    is_message,
    message_fields,
    plain_name,
)
from convo_cli.importers.dumps.message_rows import read_messages, with_roles
from convo_cli.importers.dumps.tagged_text import tagged_turns
from convo_cli.importers.messages import Counts
from convo_cli.wording import quoted

Row: TypeAlias = Mapping[str, Any]
ReadRow: TypeAlias = Callable[[Row, Counts], Any]
"""Returns the dialogue of a row; None, after it was counted, if the row has none."""

NO_SHAPE = "rows of another form"
TIED = "comparisons in which both answers are bad"
_MAX_SHOWN = 20
_NUM_TRIED = 100
"""Rows whose keys are the columns; a key may be absent from the first row."""
_TREE_FIELDS = MessageFields(
    text="text",
    speaker="role",
    groups=("message_tree_id",),
    ident="message_id",
    parent="parent_id",
    rank="rank",
    deleted="deleted",
    accepted="review_result",
    state="tree_state",
)
_KEYS = {plain_name(key): key for key in DIALOGUE_KEYS}
_OTHER_KEYS = """
    conversation_a conversation_b winner prompt response_a response_b winner_model_b
    chosen question instruction text tools
"""
_READ_KEYS = {*_OTHER_KEYS.split(), *DIALOGUE_KEYS, *TRAIN_KEYS, *REASONING_KEYS}


def read_rows(
    rows: Iterable[Any], where: str, counts: Counts, assistants: tuple[str, ...]
) -> Iterator[Any]:
    """Yield the dialogues of all rows; DataError if the first row is nothing that convo knows."""
    rows = iter(rows)
    start = list(itertools.islice(rows, _NUM_TRIED))
    if not start:
        raise DataError(f"{where}: it has no rows")
    first, rows = start[0], itertools.chain(start, rows)
    if isinstance(first, list):
        yield from rows
        return
    objects = (row for row in rows if _is_object(row, counts))
    if not isinstance(first, dict) or not is_known(first):
        raise unknown(first, where)
    if _is_tree(first):
        messages = itertools.chain.from_iterable(map(_messages_of_tree, objects, itertools.count()))
        yield from read_messages(messages, _TREE_FIELDS, where, counts, assistants)
        return
    columns = {key: None for row in start if isinstance(row, dict) for key in row}
    if _reader(first) is None and (fields := message_fields(columns)) is not None:
        yield from read_messages(objects, fields, where, counts, assistants)
        return
    for row in objects:
        read = _reader(row)
        dialogue = None if read is None else read(row, counts)
        if read is None:
            counts.left_out[NO_SHAPE] += 1
        elif dialogue is not None:
            yield with_roles(dialogue, assistants) if assistants else dialogue


def is_known(row: Row) -> bool:
    """Return whether a row is a dialogue or a message."""
    return _is_tree(row) or _reader(row) is not None or is_message(row)


def known_columns(row: Row) -> set[str]:
    """Return the columns of a known row that are read."""
    fields = message_fields(row) if _reader(row) is None else None
    return set(_READ_KEYS.intersection(row)) if fields is None else set(fields.used())


def unknown(row: Any, where: str) -> DataError:
    """Return the refusal of rows that are no dialogues; it lists their columns."""
    if not isinstance(row, dict):
        return DataError(f"{where}: its values are neither dialogues nor messages")
    shown = ", ".join(quoted(str(key)) for key in itertools.islice(row, _MAX_SHOWN))
    more = f" and {len(row) - _MAX_SHOWN:,} more" if len(row) > _MAX_SHOWN else ""
    return DataError(
        f"{where}: the columns {shown}{more} contain neither dialogues nor messages",
        hint="rename the columns to names that convo reads: question and answer, messages, or "
        "dialogue_id, speaker and text, for example with --columns question=Frage,answer=Antwort",
    )


def require_columns(given: Iterable[str], names: Collection[str], where: str) -> None:
    """Raise UsageError for a column of --columns that the table lacks."""
    if missing := next((column for column in given if column not in names), None):
        shown = ", ".join(quoted(name) for name in itertools.islice(names, _MAX_SHOWN))
        raise UsageError(
            f"--columns: {where} has no column {quoted(missing)}", hint=f"its columns: {shown}"
        )


def renamed(columns: Iterable[str]) -> dict[str, str]:
    """Return the spelling that convo reads for each column: question for Question."""
    return {column: _KEYS.get(plain_name(column), column) for column in columns}


def _reader(row: Row) -> ReadRow | None:
    if isinstance(row.get("conversation_a"), (list, str)) and "conversation_b" in row:
        return _winning_conversation
    if "response_a" in row and "response_b" in row and "prompt" in row:
        return _winning_response
    if "chosen" in row:
        return _chosen
    has_turns = any(isinstance(row.get(key), list) for key in DIALOGUE_KEYS)
    if shape_of(row) is not None and (has_turns or not is_message(row)):
        return _as_it_is
    if isinstance(row.get("text"), str) and not is_message(row):
        return _tagged
    return None


def _as_it_is(row: Row, counts: Counts) -> Any:
    return row


def _tagged(row: Row, counts: Counts) -> Any:
    turns = tagged_turns(row["text"])
    if turns is None:
        counts.left_out["texts without tags of two speakers"] += 1
        return None
    return {"messages": turns}


def _chosen(row: Row, counts: Counts) -> Any:
    """Return the prompt with the answer that people preferred."""
    chosen, prompt = row["chosen"], row.get("prompt")
    if isinstance(chosen, str) and (turns := tagged_turns(chosen)) is not None:
        return {"messages": turns}
    if isinstance(chosen, list) and any(_speaks_first(turn) for turn in chosen):
        return {"messages": chosen}
    if isinstance(chosen, list):
        before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return {"messages": [*(before if isinstance(before, list) else ()), *chosen]}
    question = prompt if prompt is not None else row.get("question", row.get("instruction"))
    return {"prompt": question, "completion": chosen}


def _speaks_first(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role", turn.get("from")) in ("user", "human")


def _winning_conversation(row: Row, counts: Counts) -> Any:
    side = _winner(row, counts)
    return None if side is None else {"messages": row[f"conversation_{side}"]}


def _winning_response(row: Row, counts: Counts) -> Any:
    side = _winner(row, counts)
    if side is None:
        return None
    questions, answers = row["prompt"], row[f"response_{side}"]
    if isinstance(questions, list) and isinstance(answers, list):
        return [text for pair in zip(questions, answers, strict=False) for text in pair]
    return {"prompt": questions, "completion": answers}


def _winner(row: Row, counts: Counts) -> str | None:
    """Return the side that won; of two good answers the first."""
    winner = str(row.get("winner") or "").casefold()
    if "bad" in winner:
        counts.left_out[TIED] += 1
        return None
    is_b = winner in ("b", "model_b", "right") or str(row.get("winner_model_b")) in ("1", "True")
    return "b" if is_b else "a"


def _is_object(row: Any, counts: Counts) -> bool:
    if not isinstance(row, dict):
        counts.left_out[NO_SHAPE] += 1
    return isinstance(row, dict)


def _is_tree(row: Row) -> bool:
    prompt = row.get("prompt")
    return isinstance(prompt, dict) and "text" in prompt


def _messages_of_tree(row: Row, tree: int) -> Iterator[Row]:
    """Yield the messages of an OASST tree, each with the id of its parent."""
    places: list[tuple[Any, int | None]] = [(row.get("prompt"), None)]
    number = 0
    while places:
        message, parent = places.pop()
        if not isinstance(message, dict):
            continue
        number += 1
        yield {
            **{key: value for key, value in message.items() if key != "replies"},
            "message_id": number,
            "parent_id": parent,
            "message_tree_id": tree,
            "tree_state": row.get("tree_state"),
        }
        replies = message.get("replies")
        if isinstance(replies, list):
            places += [(reply, number) for reply in reversed(replies)]
