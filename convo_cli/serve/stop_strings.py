"""Stop strings: texts that end a reply and are not part of it.

The stop string that is complete first ends the reply; of several that end at the same character,
the longest. So the result does not depend on how the text is cut into pieces, and no later text is
needed to decide.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes on the text of a reply up to the first stop string.

    Text that may be the beginning of a stop string is held back. The time is linear in the length
    of the text for each stop string (Knuth, Morris, Pratt).
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """ValueError if a stop string is empty: it would end every reply before its first word."""
        if not all(stops):
            raise ValueError("a stop string must not be empty")
        self._patterns = [_Pattern(stop) for stop in dict.fromkeys(stops)]
        self._held = ""
        self.is_matched = False
        """Whether a stop string was found; no more text is passed on."""

    def push(self, text: str) -> str:
        """Return the text that is certain to be part of the reply."""
        if self.is_matched or not text:
            return ""
        if not self._patterns:
            return text
        held, self._held = self._held + text, ""
        for place, character in enumerate(text, len(held) - len(text)):
            found = [one.length for one in self._patterns if one.matches_at(character)]
            if found:
                self.is_matched = True
                return held[: place + 1 - max(found)]
        num_held = max(one.num_matched for one in self._patterns)
        end = len(held) - num_held
        self._held = held[end:]
        return held[:end]

    def finish(self) -> str:
        """Return the text that was held back, at the end of the reply."""
        held, self._held = self._held, ""
        return "" if self.is_matched else held


class _Pattern:
    """One stop string, and the length of its beginning at the end of the text so far."""

    def __init__(self, text: str) -> None:
        self.length = len(text)
        self.num_matched = 0
        self._text = text
        self._borders = [0] * len(text)
        """Length of the longest proper beginning of text[: n + 1] that is also its end."""
        border = 0
        for place in range(1, len(text)):
            while border and text[place] != text[border]:
                border = self._borders[border - 1]
            border += text[place] == text[border]
            self._borders[place] = border

    def matches_at(self, character: str) -> bool:
        """Read a character, and return whether the string is complete."""
        while self.num_matched and self._text[self.num_matched] != character:
            self.num_matched = self._borders[self.num_matched - 1]
        self.num_matched += self._text[self.num_matched] == character
        return self.num_matched == self.length
