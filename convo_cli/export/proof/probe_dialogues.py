"""Dialogues whose prompts and replies an export repeats: convo's own, and some of the data.

A dialogue of the data is added for each script that convo's own dialogues lack.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from convo_cli.data.dialogue import Role, Turn

MAX_PROMPT_CHARACTERS = 400
"""Longest prompt from the data."""
_MAX_FROM_DATA = 12
_MIN_LETTERS = 5
"""Letters of a script in a turn that make it a language of the data, and not a single symbol."""
_ROLES = frozenset[Role](("system", "user", "assistant"))


def _dialogue(*texts: str, system: str = "") -> tuple[Turn, ...]:
    """Return turns of user and assistant in turn."""
    spoken = (Turn("assistant" if k % 2 else "user", text) for k, text in enumerate(texts))
    return (*((Turn("system", system),) if system else ()), *spoken)


PROBE_DIALOGUES = (
    _dialogue("Hello!"),
    _dialogue("Hi, how are you?", "Fine, thank you.", "What shall we do today?"),
    _dialogue("Grüß Gott, schönes Wetter!", "Ja, endlich.", "Gehen wir?", system="Sei kurz."),
    _dialogue("Où est l’été ? Ça va ?", "Ici.", "¿Y mañana, señor?", "Sí.", "Tak, cześć!"),
    _dialogue("Привет, как дела?", "Хорошо, а у тебя?", "Тоже."),
    _dialogue("Καλημέρα, τι κάνεις;"),
    _dialogue("مرحبا، كيف حالك؟", "بخير.", "שלום, מה שלומך?"),
    _dialogue("नमस्ते, आप कैसे हैं?", system="हिन्दी में।"),
    _dialogue("สวัสดี สบายดีไหม"),
    _dialogue("你好，今天做什么？", "散步。", "好主意！"),
    _dialogue("こんにちは、元気ですか？カタカナ"),
    _dialogue("안녕하세요, 잘 지내요?", "네!", "Xin chào 🙂 1 + 1 = 2?", system="Be brief."),
)
"""Twelve dialogues in many scripts; each ends with a turn of the user."""


def without_system(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return the dialogue for a template that has no place for a system text."""
    return tuple(turn for turn in turns if turn.role != "system")


def scripts_of(text: str) -> Counter[str]:
    """Count the letters of a text by script, such as latin, as the Unicode database names it."""
    found = Counter(_script(character) for character in text)
    del found[""]
    return found


@cache
def _script(character: str) -> str:
    if unicodedata.category(character)[0] != "L":
        return ""
    # The first word of a letter's name is its script: LATIN SMALL LETTER A, CJK UNIFIED …
    return unicodedata.name(character, "").partition(" ")[0].partition("-")[0].lower()


def scripts_in(dialogues: Iterable[Sequence[Turn]]) -> set[str]:
    """Return the scripts of the dialogues."""
    return {script for turns in dialogues for turn in turns for script in scripts_of(turn.text)}


class MissingScripts:
    """The choice of dialogues, while they are read, for scripts that convo's own dialogues lack."""

    def __init__(self) -> None:
        self._known = scripts_in(PROBE_DIALOGUES)
        self.found: list[tuple[Turn, ...]] = []
        """The beginnings of dialogues, each up to a user's turn."""

    def add(self, turns: Sequence[Turn]) -> None:
        """Choose a dialogue if a user's turn has a script that no chosen dialogue has."""
        if len(self.found) == _MAX_FROM_DATA:
            return
        num_characters = 0
        for number, turn in enumerate(turns):
            num_characters += len(turn.text)
            if num_characters > MAX_PROMPT_CHARACTERS or turn.role not in _ROLES or turn.tool_data:
                return
            if turn.role == "user" and not turn.text.isascii():
                counts = scripts_of(turn.text)
                new = {script for script, count in counts.items() if count >= _MIN_LETTERS}
                if not new <= self._known:
                    self._known |= new
                    self.found.append(tuple(turns[: number + 1]))
                    return
