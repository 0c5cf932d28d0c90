"""Keys of lines and turns: known keys, probable misspellings, and names for training masks."""

from __future__ import annotations

import difflib
import re
import unicodedata
from functools import lru_cache

from convo_cli.data.shapes.items.turn_keys import AUTHOR_KEYS, SPEAKER_KEYS, TEXT_KEYS
from convo_cli.data.shapes.table import SHAPES, SYSTEM_KEYS

TRAIN_KEYS = ("train", "weight", "loss")
"""Keys of a turn or a dialogue that state whether it is trained on."""
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Keys with the reasoning before an answer, on an assistant turn or beside a line's only reply."""
SESSION_KEY = "convo_session"
"""Key of a line with facts about a saved chat: the model, its contract, how replies were sampled.

They are no part of the dialogue, so no warning names them.
"""

_REASONING_NAMES = frozenset(
    {
        "reasoning",
        "reasoningcontent",
        "reasoningtext",
        "thinking",
        "thinkingcontent",
        "think",
        "thought",
        "thoughts",
        "chainofthought",
    }
)
"""Other spellings of these keys, letters only."""

DIALOGUE_KEYS = frozenset(
    {key for shape in SHAPES.values() for key in (*shape.keys, *shape.optional)} | {*SYSTEM_KEYS}
)
TURN_KEYS = frozenset({*SPEAKER_KEYS, *AUTHOR_KEYS, *TEXT_KEYS})

_KNOWN = DIALOGUE_KEYS | TURN_KEYS | {*TRAIN_KEYS, *REASONING_KEYS}
_KEYS_OF_ONE_LEVEL = frozenset({"message", "contents"})
"""Keys of a turn or a line that misspell a key of the other: messages, content."""
_OTHER_WORDS = frozenset(
    {"turn", "trainer", "height", "eight", "trait", "terrain", "brain", "story"}
)
"""Words that resemble a known key by chance; LMSYS-Chat and WildChat count turns in "turn"."""

# Names such as mask, loss_mask, trainOnTurn, masked, sample_weight, trainable and output_with_loss
# consist of these.
_TRAINING_WORDS = """
    train trained training trainable untrained loss losses weight weights weighted mask masks masked
    masking unmask unmasked supervise supervised unsupervised learn learned learnt learnable
"""
_FILLER_WORDS = """
    is are in on of to the this it for no not dont do does has have with without compute computed
    calc calculate calculated include included exclude excluded ignore ignored skip skipped only
    last turn turns message messages msg dialog dialogue conversation sample example row assistant
    user human system bot reply replies answer answers response responses output outputs completion
    completions prompt prompts input inputs token tokens target targets label labels detail details
    scale factor value flag history eos role per use should must enable enabled disable disabled off
    out multiplier
"""
_WORDS = {
    **dict.fromkeys(_FILLER_WORDS.split(), False),
    **dict.fromkeys(_TRAINING_WORDS.split(), True),
}
_FLAG_WORDS = frozenset(
    f"""{_TRAINING_WORDS} learning weighting finetune grad gradient backprop target targets
    ignore ignored skip skipped exclude excluded""".split()
)
"""Words for a training mask if the value of the key is true or false."""
_NO_FLAGS = frozenset({"skip_prompt_formatting"})
"""Keys with such a word that state nothing of the kind; OpenHermes has this one on every line."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_NO_LETTER = re.compile(r"[^a-z]+")
_MAX_LENGTH = 40


@lru_cache(maxsize=1024)
def says_training(key: str) -> bool:
    """Return whether the name of a key outside `TRAIN_KEYS` states what is trained on."""
    if len(key) > _MAX_LENGTH or key in TRAIN_KEYS:
        return False
    plain = "".join(filter(str.isprintable, unicodedata.normalize("NFKC", key)))
    if not plain.isascii():
        return False
    return (
        plain in TRAIN_KEYS
        or misspelt(plain) in TRAIN_KEYS
        or _is_about_training(_NO_LETTER.sub("", plain.lower()))
    )


@lru_cache(maxsize=1024)
def is_reasoning_key(key: str) -> bool:
    """Return whether the key means reasoning in any spelling: reasoningContent, thoughts."""
    return len(key) <= _MAX_LENGTH and _NO_LETTER.sub("", key.lower()) in _REASONING_NAMES


@lru_cache(maxsize=1024)
def may_say_training(key: str) -> bool:
    """Return whether a key such as is_target states what is trained on if it is true or false."""
    if len(key) > _MAX_LENGTH or key in _NO_FLAGS:
        return False
    return not _FLAG_WORDS.isdisjoint(map(str.lower, _WORD.findall(key)))


def _is_about_training(name: str) -> bool:
    """Return whether the name consists only of `_WORDS`, at least one of them about training."""
    reached = {0: False}  # end of a word -> True if a word up to there is about training
    for start in range(len(name)):
        if start in reached:
            for word, is_about in _WORDS.items():
                if name.startswith(word, start):
                    end = start + len(word)
                    reached[end] = reached.get(end, False) or reached[start] or is_about
    return reached.get(len(name), False)


@lru_cache(maxsize=1024)
def misspelt(key: str) -> str | None:
    """Return the key of a dialogue or turn that ``key`` probably misspells."""
    if len(key) > 20 or key in _KNOWN - _KEYS_OF_ONE_LEVEL or key in _OTHER_WORDS:
        return None
    matches = difflib.get_close_matches(key.lower(), _KNOWN - {key}, n=1, cutoff=0.8)
    return matches[0] if matches and abs(len(matches[0]) - len(key)) <= 2 else None
