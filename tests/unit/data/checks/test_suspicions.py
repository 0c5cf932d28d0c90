from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convo_cli.data.checks import suspicions
from convo_cli.data.checks.suspicions import suspect_turns, suspicious_places
from convo_cli.data.checks.suspicious_text import may_be_suspicious
from convo_cli.data.dialogue import Role, Turn
from convo_cli.data.problem_kinds import KINDS
from convo_cli.data.problems import Problem
from tests.conftest import corpus
from tests.faulty_files import CASES, INNOCENT_TEXTS
from tests.memory import with_peak

TOLD_BY_COUNTING = {"one-turn", "long-dialogue", "long-utterance"}
PIECES = st.sampled_from(
    [
        "NULL", "None", "text", "Speaker", "label", "A: ", "B:: ", "User: ", "HUMAN:",
        "Person 1 : ", "x" * 40,
        "3 2 1", "0", "1", "42", "3,5", "-1", " ", "\n", "\n\n", "`", "```", ".", "a", "Z", "é",
        "안녕", "한", "👨",
        "🏴", "Ã", "Â", "â", "&amp;", "&#39", ";", "&", "<|", "|>", "<s>", "</s>", "[INST]", "[",
        "]", "__eou__", "__",
        "## ", "##ing", "a ##b", "### Response:", "\\n", "\\n\\n", "\\'", "\\u00e9", "\\",
        '{"role": "user"',
        "[{'from': 'gpt'", "array([", "b'", "'", "\u200b", "\u200c", "\u200d", "\u2060", "\u00ad",
        "\ufeff", "\u2581",
        "\u0120", "\x7f", "\x85", "\u2028", "\u202e", "\ufffd", "\ue000", "\uffff", "\U000e0041",
        "\U000f0000", "€",
        "™", "\x80", "ï»¿", "ðŸ", "Ð", "Ñ", "Р", "С", "°", "±", "縺", "繧", "ì", "•", "ˆ", "ø",
        "þ", "×", "ß", "ÿ",
        "Submit-Deal", "[deleted]", "#N/A", "\u3164", "\uffa0",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=3), min_size=1, max_size=6).map(
    lambda pieces: "".join(pieces).strip()
)
DIALOGUES = st.lists(
    TEXTS.filter(
        lambda text: (
            text and "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
        )
    ),
    min_size=1,
    max_size=4,
)


def located(texts: list[str]) -> list[tuple[str, Turn]]:
    roles: tuple[Role, Role] = ("user", "assistant")
    return [(f"$[{index}]", Turn(roles[index % 2], text)) for index, text in enumerate(texts)]


def found_without_asking_first(texts: list[str]) -> list[Problem]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suspicions, "suspicious_places", lambda texts, characters: iter([0]))
        return list(suspect_turns(located(texts)))


def suspicious_codes(texts: list[str]) -> set[str]:
    return {problem.code for problem in found_without_asking_first(texts)} - TOLD_BY_COUNTING


def is_caught(texts: str) -> bool:
    return next(suspicious_places(texts, texts), None) is not None


@given(st.lists(DIALOGUES, min_size=1, max_size=4))
@example([["Hello", "\u200d"]])
@example([["é", "\u200dHi"]])
@example([["Ã", "©"]])
@example([["x" * 40, "x" * 40]])
@example([["A: a", "B: b"], ["c", "d"]])
def test_a_place_is_found_in_every_dialogue_with_a_suspicious_text(
    dialogues: list[list[str]],
) -> None:
    together = "\0".join(text for texts in dialogues for text in texts)
    characters = "".join(
        char for char in set(together) if char > "\x7f" and may_be_suspicious(char)
    )
    places = list(suspicious_places(together, characters))
    start = 0
    for texts in dialogues:
        end = start + len("\0".join(texts)) + 1
        if suspicious_codes(texts):
            assert any(start <= place < end for place in places)
        start = end


@given(DIALOGUES)
def test_a_search_for_places_first_finds_the_same_problems(texts: list[str]) -> None:
    problems = list(suspect_turns(located(texts)))
    assert problems == found_without_asking_first(texts)
    assert all(KINDS[problem.code].severity == "warning" for problem in problems)
    assert all(problem.message.isprintable() for problem in problems)


@given(st.lists(st.sampled_from(sorted(INNOCENT_TEXTS)), min_size=2, max_size=5, unique=True))
def test_innocent_texts_are_innocent_in_any_combination(names: list[str]) -> None:
    assert (
        suspicious_codes(["So?", *(INNOCENT_TEXTS[name] for name in names), "Well, well."]) == set()
    )


@pytest.mark.parametrize("name", ["dailydialog", "casino"])
def test_clean_dialogues_have_few_suspicious_places(name: str) -> None:
    lines = [
        line
        for path in sorted(corpus(name).glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    dialogues = [[text.strip() for text in json.loads(line)] for line in lines]
    caught = sum(is_caught("\0".join(texts)) for texts in dialogues)
    assert caught <= 0.002 * len(dialogues)


def test_every_warning_of_the_faulty_files_says_what_it_found_and_where(tmp_path: Path) -> None:
    shown = {finding.code for case in CASES for finding in case.findings}
    assert {code for code, kind in KINDS.items() if kind.severity == "warning"} - shown <= {
        "leakage"
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", "NULL"], 'the text is "NULL"'),
        (["a", "b\u200bc"], "the text contains an invisible character (U+200B)"),
        (["a", "Tom &amp; Jerry"], 'the text contains the HTML entity "&amp;"'),
        (
            ["a", "It’s cafÃ© time"],
            'the text was probably decoded with the wrong encoding: "It’s cafÃ© time"',
        ),
        (["a", "User: hi"], 'the text begins with the name of a speaker, "User:"'),
        (["a", "Deal!", "Submit-Deal"], 'the text is "Submit-Deal", the name of an action'),
        (["speaker", "text"], 'the texts are the column names of a table, such as "speaker"'),
    ],
)
def test_a_message_shows_what_was_found(texts: list[str], message: str) -> None:
    assert [problem.message for problem in suspect_turns(located(texts))] == [message]


def test_each_kind_is_reported_once_per_text() -> None:
    problems = suspect_turns(located(["a\u200bb\u200bc", "d\u200b &amp; &lt;"]))
    assert [(problem.code, problem.path) for problem in problems] == [
        ("zero-width", "$[0]"),
        ("html-entity", "$[1]"),
        ("zero-width", "$[1]"),
    ]


def test_a_system_turn_is_not_a_row_of_labels() -> None:
    turns = [("$.system", Turn("system", "0 1")), *located(["Hello", "Hi!"])]
    assert list(suspect_turns(turns)) == []


def test_a_text_of_many_numbers_takes_little_memory():
    text = "1 " * 2**18 + "1"
    caught, peak = with_peak(lambda: is_caught(text))
    assert not caught
    assert peak < 8 * 2**20


@pytest.mark.parametrize(
    ("texts", "is_label"),
    [
        (["a", "b", "c", "1\t3 4 3\t0 0 4"], True),
        (["a", "b", "c", "1, 3 4 3, 0 0 4"], True),
        (["a", "b", "2 1\t0 0"], True),
        (["1\t3 4\t0 0", "a", "b"], True),
        (["a", "b", "c", "555, 01 99"], False),  # a phone number
        (["a", "b", "c", "12, 1 2024"], False),
        (["a", "b", "1, 2"], False),
        (["a", "b", "c", "4 5 6, 7 8"], False),
        (["a", "1\t3 4\t0 0", "b", "c"], False),
    ],
)
def test_rows_of_labels_are_found_at_the_ends_of_a_dialogue(
    texts: list[str], is_label: bool
) -> None:
    assert is_caught("\0".join(texts)) or not is_label
    codes = [problem.code for problem in suspect_turns(located(texts))]
    assert codes == ["label-row"] * is_label


@pytest.mark.parametrize(
    ("text", "is_markup"),
    [
        ('<div class="markdown prose w-full"><p>Hi</p><pre><code>x</code></pre></div>', True),
        ("<p>Hi</p>\n<p>you</p>\n", True),
        ("<ul>\n<li>one</li>\n</ul>", True),
        ("What does `<div>a</div>` mean?", False),
        ("```html\n<div>a</div>\n```", False),
        ("<b>bold</b> is bold", False),
        ("I <3 you", False),
        ("<p> opens a paragraph", False),
        ("Use <div>a</div>", False),
    ],
)
def test_a_text_that_is_html_is_found_but_not_a_text_about_html(text: str, is_markup: bool) -> None:
    codes = [problem.code for problem in suspect_turns(located(["Write it.", text]))]
    assert codes == ["html-markup"] * is_markup
