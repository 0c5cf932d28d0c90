"""Dialogue corpora in text files: ParlAI's two formats, DailyDialog and Cornell's movie lines."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import PurePosixPath
from typing import Any

from convo_cli.data.reader import MAX_LINE_BYTES
from convo_cli.errors import DataError
from convo_cli.importers.archives import Archive, Budget
from convo_cli.importers.dumps.field_names import MessageFields
from convo_cli.importers.dumps.message_rows import read_messages
from convo_cli.importers.messages import Counts
from convo_cli.importers.source_files import Source

_PARLAI = re.compile(
    r"(?:text|labels|eval_labels|episode_done):[^\t\n]*\t(?:[^\n]*\t)?(?:eval_)?labels:"
)
_NUMBERED = re.compile(r"1 (?:(?:your|partner's) persona: |[^\t\n]*\t)")
_NUMBER = re.compile(r"([0-9]{1,6}) ")
_SPLIT = re.compile(r"(?:dialogues_)?(?:train|validation|test)\.(?:txt|zip)")
_LINE_ID = re.compile(r"L[0-9]{1,9}")
_END_OF_TURN = "__eou__"
_SEPARATOR = " +++$+++ "
_MAX_INNER_BYTES = 2**26
_MOVIE_FIELDS = MessageFields("text", "speaker", ("conversation_id",))


def is_parlai(source: Source) -> bool:
    head = _head(source)
    return bool(_PARLAI.match(head) or _NUMBERED.match(head))


def read_parlai(source: Source, counts: Counts) -> Iterator[Any]:
    """Yield a dialogue for each episode; a persona becomes its system text."""
    name = source.names[0]
    with source.open_text(name) as text:
        lines = _lines(text, source.shown(name))
        is_numbered = _NUMBERED.match(_head(source)) is not None
        episode: list[dict[str, str]] = []
        persona: list[str] = []
        for line in lines:
            number = _NUMBER.match(line) if is_numbered else None
            if number is not None and number[1] == "1" and (episode or persona):
                yield from _episode(episode, persona)
                episode, persona = [], []
            said = _numbered(line[number.end() :]) if number else _labelled(line)
            question, answer, is_over = said
            if "persona: " in question and not answer:
                persona.append(question)
                continue
            episode += [
                {"role": role, "content": content}
                for role, content in (("user", question), ("assistant", answer))
                if content
            ]
            if is_over:
                yield from _episode(episode, persona)
                episode, persona = [], []
        yield from _episode(episode, persona)


def is_dailydialog(source: Source) -> bool:
    """Return whether this is DailyDialog's archive, its unpacked folder, or a file of it."""
    if source.is_single:
        return _END_OF_TURN in _head(source).partition("\n")[0]
    return bool(_daily_names(source))


def read_dailydialog(source: Source, counts: Counts) -> Iterator[Any]:
    """Yield the dialogues of all splits, or of the file or the split that was chosen."""
    for name in source.names if source.is_single else _daily_names(source):
        with ExitStack() as opened:
            if name.endswith(".zip"):
                content = opened.enter_context(source.open(name)).read(_MAX_INNER_BYTES + 1)
                if len(content) > _MAX_INNER_BYTES:
                    raise DataError(f"{source.shown(name)}: larger than {_MAX_INNER_BYTES:,} bytes")
                where = source.shown(name)
                inner = opened.enter_context(
                    closing(Archive(io.BytesIO(content), where, Budget(where)))
                )
                texts = [each for each in inner.members if _is_split(each)]
                if len(texts) != 1:
                    raise DataError(f"{where}: it holds no file of dialogues")
                stream = opened.enter_context(inner.open(texts[0]))
                text: Any = io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
            else:
                text = opened.enter_context(source.open_text(name))
            for line in _lines(text, source.shown(name)):
                turns = [turn.strip() for turn in line.split(_END_OF_TURN) if turn.strip()]
                if turns:
                    yield turns


def is_movie_corpus(source: Source) -> bool:
    """Return whether this holds both files of Cornell's movie dialogues."""
    return not source.is_single and len(_movie_names(source)) == 2


def read_movie_corpus(source: Source, counts: Counts) -> Iterator[Any]:
    """Yield the conversations; the first speaker of each is the user."""
    conversations, spoken = _movie_names(source)
    lines: dict[str, tuple[str, str]] = {}
    for parts in _movie_records(source, spoken):
        if len(parts) == 5:
            lines[parts[0]] = (parts[1], parts[4])
    rows = (
        {"conversation_id": number, "speaker": lines[ident][0], "text": lines[ident][1]}
        for number, parts in enumerate(_movie_records(source, conversations))
        for ident in _LINE_ID.findall(parts[-1])
        if ident in lines
    )
    yield from read_messages(rows, _MOVIE_FIELDS, source.where, counts, ())


def _head(source: Source) -> str:
    return source.head_text(source.names[0]) if source.is_single else ""


def _lines(text: io.TextIOWrapper, where: str) -> Iterator[str]:
    """Yield the lines that are not blank; DataError for a line that is too long or no text."""
    try:
        for number in itertools.count(1):
            line = text.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            if len(line) > MAX_LINE_BYTES:
                size = f"{MAX_LINE_BYTES // 2**20} MiB"
                raise DataError(f"{where}: line {number} is longer than {size}")
            if line.strip():
                yield line.rstrip("\r\n")
    except UnicodeError:
        raise DataError(
            f"{where}: the text is not UTF-8",
            hint="convert it from its encoding, such as Windows-1252: "
            "iconv -f WINDOWS-1252 -t UTF-8 in.txt > out.txt",
        ) from None


def _labelled(line: str) -> tuple[str, str, bool]:
    """Return text, first label and end of the episode of a line of ParlAI's format."""
    fields: dict[str, str] = {}
    for part in line.split("\t"):
        key, _, value = part.partition(":")
        fields[key] = value.replace("\\n", "\n")
    label = fields.get("labels", fields.get("eval_labels", ""))
    is_over = fields.get("episode_done", "").strip() == "True"
    return fields.get("text", ""), label.partition("|")[0], is_over


def _numbered(line: str) -> tuple[str, str, bool]:
    """Return text and first label of a line of the older format, after its number."""
    question, _, rest = line.partition("\t")
    answer = rest.partition("\t")[0]
    return question.replace("\\n", "\n"), answer.partition("|")[0].replace("\\n", "\n"), False


def _episode(turns: list[dict[str, str]], persona: list[str]) -> Iterable[Any]:
    system = [{"role": "system", "content": "\n".join(persona)}] if persona else []
    return [{"messages": [*system, *turns]}] if turns else []


def _daily_names(source: Source) -> list[str]:
    """Return the file of all dialogues, else those of the splits."""
    whole = [name for name in source.names if PurePosixPath(name).name == "dialogues_text.txt"]
    return whole[:1] or [name for name in source.names if _is_split(name)]


def _is_split(name: str) -> bool:
    return _SPLIT.fullmatch(PurePosixPath(name).name) is not None


def _movie_names(source: Source) -> list[str]:
    wanted = ("movie_conversations.txt", "movie_lines.txt")
    return [name for name in source.names if PurePosixPath(name).name in wanted]


def _movie_records(source: Source, name: str) -> Iterator[list[str]]:
    with source.open(name) as stream:
        text = io.TextIOWrapper(stream, encoding="windows-1252", errors="replace", newline="\n")
        for line in _lines(text, source.shown(name)):
            yield line.split(_SEPARATOR)
