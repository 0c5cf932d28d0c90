"""The text of a reply whose tokens arrive one by one, up to a stop token or a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from convo_cli.serve.stop_strings import StopStrings
from convo_cli.text.encoder import DialogueEncoder


class ReplyText:
    """Turns tokens into text that is certain to be part of the reply."""

    def __init__(self, encoder: DialogueEncoder, stops: Sequence[str]) -> None:
        """ValueError if a stop string is empty."""
        self._decoder = encoder.stream()
        self._stops = StopStrings(stops)
        self._stop_ids = encoder.stop_ids
        self.is_stopped = False
        """Whether the reply ended at a stop token or a stop string."""

    def push(self, token: int, *, is_last: bool) -> str:
        """Return the next part of the text; with the last token, the whole rest."""
        text = self._stops.push(self._decoder.push(token))
        if is_last:
            text += self._stops.push(self._decoder.finish()) + self._stops.finish()
        self.is_stopped = self._stops.is_matched or token in self._stop_ids
        return text
