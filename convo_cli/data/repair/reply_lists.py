"""Repairs of the other good replies beside a reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convo_cli.data.shapes.items.content import texts_of_parts
from convo_cli.data.shapes.items.other_replies import KEY as REFERENCES
from convo_cli.data.shapes.items.other_replies import holds_replies
from convo_cli.data.shapes.reasoning import with_reasoning

if TYPE_CHECKING:
    from convo_cli.config.schema import Reasoning


def repair_references(
    beside: dict[str, Any],
    reply: Any,
    repair_text: Callable[[str], str],
    reasoning: Reasoning | None,
) -> None:
    """Repair the references in the object ``beside`` a reply; remove empty and repeated ones.

    Texts are the same if the reader, which may drop ``reasoning``, makes them the same.
    """
    references = beside.get(REFERENCES)
    if not holds_replies(references) or not isinstance(references, list):
        return
    texts = [text for text in references if text is not None]
    if not all(isinstance(text, str) for text in texts):
        return

    def as_read(text: str, keys: dict[str, Any]) -> str:
        text, _ = with_reasoning(text, "$", keys, "$", reasoning, _ignore)
        return text.strip().replace("\r\n", "\n").replace("\r", "\n")

    known = {"", as_read(_joined(reply), beside)}
    kept = []
    for text in map(repair_text, texts):
        if (form := as_read(text, {})) not in known:
            known.add(form)
            kept.append(text)
    beside[REFERENCES] = kept
    if not kept:
        del beside[REFERENCES]  # an empty list would be reported as an ignored key


def _joined(reply: Any) -> str:
    """Return the text of a reply that may be in parts; empty for a reply that is no text."""
    parts = reply if isinstance(reply, list) else [reply]
    return "\n".join(text for text in texts_of_parts(parts, "$") if isinstance(text, str) and text)


def _ignore(code: str, path: str, message: str) -> None:
    """Leave a fault of reasoning: the line is refused for it."""
