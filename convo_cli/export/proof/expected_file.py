"""expected.json: ids that a checkpoint gives to convo's own texts and dialogues.

It holds no text. The key of a text is the beginning of its SHA-256, so that an export can be
compared with those texts that a later version of convo still has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from convo_cli.data.dialogue import Turn, as_messages
from convo_cli.errors import CheckpointError
from convo_cli.export.proof.checkpoint_answers import Answers, Prompt, Texts
from convo_cli.export.proof.hard_texts import hard_texts
from convo_cli.export.proof.probe_dialogues import PROBE_DIALOGUES, without_system
from convo_cli.export.proof.receipt import EXPECTED_FILE
from convo_cli.storage.files import read_linked
from convo_cli.wording import quoted

_MAX_BYTES = 2**24
_KEY_LENGTH = 16
_MAX_TOKENS = 1024
_MAX_ID = 2**31


class _Reply(msgspec.Struct, forbid_unknown_fields=True):
    prompt: list[int]
    reply: list[int]
    ties: list[int]


class _Expected(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    num_tokens: int
    """Most tokens of a reply."""
    stop_ids: list[int]
    inexact: str | None
    """Why the runtime reads some texts differently; None if it must not."""
    texts: dict[str, list[int]]
    prompts: dict[str, _Reply]


def write_expected(answers: Answers, inexact: str | None, folder: Path) -> None:
    """Write expected.json; ``inexact`` says why the runtime reads some texts differently."""
    texts = answers.hard_texts
    values = _Expected(
        version=1,
        num_tokens=answers.num_tokens,
        stop_ids=list(answers.stop_ids),
        inexact=inexact,
        texts={_key(text): list(ids) for text, ids in zip(texts.texts, texts.ids, strict=True)},
        prompts={
            _key_of(one.turns): _Reply(list(one.ids), list(one.reply), sorted(one.ties))
            for one in answers.prompts
            if one.is_own
        },
    )
    (folder / EXPECTED_FILE).write_bytes(msgspec.json.encode(values) + b"\n")


def read_expected(folder: Path) -> tuple[Answers, str | None]:
    """Return the ids of the texts that this convo has, too, and ``inexact`` of `write_expected`.

    CheckpointError if the file is not what convo writes, or has no text of this convo.
    """
    file = folder / EXPECTED_FILE
    try:
        values = msgspec.json.decode(read_linked(file, _MAX_BYTES), type=_Expected)
        lists = (
            values.stop_ids,
            *values.texts.values(),
            *(ids for one in values.prompts.values() for ids in (one.prompt, one.reply)),
        )
        if not all(0 <= one < _MAX_ID for ids in lists for one in ids):
            raise ValueError("an id is out of range")
        if values.version != 1 or not 0 < values.num_tokens <= _MAX_TOKENS:
            raise ValueError("the version or a length is unknown")
    except PermissionError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CheckpointError(
            f"{file}: not what convo writes ({quoted(str(reason), 200)[1:-1]})",
            hint="export the checkpoint again",
        ) from error
    texts, prompts = _known_texts(values.texts), _known_prompts(values.prompts)
    if not texts.texts or not prompts:
        raise CheckpointError(
            f"{file}: it has no text that this version of convo knows",
            hint="export the checkpoint again with this version",
        )
    return Answers(texts, prompts, 0, values.num_tokens, values.stop_ids), values.inexact


def _known_texts(stated: Mapping[str, list[int]]) -> Texts:
    known = [
        (f"{one.group}, text {number}", one.text, ids)
        for number, one in enumerate(hard_texts(), 1)
        if (ids := stated.get(_key(one.text))) is not None
    ]
    return Texts(
        [name for name, _, _ in known],
        [text for _, text, _ in known],
        [ids for _, _, ids in known],
        len(hard_texts()) - len(known),
    )


def _known_prompts(stated: Mapping[str, _Reply]) -> list[Prompt]:
    found = list[Prompt]()
    for number, turns in enumerate(PROBE_DIALOGUES, 1):
        for form in dict.fromkeys((tuple(turns), without_system(turns))):
            if (one := stated.get(_key_of(form))) is not None:
                ties = frozenset(one.ties)
                name = f"dialogue {number}"
                found.append(Prompt(name, form, True, one.prompt, one.reply, ties))
    return found


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def _key_of(turns: Sequence[Turn]) -> str:
    return _key(json.dumps(as_messages(turns), ensure_ascii=False))
