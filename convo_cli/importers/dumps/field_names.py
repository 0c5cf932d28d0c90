"""Fields of a table that has one message a row, by the names that their columns have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_NO_LETTER = re.compile(r"[\W_]+")

# Names without spaces, signs and case. The first one that a table has is used.
_GROUPS = """
    conversationid convid dialogueid dialogid messagetreeid treeid chatid sessionid threadid
    episodeid caseid ticketid conversationhash conversation dialogue dialog root
"""
_SPEAKERS = """
    role speaker from sender author agent speakeridx speakerid user userid authorid participant
    speakername username name character actor who inbound isuser
"""
_TEXTS = "text utterance content message value body msg mes turntext utterancetext sentence line"
_ORDERS = """
    utteranceidx utteranceindex turnidx turnindex turnid turnnumber turnno turn messageindex
    messageidx index idx order position sequence seq lineno linenumber step
"""
_IDS = "messageid id utteranceid tweetid postid lineid"
_PARENTS = "parentid replyto replytoid inreplyto inreplytoid inresponsetotweetid parent"
_TIMES = "timestamp createddate createdat datetime date time sentat ts"


class MessageFields(NamedTuple):
    """The column of each field; an empty name if the table has none."""

    text: str
    speaker: str
    groups: tuple[str, ...] = ()
    """Columns that together name the dialogue; Ubuntu's tables number them in each folder."""
    order: str = ""
    ident: str = ""
    parent: str = ""
    time: str = ""
    rank: str = ""
    deleted: str = ""
    accepted: str = ""
    state: str = ""

    def used(self) -> list[str]:
        """Return the columns that are read."""
        names = (name for value in self for name in ((value,) if isinstance(value, str) else value))
        return [name for name in names if name]


def plain_name(column: str) -> str:
    """Return a name without spaces, signs and case: Dialogue-ID and dialogue_id are the same."""
    return _NO_LETTER.sub("", column).casefold()


def message_fields(columns: Iterable[str]) -> MessageFields | None:
    """Return the fields of a table of messages; None for a table of anything else."""
    by_name = {plain_name(column): column for column in reversed(list(columns))}

    def first(names: str) -> str:
        return next((by_name[name] for name in names.split() if name in by_name), "")

    text, speaker, group = first(_TEXTS), first(_SPEAKERS), first(_GROUPS)
    if not text or text in (speaker, group) or not (speaker or group):
        return None
    groups = tuple(filter(None, (group and first("folder"), group)))
    return MessageFields(
        text=text,
        speaker=speaker,
        groups=groups,
        order=first(_ORDERS),
        ident=first(_IDS),
        parent=first(_PARENTS),
        time=first(_TIMES),
        rank=first("rank"),
        deleted=first("deleted"),
        accepted=first("reviewresult"),
        state=first("treestate"),
    )


def is_message(row: Mapping[str, Any]) -> bool:
    """Return whether a row is one message: a text, and its speaker or the id of its dialogue."""
    fields = message_fields(row)
    if fields is None or not isinstance(row[fields.text], str):
        return False
    return not any(isinstance(row[name], list) for name in (fields.speaker, *fields.groups) if name)
