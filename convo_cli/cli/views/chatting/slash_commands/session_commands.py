"""The commands /save and /load of a chat."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.chat.saved_sessions import recent_sessions, reopen
from convo_cli.chat.session_folder import write_session
from convo_cli.cli.views.chatting.banner import shown_path
from convo_cli.cli.views.chatting.slash_commands.actions import one_of, split
from convo_cli.errors import DataError, DiskError
from convo_cli.storage.atomic import disk_errors
from convo_cli.storage.files import require_regular
from convo_cli.wording import counted

if TYPE_CHECKING:
    from convo_cli.cli.views.chatting.chat_loop import Chat, Talker


def save(chat: Chat, text: str) -> None:
    """Write the conversation to a file, or show the file in which it is saved anyway."""
    talkers, rest = split(chat, text)
    talker = one_of(talkers)
    if not talker.session.exchanges:
        raise DataError("there is nothing to save", hint="send a message first")
    if not rest:
        path = talker.file.path
        if warning := talker.file.save(talker.session, warns_again=True):
            chat.screen.tell(f"warning: {warning}")
        elif path is not None:
            chat.screen.note(f"saved in {shown_path(path)}, as after each reply")
        return
    path = _path(rest)
    try:
        with disk_errors(path):
            require_regular(path)
            exists = path.exists()
        if exists and not _may_replace(chat, path):
            chat.screen.note("nothing was written")
            return
        write_session(path, talker.session)
    except DiskError as error:
        raise DiskError(error.message, hint="choose another file: /save FILE") from None
    chat.screen.note(f"wrote {shown_path(path)}: one line of training data")


def load(chat: Chat, text: str) -> None:
    """Continue a saved conversation; by default the last one before this."""
    talkers, rest = split(chat, text)
    talker = one_of(talkers)
    path = _path(rest) if rest else _last_but(talker)
    if talker.file.is_at(path):
        raise DataError(f"{shown_path(path)}: this session is already open")
    chat.save()
    session, file, note = reopen(path, talker.session.generator)
    talker.file.close()
    talker.session, talker.file = session, file
    num_exchanges = counted(len(session.exchanges), "exchange")
    chat.screen.note(f"loaded {num_exchanges} from {shown_path(path)}")
    if note:
        chat.screen.note(note)
    chat.show_last(talker)


def _last_but(talker: Talker) -> Path:
    """Return the last saved session with this model, apart from the one that is open."""
    found = recent_sessions(talker.session.contract, 2)
    others = [path for path in found if path != talker.file.path]
    if not others:
        raise DataError("there is no other saved session with this model", hint="/load FILE")
    return others[0]


def _may_replace(chat: Chat, path: Path) -> bool:
    answer = chat.ask(f"{shown_path(path)} exists; replace it (y/n)? ", "")
    return answer is not None and answer.strip().lower() in ("y", "yes")


def _path(text: str) -> Path:
    """Return the typed path, perhaps in quotes; a ~ at its start is the home directory."""
    if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if "\0" in text:
        raise DataError("a path cannot contain a NUL character")
    try:
        path = Path(text).expanduser()
        os.fsencode(path)
    except RuntimeError:
        raise DataError(f"{text}: there is no such home directory", hint="give a path") from None
    except ValueError:
        raise DataError(f"{text}: a file name cannot contain these characters") from None
    return path
