"""Table of the tokens of a reply, and its costs: dropped turns, reused tokens, time, bandwidth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from convo_cli.cli.console import printable
from convo_cli.cli.views.chatting.wrapping import clusters, columns
from convo_cli.wording import counted

if TYPE_CHECKING:
    from convo_cli.model.decoding.generator import Generator, Reply

_MAX_ROWS = 400
_VISIBLE = str.maketrans({" ": "·", "\n": "↵", "\t": "→", "\r": "←"})
_UNKNOWN = "\ufffd"


def token_lines(generator: Generator, reply: Reply, width: int) -> Iterator[str]:
    """Yield the table: id, probability and text of each token, then costs."""
    rows = list(enumerate(reply.ids))
    probabilities = reply.trace.probabilities if reply.trace else ()
    size = max(len("id"), *(len(str(token)) for token in reply.ids), 0)
    yield f"{'id':>{size}}  {'probability  ' if probabilities else ''}token"
    num_hidden = max(0, len(rows) - _MAX_ROWS)
    for place, token in rows[: len(rows) - num_hidden]:
        share = f"{probabilities[place]:>11.2%}  " if place < len(probabilities) else ""
        yield _fitted(f"{token:>{size}}  {share}{_text_of(generator, token)}", width)
    if num_hidden:
        yield f"… and {counted(num_hidden, 'token')} more"
    yield from _costs(generator, reply)


def _text_of(generator: Generator, token: int) -> str:
    """Return the text of a token with visible white space; a part of a character as its name."""
    encoder = generator.encoder
    text = "" if encoder.is_special(token) else encoder.decode([token])
    if not text or _UNKNOWN in text:
        text = str(encoder.tokenizer.convert_ids_to_tokens(token))
    shown = printable(text.translate(_VISIBLE))
    return shown if shown.isprintable() and shown else ascii(text)[1:-1]


def _fitted(line: str, width: int) -> str:
    """Cut a line at the width of the terminal."""
    shown, room = "", width - 1
    for cluster in clusters(line):
        room -= columns(cluster)
        if room < 0:
            return shown + "…"
        shown += cluster
    return shown


def _costs(generator: Generator, reply: Reply) -> Iterator[str]:
    if reply.num_dropped:
        yield f"dropped from the prompt: the first {counted(reply.num_dropped, 'turn')}"
    else:
        yield "dropped from the prompt: no turns"
    yield "ended by: its end token" if reply.stopped else "ended by: the length limit"
    if (trace := reply.trace) is None:
        return
    yield f"prompt: {counted(trace.prompt_length, 'token')}, {trace.num_reused:,} of them reused"
    after_first = trace.seconds - trace.first_token_seconds
    yield f"first token: after {trace.first_token_seconds:.3f} s"
    if len(reply.ids) > 1 and after_first > 0:
        speed = (len(reply.ids) - 1) / after_first
        yield f"next tokens: {speed:,.1f} tokens/s"
        yield from _bandwidth(generator, speed)


def _bandwidth(generator: Generator, speed: float) -> Iterator[str]:
    """Compare a speed with the limit that reading all weights for each token sets."""
    from convo_cli.model.decoding.bandwidth import read_bandwidth, weight_bytes

    try:
        bandwidth = read_bandwidth(generator.model.device)
    except RuntimeError:  # of torch: there is no memory for a measurement
        return
    used = speed * weight_bytes(generator.model)
    yield f"memory bandwidth: {used / bandwidth:.0%} of {bandwidth / 1e9:,.1f} GB/s"
