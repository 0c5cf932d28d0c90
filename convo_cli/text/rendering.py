"""Rendering by chat templates that nobody has to trust: in a process of their own, bounded in time and memory."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from convo_cli.data.dialogue import Turn, as_messages
from convo_cli.errors import DataError, ModelError
from convo_cli.text.render_process import CPU_SECONDS, MEMORY_BYTES, OUT_OF_MEMORY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_TEMPLATE_CHARACTERS = 2**18
"""The longest templates known, with tools and thoughts, are a tenth of it."""
# The path of this process, so that the other finds the same convo, and nothing that merely lies in the working folder.
_START = "import sys; sys.path[:] = sys.argv[1:]; from convo_cli.text.render_process import main; main()"


class Rendered(NamedTuple):
    """A dialogue as text, and the characters of it that stand between generation marks."""

    text: str
    spans: list[tuple[int, int]]


def render_all(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str,
    dialogues: Sequence[Sequence[Turn]],
    *,
    for_reply: bool = False,
    has_marks: bool = False,
) -> list[Rendered | DataError]:
    """What transformers' renderer makes of each dialogue, or what the template says against it.

    Raises ModelError for a template that is too long, or takes too much time or memory for one of them.
    """
    if len(chat_template) > MAX_TEMPLATE_CHARACTERS:
        raise _unbearable(tokenizer, f"is {len(chat_template):,} characters long")
    request = {
        "dialogues": [as_messages(turns) for turns in dialogues],
        "tokens": tokenizer.special_tokens_map,
        "options": {
            "chat_template": chat_template,
            "add_generation_prompt": for_reply,
            "return_assistant_tokens_mask": has_marks,
        },
    }
    try:
        answers = _process().ask(msgspec.json.encode(request, enc_hook=str) + b"\n")
    except UnicodeEncodeError:
        raise _unbearable(tokenizer, "or a text to render holds half of a surrogate pair") from None
    except _EndedError as end:
        raise _unbearable(tokenizer, end.reason) from None
    return [
        refusal(f"refuses such a dialogue: {answer}") if isinstance(answer, str) else Rendered(*answer)
        for answer in answers
    ]


def render_ids(
    tokenizer: PreTrainedTokenizerBase, chat_template: str, turns: Sequence[Turn], *, for_reply: bool = False
) -> list[int]:
    """The ids of transformers' `apply_chat_template`, bounded; DataError where the template refuses the dialogue."""
    (rendered,) = render_all(tokenizer, chat_template, [turns], for_reply=for_reply)
    if isinstance(rendered, DataError):
        raise rendered
    ids: list[int] = tokenizer(rendered.text, add_special_tokens=False)["input_ids"]
    return ids


def refusal(reason: str) -> DataError:
    """An error that says what the chat template does to a dialogue."""
    return DataError(
        f"the chat template {reason}", hint="set dialogue.template: turns or chatml, or change the dialogue"
    )


def _unbearable(tokenizer: PreTrainedTokenizerBase, reason: str) -> ModelError:
    return ModelError(
        f"{tokenizer.name_or_path or 'the tokenizer'}: its chat template {reason}",
        hint="do not trust this model's files; to train it all the same, set dialogue.template: turns or chatml",
    )


class _EndedError(Exception):
    """The process is gone, and with it the answer."""

    def __init__(self, returncode: int) -> None:
        if returncode == -getattr(signal, "SIGPROF", 0):
            self.reason = f"takes over {CPU_SECONDS:g} s of CPU time for one dialogue"
        elif returncode == OUT_OF_MEMORY:
            self.reason = f"takes over {MEMORY_BYTES // 2**20} MiB of memory for one dialogue"
        else:
            self.reason = f"breaks the process that renders it (exit code {returncode})"
        super().__init__(self.reason)


class _Process:
    """The other process; it lives as long as this one, or until a template breaks it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._asker = os.getpid()
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is meant for this process
        )
        atexit.register(self._end)
        if not self._read():
            raise RuntimeError(f"the process that renders chat templates ended with {self._end()} before it began")

    @property
    def is_ours(self) -> bool:
        """Whether it lives, and a fork of the process that began it does not ask in between."""
        return self._asker == os.getpid() and self._popen.poll() is None

    def ask(self, request: bytes) -> list[Any]:
        """The answer to each dialogue of the request, which is a line of JSON."""
        with self._lock:
            assert self._popen.stdin, "it was opened as a pipe"
            try:
                self._popen.stdin.write(request)
                self._popen.stdin.flush()
            except BrokenPipeError:
                raise _EndedError(self._end()) from None
            answer = self._read()
            if not answer.endswith(b"\n"):
                raise _EndedError(self._end())
        return msgspec.json.decode(answer, type=list[Any])

    def _read(self) -> bytes:
        assert self._popen.stdout, "it was opened as a pipe"
        return self._popen.stdout.readline()

    def _end(self) -> int:
        atexit.unregister(self._end)
        with suppress(BrokenPipeError), self._popen:  # closes the pipes, at which it ends, and waits
            pass
        return self._popen.returncode


_processes: list[_Process] = []
_starting = Lock()


def _process() -> _Process:
    with _starting:
        if not _processes or not _processes[0].is_ours:
            _processes[:] = [_Process()]
        return _processes[0]
