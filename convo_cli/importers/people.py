"""People of a chat: who speaks how often, and who is the assistant."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable

from convo_cli.errors import DataError, UsageError, typeable_option
from convo_cli.importers.cleaning import cleaned
from convo_cli.importers.messages import Counts
from convo_cli.wording import quoted

_MAX_NAMES = 50_000
_NUM_SHOWN = 12
_MAX_NAME_CHARACTERS = 200


class People:
    """Counts the messages of each person, and knows the names given with --assistant."""

    def __init__(self, assistants: tuple[str, ...]) -> None:
        self.counts: Counter[str] = Counter()
        self._keys = {_key(name): name for name in assistants}
        self._is_assistant: dict[str, bool] = {}
        self._clean: dict[str, str] = {}

    def add(self, name: str) -> str:
        """Count a message, and return the name without invisible characters."""
        shown = self._clean.get(name)
        if shown is None:
            if len(self._clean) == _MAX_NAMES:
                raise DataError(
                    f"the source has more than {_MAX_NAMES:,} speakers",
                    hint="check that it is the export of a chat",
                )
            shown = cleaned(name, Counts()).replace("\n", " ").strip()[:_MAX_NAME_CHARACTERS]
            self._clean[name] = shown
            self._is_assistant[shown] = _key(shown) in self._keys
        self.counts[shown] += 1
        return shown

    def is_assistant(self, name: str) -> bool:
        """Return whether a counted person was given with --assistant."""
        return self._is_assistant[name]

    def require_usable(self, where: str, counts: Counts) -> None:
        """Raise unless at least two people speak and the given assistants are among them.

        A source without people is a dump of dialogues, and needs nothing.
        """
        if not self.counts:
            if dropped := +counts.dropped:
                reasons = ", ".join(f"{reason}: {number:,}" for reason, number in dropped.items())
                raise DataError(
                    f"{where}: no message contains text ({reasons})",
                    hint="export a chat in which people wrote to each other",
                )
            return
        listed = self._listed()
        if len(self.counts) == 1:
            raise DataError(
                f"{where}: only one person speaks: {listed}",
                hint="a dialogue needs two; export a chat in which both sides are included",
            )
        if not self._keys:
            name = self.counts.most_common()[-1][0]
            raise UsageError(
                f"{where}: choose whose messages the model learns to write; the people are "
                f"{listed}",
                hint=f"name one of them: {typeable_option('--assistant', name)}",
            )
        known = {_key(name): name for name in self.counts}
        for key, name in self._keys.items():
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1) or _with_word(key, known)
                meant = typeable_option("--assistant", known[close[0]]) if close else ""
                raise UsageError(
                    f"{where}: no person is named {quoted(name)}; the people are {listed}",
                    hint=f"did you mean {meant}?" if meant else None,
                )
        if known.keys() <= self._keys.keys():
            raise UsageError(
                f"{where}: --assistant names all people: {listed}",
                hint="at least one person has to be a user",
            )

    def _listed(self) -> str:
        people = self.counts.most_common(_NUM_SHOWN)
        more = len(self.counts) - len(people)
        shown = ", ".join(f"{name} ({number:,})" for name, number in people)
        return shown + (f" and {more:,} more" if more else "")


def _with_word(word: str, names: Iterable[str]) -> list[str]:
    """Return the one name that has this word, such as a first name; else nothing."""
    found = [name for name in names if word in name.split()]
    return found if len(found) == 1 else []


def _key(name: str) -> str:
    return " ".join(cleaned(name, Counts()).lstrip("~").split()).casefold()
