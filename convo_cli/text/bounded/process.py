"""Bounded process: it renders foreign chat templates and tries foreign tokenizers under limits.

A chat template is a program by the author of the model, and a tokenizer is nearly one: its patterns
and chains of replacements can take unbounded time and memory. Python can interrupt itself only
between two instructions, so the operating system ends this process instead, by a timer of CPU time
and a memory limit for each request. `convo_cli.text.bounded.client` starts the process and sends
the requests.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

RENDER = b"render"
VARIABLES = b"variables"
TRY_TOKENIZER = b"tokenizer"
TRY_CONFIG = b"config"
ENCODE_PIECES = b"pieces"
OUT_OF_MEMORY = 77
"""Exit code for a request that ran out of memory."""
OUT_OF_TIME = 78
"""Exit code for a request whose dialogues together ran out of time."""
MAX_OWN_CHARACTERS = 2**20
"""Most characters that a template may add to one dialogue; 16 times as many in a request."""
_GENERATION = re.compile(r"\{%[-+]?\s{0,99}(?:end)?generation\s{0,99}[-+]?%\}")
"""A statement of transformers that Jinja lacks; it reads no variable."""
_FUNCTIONS = frozenset({"raise_exception", "strftime_now"})
"""What transformers gives to every template."""
_MAX_REASON = 300
"""Most characters of the error of a template."""
_IGNORED_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class Limits(NamedTuple):
    """Limits of CPU time and of additional memory; only Linux enforces the memory limit."""

    cpu_seconds: float
    memory_bytes: int


RENDER_LIMITS = Limits(2.0, 512 * 2**20)
"""Limits for one dialogue; an ordinary template takes a ten-thousandth of the time."""
REQUEST_SECONDS = 20.0
"""CPU time for all dialogues of a request."""
_TRIAL_LIMITS = Limits(10.0, 768 * 2**20)
_TRIAL_SECONDS_PER_BYTE = 1e-6
_TRIAL_BYTES_PER_BYTE = 48
_MAX_TRIED_BYTES = 3 * 2**24
"""Larger files get no more time and memory; Gemma's tokenizer has four fifths of this size."""


def trial_limits(num_bytes: int) -> Limits:
    """Return the limits for a trial of files of this size.

    docs/decisions.md lists the needs of real tokenizers.
    """
    counted = min(num_bytes, _MAX_TRIED_BYTES)
    return Limits(
        _TRIAL_LIMITS.cpu_seconds + _TRIAL_SECONDS_PER_BYTE * counted,
        _TRIAL_LIMITS.memory_bytes + _TRIAL_BYTES_PER_BYTE * counted,
    )


def main() -> None:
    """Answer requests until stdin ends; each is a line: the name of a task, a space, and JSON."""
    for name in _IGNORED_SIGNALS:
        if hasattr(signal, name):  # the client handles these signals
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.platform != "win32":
        import resource

        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # A library that reads or prints must not touch requests and answers.
    with open(os.devnull, "r+b") as nowhere:
        for standard in (0, 1, 2):
            os.dup2(nowhere.fileno(), standard)
    # This process does not need torch, whose import takes a second.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from transformers.utils.chat_template_utils import render_jinja_template

    from convo_cli.text.bounded.trial import try_config, try_tokenizer
    from convo_cli.text.spiece.agreement import encode_pieces

    work: dict[bytes, Callable[[bytes], bytes]] = {
        RENDER: partial(_render, render_jinja_template),
        VARIABLES: _variables,
        TRY_TOKENIZER: partial(_try, try_tokenizer),
        TRY_CONFIG: partial(_try, try_config),
        ENCODE_PIECES: partial(_try, encode_pieces),
    }
    answers.write(b"ready\n")
    answers.flush()
    try:
        for line in requests:
            task, _, request = line.partition(b" ")
            answers.write(work[task](request) + b"\n")
            answers.flush()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _try(attempt: Callable[..., Any], request: bytes) -> bytes:
    """Return the result of an attempt to use the files of a folder, as JSON."""
    folder, source, num_bytes, *arguments = json.loads(request)
    limits = trial_limits(num_bytes)
    _limit_memory(limits.memory_bytes)
    _set_timer(limits.cpu_seconds)
    try:
        return json.dumps(attempt(Path(folder), source, *arguments)).encode()
    finally:
        _set_timer(0)


def _render(renderer: Callable[..., Any], request: bytes) -> bytes:
    """Return each dialogue as text with the spans between generation marks, or as an error."""
    work = msgspec.json.decode(request)
    render = partial(renderer, **work["options"])
    _limit_memory(RENDER_LIMITS.memory_bytes)
    begun, left, answers = time.process_time(), 16 * MAX_OWN_CHARACTERS, list[bytes]()
    for messages, tools in zip(work["dialogues"], work["tools"], strict=True):
        if time.process_time() - begun > REQUEST_SECONDS:
            os._exit(OUT_OF_TIME)
        most = min(left, MAX_OWN_CHARACTERS)
        given = {**work["tokens"], "tools": tools}
        answer, num_written = _answer(render, messages, given, most)
        answers.append(answer)
        left -= num_written
    return b"[" + b",".join(answers) + b"]"


def _variables(request: bytes) -> bytes:
    """Return the variables that a chat template reads and does not set; none of a faulty one."""
    from jinja2 import Environment, TemplateError
    from jinja2.meta import find_undeclared_variables

    source = _GENERATION.sub("", msgspec.json.decode(request, type=str))
    _limit_memory(RENDER_LIMITS.memory_bytes)
    _set_timer(RENDER_LIMITS.cpu_seconds)
    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
        names = find_undeclared_variables(parsed) - _FUNCTIONS
    except (TemplateError, RecursionError):
        names = set()
    finally:
        _set_timer(0)
    return msgspec.json.encode(sorted(names))


def _answer(
    render: Callable[..., Any],
    messages: Sequence[dict[str, Any]],
    given: dict[str, Any],
    most: int,
) -> tuple[bytes, int]:
    """Return the answer for one dialogue, and the number of added characters, at most ``most``."""
    _set_timer(RENDER_LIMITS.cpu_seconds)
    try:
        (text,), spans = render([messages], **given)
        num_written = len(text) - sum(len(message["content"]) for message in messages)
        if num_written > most:
            raise ValueError(f"it adds more than {most:,} characters")
        return msgspec.json.encode((text, _merged(spans[0]) if spans else ())), max(0, num_written)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (expressions in a template may raise anything)
        reason = str(error)[:_MAX_REASON] or type(error).__name__
        return msgspec.json.encode(reason.encode(errors="replace").decode()), 0
    finally:
        _set_timer(0)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge overlapping spans; a template can nest its marks to any depth."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _set_timer(seconds: float) -> None:
    """End this process after this much CPU time, on which load has no effect; 0 stops the timer."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory(num_bytes: int) -> None:
    """Limit the memory of this process to what it uses now and ``num_bytes`` more."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + num_bytes
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
