"""Equal dialogues may differ in case, width and white space, and in nothing else."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.dialogue import Turn
from convo_cli.data.fingerprint import fingerprint, fingerprints, fold

WORDS = st.sampled_from(
    [
        "Hi",
        "hi",
        "ＨＩ",
        "Straße",
        "STRASSE",
        "é",
        "e\u0301",
        "\u00a0",
        "\u3000",
        " ",
        "\n",
        '"',
        "&amp;",
    ]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=3).map("".join).filter(str.strip)
DIALOGUES = st.lists(TEXTS, min_size=2, max_size=3)


def said(*texts, role="user"):
    return fingerprint([Turn(role, text) for text in texts])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello there", "hello  there"),
        ("Straße", "STRASSE"),
        ("ｆｕｌｌ　width", "Full Width"),
        ("한글", "한글"),
    ],
)
def test_equivalent_spellings_have_one_fingerprint(one, other):
    assert said("a", one) == said("a", other)


def test_speakers_do_not_count_but_the_ends_of_turns_do():
    assert said("a", role="user") == said("a", role="assistant")
    assert len({said("a b"), said("a", "b"), said("ab"), said("b", "a")}) == 4


@given(DIALOGUES, st.lists(DIALOGUES, min_size=1, max_size=4))
def test_validation_and_training_find_the_same_duplicates(tmp_path_factory, first, others):
    """The first dialogue is spelled in two ways, so that there is something to find."""
    dialogues = [first, *others, [text.upper() + " " for text in first]]
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    path.write_text("".join(json.dumps(texts) + "\n" for texts in dialogues), encoding="utf-8")
    (file,) = validate_files([str(path)], DataConfig(train=("unused",))).files
    different = {said(*(text.strip() for text in texts)) for texts in dialogues}
    assert file.num_duplicates == len(dialogues) - len(different)


SPOKEN = st.lists(
    st.lists(WORDS | st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
    min_size=1,
)


@given(st.lists(SPOKEN, min_size=1, max_size=5))
@example([[["ΑΣ ", "ς"], ["\u1100", "\u1161"]], [["\u3131", "\u314f"]]])
@example([[["a", "\u0f71\u0f72"], ["각", "\u11a8"]], [["\ufe0f", "🙂\ufe0f"]]])
@example([[[chr(code) for code in range(0xFF01, 0xFF5F)]]])
def test_fingerprints_of_many_dialogues_are_those_of_each(dialogues):
    texts = [
        [stripped for words in spoken if (stripped := "".join(words).strip())]
        for spoken in dialogues
    ]
    joined = ["\0".join(each) for each in texts]
    characters = "".join(
        char for char in sorted(set("".join(joined))) if char > "\x7f" and fold(char) != char
    )
    assert fingerprints(joined, characters) == [said(*each) for each in texts]


def test_a_character_that_folds_by_itself_does_so_beside_any_other():
    """Neither marks nor Hangul vowels and final consonants join a character that `fold` knows."""
    second_parts = {
        parts[1]
        for code in range(sys.maxunicode)
        if len(parts := unicodedata.decomposition(chr(code)).split()) == 2
        and not parts[0].startswith("<")
    }
    joining = {chr(int(part, 16)) for part in second_parts} | {
        chr(code) for code in range(0x1161, 0x11C3)
    }
    joining |= {char for char in map(chr, range(sys.maxunicode)) if unicodedata.combining(char)}
    assert all(fold(char) is None for char in joining - {"\u11a7"})
    known = [
        (char, form)
        for char in map(chr, range(sys.maxunicode))
        if char > "\x7f" and (form := fold(char))
    ]
    known = [
        (char, form) for char, form in known if not "\ud800" <= char <= "\udfff" and form != " "
    ]
    assert len(known) > 200_000
    text = "".join(char for char, _ in known)
    assert unicodedata.normalize("NFKC", text).casefold() == "".join(form for _, form in known)
