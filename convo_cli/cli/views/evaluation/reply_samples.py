"""File of the replies that `evaluate` scored: one turn a line, with the replies of all models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from convo_cli.cli.views.evaluation.evaluation_view import Evaluated

if TYPE_CHECKING:
    from pathlib import Path

    from convo_cli.cli.views.evaluation.evaluation_view import Failed
    from convo_cli.events import SampleReply


def write_samples(path: Path, models: Sequence[Evaluated | Failed]) -> None:
    """Write a record for each turn that a model answered; none if no model could be scored.

    The file gets no more readers than the data that its texts come from.
    """
    from convo_cli.storage.access import derived_mode, masked
    from convo_cli.storage.atomic import write_file
    from convo_cli.unseen import escape_unseen

    scored = [one for one in models if isinstance(one, Evaluated)]
    if not scored:
        return
    lines = (escape_unseen(json.dumps(one, ensure_ascii=False)) for one in _records(scored))
    text = "".join(f"{line}\n" for line in lines)
    data = [file.path for file in scored[0].scores.files]
    with masked(derived_mode(data, path.parent)):
        # The path of a model may hold undecodable bytes.
        write_file(path, text.encode("utf-8", "replace"))


def _records(models: Sequence[Evaluated]) -> Iterator[dict[str, Any]]:
    for number in sorted(set().union(*(one.scores.replies for one in models))):
        replies = [
            (one.model, one.scores.replies[number])
            for one in models
            if number in one.scores.replies
        ]
        _, turn = replies[0]
        yield {
            "index": number,
            "history": [{"role": role, "content": text} for role, text in turn.history],
            "reference": turn.reference,
            "other_references": list(turn.other_references),
            "replies": [_reply(name, reply) for name, reply in replies],
        }


def _reply(model: str, reply: SampleReply) -> dict[str, Any]:
    return {"model": model, "reply": reply.reply, "stopped": reply.stopped}
