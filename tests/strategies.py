"""Random dialogues for property tests, with texts that look like special tokens."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import strategies as st

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.text.templates.template import TEMPLATES


class PlainTokenizer:
    """A tokenizer with all that a template needs: only a token that ends a text."""

    chat_template = bos_token = bos_token_id = None
    eos_token = "<|endoftext|>"

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [1]}


BUILT = {name: build(cast(Any, PlainTokenizer())) for name, build in TEMPLATES.items()}
"""convo's own templates for a plain tokenizer."""
WITH_SYSTEM = [name for name, template in BUILT.items() if "system" in template.openings]
"""Templates that have a place for a system turn."""

LOOK_ALIKES = (
    "<|system|>",
    "<|assistant|>",
    "<|im_start|>",
    "<|end|>",
    "<|user|>",
    "<|im_end|>",
    "<sep>",
    "[SEP]",
    "[CLS]",
    "<unk>",
    "<0x41>",
    "<|endoftext|>",
)
EMPTY_LOOKING = ("\u200b", "\u200d\ufe0f", "\u3164", "\u2800", "\u2060", "\ufeff")
"""Invisible texts that Python does not strip: zero-width, Hangul filler, blank Braille."""

# SentencePiece writes a space as U+2581, so it cannot tell them apart; surrogates are not text.
_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\x00")
_WORDS = st.sampled_from(
    [
        "hello",
        "Hi!",
        "how are you?",
        "안녕하세요",
        "こんにちは",
        "मस्ते",
        "🙂👍🏽",
        "naïve",
        "x  y",
        "1,234.5",
        "{{ a }}",
        "\\n",
        "it's",
        '"quoted"',
        *EMPTY_LOOKING,
    ]
)
PLAIN = st.lists(st.one_of(_WORDS, st.text(_CHARACTERS, max_size=12)), min_size=1, max_size=4).map(
    " ".join
)


def texts(*, look_alikes: bool = True) -> st.SearchStrategy[str]:
    """Return texts of turns: never blank, without outer white space."""
    source = (
        st.one_of(PLAIN, st.tuples(PLAIN, st.sampled_from(LOOK_ALIKES)).map(" ".join))
        if look_alikes
        else PLAIN
    )
    plain = source.map(str.strip).filter(bool)
    if look_alikes:
        return plain
    return plain.filter(lambda text: not any(token in text for token in LOOK_ALIKES))


@st.composite
def dialogues(
    draw: st.DrawFn,
    *,
    look_alikes: bool = True,
    roles: tuple[str, ...] = ("user", "assistant"),
    system: bool = True,
) -> Dialogue:
    """Draw one to six turns in any order of roles, some not trained on, perhaps a system turn."""
    body = draw(
        st.lists(
            st.builds(
                Turn,
                st.sampled_from(roles),
                texts(look_alikes=look_alikes),
                st.sampled_from([True, True, False]),
            ),
            min_size=1,
            max_size=6,
        )
    )
    first = (
        [Turn("system", draw(texts(look_alikes=look_alikes)))]
        if system and draw(st.booleans())
        else []
    )
    return Dialogue(tuple(first + body), 1)
