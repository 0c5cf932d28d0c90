"""Kinds of sources: `KINDS` names each, with the functions that recognise and read it.

A new kind needs a module in `chats` or `dumps` and an entry here. `recognise` looks at names and at
the beginnings of files only. `read` yields a `Conversation` for each chat, or JSON values, each of
them a dialogue in a shape that convo reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from convo_cli.errors import UsageError
from convo_cli.importers.chats import discord, irc, plain_lines, slack, telegram, whatsapp
from convo_cli.importers.dumps import tables, text_corpora
from convo_cli.importers.messages import Conversation, Counts
from convo_cli.importers.source_files import Source

Read: TypeAlias = Callable[[Source, Counts], Iterator[Conversation] | Iterator[Any]]


_PAGE = re.compile(r"\s{0,64}<(?:!doctype|html)", re.IGNORECASE)


class SourceKind(NamedTuple):
    """A kind of source. ``title`` completes "convo imports …"."""

    title: str
    recognise: Callable[[Source], bool]
    read: Read


KINDS: Mapping[str, SourceKind] = {
    "irc": SourceKind("an IRC log (<nick> text)", irc.recognise, irc.read),
    "whatsapp": SourceKind("a WhatsApp chat (.txt or .zip)", whatsapp.recognise, whatsapp.read),
    "telegram": SourceKind(
        "a Telegram export as JSON (result.json)", telegram.recognise, telegram.read
    ),
    "discord": SourceKind(
        "Discord channels by DiscordChatExporter (JSON)", discord.recognise, discord.read
    ),
    "slack": SourceKind("a Slack export (folder or .zip)", slack.recognise, slack.read),
    "lines": SourceKind(
        'JSON Lines of {"timestamp", "sender", "message"}', plain_lines.recognise, plain_lines.read
    ),
    "dailydialog": SourceKind(
        "DailyDialog's archive, or a file of it",
        text_corpora.is_dailydialog,
        text_corpora.read_dailydialog,
    ),
    "movie-dialogues": SourceKind(
        "Cornell's archive of movie dialogues",
        text_corpora.is_movie_corpus,
        text_corpora.read_movie_corpus,
    ),
    "parlai": SourceKind(
        "text in a format of ParlAI", text_corpora.is_parlai, text_corpora.read_parlai
    ),
    "parquet": SourceKind("a Parquet or Arrow table", tables.is_arrow, tables.read_arrow),
    "csv": SourceKind("a CSV or TSV table", tables.is_delimited, tables.read_delimited),
    "json": SourceKind(
        "JSON of dialogues or messages, such as ShareGPT, OASST, LMSYS and Arena dumps",
        tables.is_json,
        tables.read_json,
    ),
}
"""Every kind by its name for `--format`. A source has the first kind that recognises it."""


def _refuse_pages(source: Source) -> None:
    """Raise UsageError for the HTML form of an export."""
    pages = [name for name in source.names if name.lower().endswith((".html", ".htm"))]
    name = source.names[0] if source.is_single else next(iter(pages), None)
    if name is not None and _PAGE.match(source.head_text(name)):
        raise UsageError(
            f"{source.where}: an HTML page, which convo does not read",
            hint="export as JSON: Telegram Desktop, Export chat history, Format: machine-readable "
            "JSON; DiscordChatExporter, Format: JSON",
        )


def kind_of_source(source: Source, name: str | None) -> str:
    """Return the given name, or that of the kind that recognises the source."""
    if name is not None:
        if name not in KINDS:
            raise UsageError(f"--format {name}: unknown", hint=f"one of {', '.join(KINDS)}")
        return name
    found = next((name for name, kind in KINDS.items() if kind.recognise(source)), None)
    if found is None:
        _refuse_pages(source)
        known = "".join(f"\n      {name}: {kind.title}" for name, kind in KINDS.items())
        raise UsageError(
            f"{source.where}: not recognised as an export that convo imports",
            hint=f"if it is one of these, name it with --format:{known}",
        )
    return found
