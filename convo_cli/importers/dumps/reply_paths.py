"""Dialogues in trees of replies: the path of the best replies from each first message.

Of several replies, the one with the lowest rank is followed, else the one with the longest
conversation below it, else the first. So no reply is trained on twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from convo_cli.importers.dumps.message_store import StoredMessage


def best_paths(messages: Sequence[StoredMessage]) -> Iterator[list[StoredMessage]]:
    """Yield a path for each message without a parent among the messages.

    Messages that are not good, and all replies to them, are not followed; neither are circles.
    """
    numbers: dict[str, int] = {}
    roots: list[int] = []
    replies: list[list[int]] = [[] for _ in messages]
    for number, message in enumerate(messages):
        if message.ident is not None:
            numbers.setdefault(message.ident, number)
    for number, message in enumerate(messages):
        parent = None if message.parent is None else numbers.get(message.parent)
        if message.ident is not None and numbers[message.ident] != number:
            continue  # a repeated id: the first message counts
        if parent is None:
            roots.append(number)
        elif message.is_good:
            replies[parent].append(number)
    depths = _depths(roots, replies)
    for root in roots:
        if messages[root].is_good:
            yield [messages[number] for number in _path(root, replies, depths, messages)]


def _depths(roots: list[int], replies: list[list[int]]) -> list[int]:
    """Return the number of messages on the longest path from each message down."""
    order = list(roots)
    for number in order:  # grows while it is read; each message has one parent
        order += replies[number]
    depths = [1] * len(replies)
    for number in reversed(order):
        depths[number] += max((depths[reply] for reply in replies[number]), default=0)
    return depths


def _path(
    root: int, replies: list[list[int]], depths: list[int], messages: Sequence[StoredMessage]
) -> Iterator[int]:
    def quality(number: int) -> tuple[float, int]:
        rank = messages[number].rank
        return (float("inf") if rank is None else rank, -depths[number])

    number = root
    yield number
    while replies[number]:
        number = min(replies[number], key=quality)
        yield number
