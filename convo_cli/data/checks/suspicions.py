"""Warnings about one dialogue: texts and turns that are valid, but probably a mistake."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, compress, islice, pairwise
from operator import eq

from convo_cli.data.checks.suspicious_text import SUSPICIOUS_TEXTS, spot_places, suspicious_spots
from convo_cli.data.dialogue import SEPARATOR
from convo_cli.data.problems import Problem
from convo_cli.data.shapes.collector import LocatedTurn
from convo_cli.data.shapes.reasoning import has_tag
from convo_cli.data.shapes.speakers import NAMES_IN_PAIRS
from convo_cli.wording import quoted

LONG_UTTERANCE_BYTES = 100_000
LONG_DIALOGUE_TURNS = 1_000
LONG_REPEAT_CHARACTERS = 40
"""People do say "How do you do?" twice in a row; a longer repeat is a copy."""

_HEADING_NAMES = """
    act acts conversation_id dialog_act dialog_id dialogue_act dialogue_id emotion emotions from id
    index intent label labels role source speaker speaker_id target timestamp turn turn_id user_id
    assistant bot human system user answer completion content context conversation conversations
    dialog dialogue input instruction message messages output prompt question response sentence text
    turns utterance utterances value chat contents data query
"""
HEADINGS = frozenset(
    form(name) for name in _HEADING_NAMES.split() for form in (str.lower, str.capitalize, str.upper)
)
"""Names of the columns of a table."""
_WHOLE_TEXTS = HEADINGS | SUSPICIOUS_TEXTS | NAMES_IN_PAIRS

_NUMBER = re.compile(r"[-+]?[0-9]+(?:[.,][0-9]+)?")
# A comma is also a separator: "1,5" is one number or two. Repeats take 380 bytes of memory each.
_NUMBERS = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[ \t,;|]+[-+]?[0-9]+(?:\.[0-9]+)?){0,999}")
_LETTER = re.compile("[A-Z]: ")
_NUMBERS_OR_LETTER = re.compile(rf"\0(?:{_NUMBERS.pattern}(?=\0)|{_LETTER.pattern})")
_BETWEEN_LABELS = re.compile(r"[ \t,;|]+")
_BETWEEN_ROWS = re.compile(r"[\t,;|]+")
_LABEL = re.compile("[0-9]")


def suspicious_places(texts: str, characters: str) -> Iterator[int]:
    """Yield a place in every text in which `suspect_turns` may find something, in any order.

    ``texts`` are the texts of any number of dialogues, joined by NULs. ``characters`` holds their
    characters beyond ASCII for which `may_be_suspicious` is true. Problems of size are not found:
    dialogues with one turn or more than `LONG_DIALOGUE_TURNS`, and texts with more than
    `LONG_UTTERANCE_BYTES`.
    """
    each = texts.split(SEPARATOR)
    repeated = compress(each, map(eq, each, islice(each, 1, None)))
    has_repeat = any(len(text) >= LONG_REPEAT_CHARACTERS for text in repeated)
    if has_repeat or not _WHOLE_TEXTS.isdisjoint(each):
        place, before = 0, ""
        for text in each:
            if text in _WHOLE_TEXTS or (text == before and len(text) >= LONG_REPEAT_CHARACTERS):
                yield place
            place, before = place + len(text) + 1, text
    # A match begins at the NUL before a text; with the NUL in front, that is the index of the text.
    yield from (match.start() for match in _NUMBERS_OR_LETTER.finditer(f"\0{texts}\0"))
    yield from spot_places(texts, characters)


def doubtful_texts(texts: Sequence[str], together: str, characters: str) -> set[int]:
    """Return the indices of the dialogues that hold reasoning or may be suspicious.

    Each is its joined texts; ``together`` are all of them. See `suspicious_places` for the rest.
    """
    ends = list(accumulate(len(text) + 1 for text in texts))
    doubtful = {bisect_right(ends, place) for place in suspicious_places(together, characters)}
    # Some texts look suspicious only beside the previous dialogue: search each one alone.
    doubtful = {
        index
        for index in doubtful
        if next(suspicious_places(texts[index], characters), None) is not None
    }
    if has_tag(together):
        doubtful.update(index for index, text in enumerate(texts) if has_tag(text))
    return doubtful


def suspect_turns(turns: Sequence[LocatedTurn]) -> Iterator[Problem]:
    """Yield everything suspicious in a dialogue: first in each text, then in the whole."""
    # The definitions, calls and results of tools are JSON and output of programs.
    turns = [(path, turn) for path, turn in turns if not turn.uses_tools]
    for path, turn in turns:
        may_be_long = len(turn.text) * 4 > LONG_UTTERANCE_BYTES
        if may_be_long and (size := len(turn.text.encode())) > LONG_UTTERANCE_BYTES:
            yield Problem("long-utterance", f"the text is {size // 1000:,} kB long", path)
    spoken = [(path, turn.text) for path, turn in turns if turn.role != "system"]
    texts = SEPARATOR.join([turn.text for _, turn in turns])
    if next(suspicious_places(texts, texts), None) is not None:
        for path, turn in turns:
            for code, message in suspicious_spots(turn.text):
                yield Problem(code, message, path)
        yield from _suspect_dialogue(spoken)
    if len(spoken) < 2:
        yield Problem("one-turn", "the dialogue has no reply")
    if len(turns) > LONG_DIALOGUE_TURNS:
        yield Problem("long-dialogue", f"the dialogue has {len(turns):,} turns")


def _suspect_dialogue(spoken: Sequence[tuple[str, str]]) -> Iterator[Problem]:
    texts = [text for _, text in spoken]
    if texts and HEADINGS.issuperset(texts):
        message = f"the texts are the column names of a table, such as {quoted(texts[0])}"
        yield Problem("label-row", message)
    elif texts and all(map(_NUMBERS.fullmatch, texts)):
        if not _is_counting(texts):
            yield Problem("label-row", "the dialogue contains only numbers")
    else:
        # Only the first and the last turn: in the middle, numbers may be an answer.
        for path, text in [*spoken[:1], *spoken[1:][-1:]]:
            if _is_row_of(len(texts) - 1, text):
                message = "the text is a row of labels, one for each other turn"
                yield Problem("label-row", message, path)
    if all(map(_LETTER.match, texts)) and len({text[0] for text in texts}) > 1:
        message = f"every text begins with the name of a speaker, such as {quoted(texts[0][:2])}"
        yield Problem("speaker-prefix", message)
    for (_, before), (path, text) in pairwise(spoken):
        if before == text and len(text) >= LONG_REPEAT_CHARACTERS:
            yield Problem("repeated-turn", "the text is the same as in the turn before", path)


def _is_row_of(number: int, text: str) -> bool:
    """Return whether the text is a row of labels of ``number`` turns, such as dialogue acts.

    Several rows are one text if each has one label for each turn, or one for the dialogue.
    """
    rows = [row.split() for row in _BETWEEN_ROWS.split(text)]
    widths = {len(row) for row in rows}
    if len(rows) > 1 and number > 1 and widths in ({number}, {1, number}):
        return all(_LABEL.fullmatch(label) for row in rows for label in row)
    labels = _BETWEEN_LABELS.split(text)
    is_row = len(labels) == number > 1 and all(map(_LABEL.fullmatch, labels))
    return is_row and not _is_counting(labels)


def _is_counting(texts: Sequence[str]) -> bool:
    """Return whether the texts count with a step of 1, or with a constant step: 10, 8, 6."""
    if not all(map(_NUMBER.fullmatch, texts)):
        return False
    numbers = [float(text.replace(",", ".")) for text in texts]
    steps = {after - before for before, after in pairwise(numbers)}
    return len(steps) == 1 and (
        not steps.isdisjoint({1.0, -1.0}) or (len(texts) > 2 and steps != {0.0})
    )
