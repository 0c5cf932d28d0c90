"""The process in which chat templates run, by transformers' own sandboxed renderer, under limits of the system.

A chat template is a program from whoever made the model. The sandbox keeps it from files and from Python; but loops in
loops, or one sum over long lists, can keep any process busy for years or eat its memory, and an exception can only be
raised between two instructions of Python. So the system ends this process instead: a timer of CPU time for every
dialogue, and a limit of memory. `convo_cli.text.rendering` starts it and talks to it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

CPU_SECONDS = 2.0
"""For one dialogue; an ordinary template takes a ten-thousandth of it."""
MEMORY_BYTES = 512 * 2**20
"""Beside what this process has before it sees a template. Only Linux keeps such a limit."""
MAX_OWN_CHARACTERS = 2**20
"""That a template may write around the texts of one dialogue."""
OUT_OF_MEMORY = 77
"""Exit code."""
_MAX_REASON = 300  # characters of what a template says about a dialogue


def main() -> None:
    """Answer requests, a line of JSON each, until there are no more of them."""
    for ignored in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGINT)):
        signal.signal(ignored, signal.SIG_IGN)  # they are for the process that asks; it closes our stdin
    if sys.platform != "win32":
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    from transformers.utils.chat_template_utils import render_jinja_template

    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    _limit_memory()
    answers.write(b"ready\n")
    answers.flush()
    try:
        for line in requests:
            request = msgspec.json.decode(line)
            render = partial(render_jinja_template, **request["options"])
            found = [_answer(render, messages, request["tokens"]) for messages in request["dialogues"]]
            answers.write(b"[" + b",".join(found) + b"]\n")
            answers.flush()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _answer(render: Callable[..., Any], messages: Sequence[dict[str, str]], tokens: dict[str, Any]) -> bytes:
    """The text with its spans between generation marks, or a string: why there is none."""
    _set_timer(CPU_SECONDS)
    try:
        (text,), spans = render([messages], **tokens)
        if len(text) - sum(len(message["content"]) for message in messages) > MAX_OWN_CHARACTERS:
            raise ValueError(f"it writes over {MAX_OWN_CHARACTERS:,} characters of its own")
        return msgspec.json.encode((text, _merged(spans[0]) if spans else ()))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever Jinja, or an expression inside the template, raises)
        reason = str(error)[:_MAX_REASON] or type(error).__name__
        return msgspec.json.encode(reason.encode(errors="replace").decode())
    finally:
        _set_timer(0)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same characters without overlaps; a template can nest its marks as often as it likes."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _set_timer(seconds: float) -> None:
    """End this process after so much CPU time; 0: no more. CPU time goes on neither under load nor after Ctrl-Z."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
