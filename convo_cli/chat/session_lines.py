"""A session as one line of JSON, which is a line of training data too.

    {"convo_session": {…}, "messages": [{"role": "user", "content": "Hello!"}, …]}

Only judged and edited replies have ``"train"``, and all the others once one of them is good. A line
without a reply to train on says so itself: ``"train": false``, which leaves it out of training. A
message that got an empty reply has no reply in the line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convo_cli import __version__
from convo_cli.chat.exchanges import Alternative, Exchange, marks, plain_text
from convo_cli.config.schema import GenerationSettings
from convo_cli.data.shapes.known_keys import SESSION_KEY
from convo_cli.errors import ChangedError, DataError

if TYPE_CHECKING:
    from convo_cli.chat.conversation import Conversation
    from convo_cli.model.decoding.generator import Generator

_SHOWN_DIGITS = 12  # of a hash, in messages
_LONGEST_NAME = 100  # characters of a model's name, in messages


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SessionRecord(_Part):
    """Facts about a session: its model, contract and sampling settings."""

    version: Literal[1] = 1
    convo: str
    """The version of convo that saved it."""
    saved: str
    """Time of the last reply, in UTC."""
    model: str
    """Name of the model; see `name_of`."""
    contract: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of the model's dialogue contract; see `convo_cli.text.contract`."""
    sampling: GenerationSettings
    """Settings of the next reply."""
    bad: tuple[int, ...] = Field((), strict=False)
    """Numbers of the replies that were judged bad; the first reply has number 1."""


class SavedMessage(_Part):
    """A turn of the line."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)
    train: bool | None = None


class SavedLine(_Part):
    """The whole line."""

    record: SessionRecord = Field(alias=SESSION_KEY)
    train: bool | None = None
    messages: tuple[SavedMessage, ...] = Field(min_length=1, strict=False)

    @property
    def system(self) -> str | None:
        """Return the system text, which may be empty; None without a system turn."""
        first = self.messages[0]
        return plain_text(first.content) if first.role == "system" else None

    def exchanges(self) -> list[Exchange]:
        """Return the exchanges; DataError if the turns are not those of a chat."""
        messages = list(self.messages[self.system is not None :])
        has_good = any(message.train for message in messages)
        found: list[Exchange] = []
        for index, message in enumerate(messages):
            before = messages[index - 1].role if index else None
            if message.role == "user" and plain_text(message.content):
                found.append(Exchange(plain_text(message.content), (Alternative(""),)))
            elif message.role == "assistant" and before == "user":
                is_bad = message.train is False and (not has_good or len(found) in self.record.bad)
                is_good = True if message.train else False if is_bad else None
                reply = Alternative(plain_text(message.content), is_good)
                found[-1] = found[-1].with_chosen_reply(reply)
            else:
                place = f"$.messages[{index + (self.system is not None)}]"
                if message.role == "user":
                    raise DataError(f"{place}: the message is blank", hint="remove the turn")
                raise DataError(
                    f"{place}: unexpected {message.role} turn",
                    hint="a session has at most one system turn, at its start, and then messages "
                    "of the user with at most one reply each",
                )
        return found


def line_of(
    conversation: Conversation, generator: Generator, contract: str, settings: GenerationSettings
) -> dict[str, Any]:
    """Return the line of a conversation with a model of this contract."""
    exchanges = conversation.exchanges
    bad = [n for n, one in enumerate(exchanges, 1) if one.chosen_reply.is_good is False]
    record = {
        "version": 1,
        "convo": __version__,
        "saved": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": name_of(generator),
        "contract": contract,
        "sampling": settings.model_dump(),
        "bad": bad,
    }
    messages = list(_messages(conversation.system, exchanges))
    has_target = any(one["role"] == "assistant" and one.get("train", True) for one in messages)
    whole: dict[str, Any] = {SESSION_KEY: record}
    return whole | ({} if has_target else {"train": False}) | {"messages": messages}


def _messages(system: str | None, exchanges: Sequence[Exchange]) -> Iterator[dict[str, Any]]:
    if system:
        yield {"role": "system", "content": system}
    for exchange, mark in zip(exchanges, marks(exchanges), strict=True):
        yield {"role": "user", "content": exchange.message}
        if text := exchange.chosen_reply.text:
            train = {} if mark is None else {"train": mark}
            yield {"role": "assistant", "content": text, **train}


def parse_line(line: Mapping[str, Any] | bytes) -> SavedLine:
    """Return the line of a session, given as JSON or decoded; DataError names what is wrong."""
    try:
        if isinstance(line, bytes):
            return SavedLine.model_validate_json(line)
        return SavedLine.model_validate(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
        )
        raise DataError(
            f"${place}: {first['msg']}", hint="the session is damaged, or convo did not save it"
        ) from None


def require_contract(saved: SavedLine, ours: str, generator: Generator) -> None:
    """Raise ChangedError if the contract of a session is not that of the model, ``ours``."""
    theirs = saved.record.contract
    if theirs != ours:
        raise ChangedError(
            f"the session was saved with {_shown_name(saved)} (contract {theirs[:_SHOWN_DIGITS]}), "
            f"but {name_of(generator)} renders dialogues differently (contract "
            f"{ours[:_SHOWN_DIGITS]})",
            hint="use a model with the same tokenizer, template and window",
        )


def name_of(generator: Generator) -> str:
    """Return a name of the model without its path: run and step, hub id, or folder name."""
    folder = generator.folder
    if generator.loaded is not None:
        run = _absolute(generator.loaded.path).parents[1].name
        return f"{run}, step {generator.loaded.own.step}"
    if folder is None:
        return "a model without a folder"
    folder = _absolute(folder)
    if folder.parent.name == "snapshots":  # in the cache of the hub
        return folder.parents[1].name.removeprefix("models--").replace("--", "/")
    return folder.name


def _absolute(path: Path) -> Path:
    """Return the absolute path; below /unknown if the working directory was removed."""
    try:
        return path.absolute()
    except OSError:
        return Path("/unknown/unknown") / path


def note_on_model(saved: SavedLine, generator: Generator) -> str | None:
    """Return a note if the session was saved with another model of the same contract."""
    if saved.record.model == name_of(generator):
        return None
    return f"the session was saved with another model: {_shown_name(saved)}"


def _shown_name(saved: SavedLine) -> str:
    """Return the name of a session's model for a message: a file may contain any text there."""
    name = " ".join(saved.record.model.split())
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
