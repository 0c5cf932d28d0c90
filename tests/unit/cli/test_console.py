"""No control sequence of foreign text reaches the terminal, and nothing else is lost."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convo_cli import __version__
from convo_cli.cli.console import (
    PrintableStream,
    print_json,
    printable,
    show_error,
    stderr_console,
    stdout_console,
)
from convo_cli.errors import ConfigError, ProblemDetail, StoppedError

CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u115f\u1160\u200b\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]"
    "|[\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
PIECES = st.sampled_from(
    [
        "\x1b",
        "\x1b[",
        "\x1b]",
        "\x1bP",
        "\x9b",
        "\x9d",
        "\x90",
        "\x9c",
        "\x07",
        "\x1b\\",
        "0;",
        "31m",
        "text",
        "\n",
        "é",
        "\u202e",
        " ",
        "\x18",
        "a" * 5000,
        ";" * 300,
    ]
)
HOSTILE = st.one_of(
    st.text(), st.text(st.characters(max_codepoint=0xA0)), st.lists(PIECES).map("".join)
)


@given(text=HOSTILE)
@example(text="\x1b\x1b[31m[31m")
@example(text="\x1b]0;a\x1b]0;b\x07")
def test_no_control_character_is_left_but_newline_and_tab(text):
    shown = printable(text)
    assert not CONTROL.search(shown)
    assert printable(shown) == shown
    assert shown.encode("utf-8").decode("utf-8") == shown


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])).filter(
        lambda text: not CONTROL.search(text)
    )
)
def test_text_without_control_characters_stays_as_it_is(text):
    assert printable(text) == text


@given(before=st.text("ab [];0m\n안🙂"), after=st.text("ab [];0m\n안🙂"))
@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b[31m", "\x1b[1;2;3;38:5:1m", "\x9b2J", "\x1b[?1049h", "\x1b[ q", "\x1b]0;title\x07",
        "\x1b]8;;http://x\x1b\\", "\x9d52;c;AAAA\x9c", "\x1bP1$r\x1b\\", "\x90q\x9c",
        "\x1bXsos\x1b\\", "\x1b^pm\x1b\\", "\x1b_apc\x1b\\", "\x1bc", "\x1b(B", "\x1b7", "\x07",
        "\x08", "\r", "\x7f", "\x85", "\x00", "\x1b]52;c;" + "A" * 4000 + "\x07", "\u202e",
        "\u2066", "\u2069", "\u200b", "\u2060", "\ufeff", "\u00ad", "\u3164", "\u115f", "\ufff9",
        "\u2028", "\U000e0041\U000e007f",
    ],
)  # fmt: skip
def test_a_whole_sequence_goes_and_all_the_text_around_it_stays(sequence, before, after):
    assert printable(before + sequence + after) == before + after


@pytest.mark.parametrize("opening", ["\x1b]", "\x9d", "\x1bP", "\x90", "\x1b_"])
def test_a_sequence_that_never_ends_does_not_swallow_what_follows(opening):
    assert (
        printable(f"error: {opening}no such file\nhint: look") == "error: no such file\nhint: look"
    )


def test_marks_that_right_to_left_text_is_typed_with_stay():
    text = "\u200fשלום\u200e \u061cسلام می\u200cخواهم"
    assert printable(text) == text


def test_emoji_and_scripts_that_need_joiners_and_selectors_stay():
    text = "👩\u200d👩\u200d👧 ❤\ufe0f ☎\ufe0e क्\u200dष می\u200cروم 葛\U000e0100 ᠠ\u180b"
    assert printable(text) == text


def test_json_shows_what_is_unseen_as_escapes_of_the_same_value(capsys):
    text = "a\x9b\u202e\u200b\u00ad\U000e0041\u2028\ufeffb é 안 👩\u200d👧"
    print_json("train", {"text": text})
    out = capsys.readouterr().out
    assert not CONTROL.search(out)
    assert "\\u009b\\u202e\\u200b\\u00ad\\udb40\\udc41\\u2028\\ufeffb é 안 👩\u200d👧" in out
    assert json.loads(out)["text"] == text


# The same for a text that arrives in pieces


def streamed(pieces):
    stream = PrintableStream()
    return [*map(stream.push, pieces), stream.finish()]


@given(text=HOSTILE, cuts=st.lists(st.integers(0, 60)))
def test_pieces_show_exactly_what_the_whole_text_shows_wherever_they_are_cut(text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert "".join(streamed(text[a:b] for a, b in pairwise(edges))) == printable(text)
    assert "".join(streamed(text)) == printable(text)


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])).filter(
        lambda text: not CONTROL.search(text)
    )
)
def test_a_stream_holds_nothing_back_but_what_may_become_a_sequence(text):
    stream = PrintableStream()
    assert stream.push(text) == text
    assert stream.push("\x1b") == ""
    assert stream.push("[31") == ""
    assert stream.push(f"m{text}") == text
    assert stream.finish() == ""


@pytest.mark.parametrize("opening", ["\x1b]", "\x9d", "\x1bP", "\x9b", "\x1b[", "\x1b", "\x1b_"])
@pytest.mark.parametrize("filler", ["a", "0", ";", " ", "\x1b", "\x9d", "é"])
def test_a_sequence_that_never_ends_neither_swallows_a_stream_nor_grows_in_memory(opening, filler):
    stream, shown = PrintableStream(), ""
    started = time.process_time()
    for _ in range(3000):
        shown += stream.push(opening + filler * 10)
    for _ in range(3000):
        shown += stream.push(filler * 10)
        assert len(stream._unfinished) < 5000
    shown += stream.finish()
    assert time.process_time() - started < 5
    assert shown == printable((opening + filler * 10) * 3000 + filler * 30_000)
    if filler in "aé":
        assert len(shown) > 25_000


def test_a_lone_surrogate_becomes_a_question_mark():
    assert printable("a\udcffb") == "a?b"


@pytest.mark.parametrize(
    "piece", ["\x9d", "\x1b]", "\x1b[", "\x9b0", "\x1b]a", "\x1b ", "\x1b[ ", "\x9da"]
)
def test_the_time_does_not_explode_with_hostile_text(piece):
    started = time.process_time()
    assert "\x1b" not in printable(piece * 100_000)
    assert time.process_time() - started < 2


# What is written where


def test_a_console_takes_no_string_for_markup_or_for_an_emoji(capsys):
    from rich.table import Table

    for make in (stdout_console, stderr_console):
        table = Table("[bold]head[/bold]")
        table.add_row("[link=file:///etc]:smile: [/INST]")
        console = make()
        console.print("[red]:heart:[/red]", table)
    out, err = capsys.readouterr()
    for shown in (out, err):
        for text in (
            "[bold]head[/bold]",
            "[link=file:///etc]:smile: [/INST]",
            "[red]:heart:[/red]",
        ):
            assert text in shown


def test_json_is_one_versioned_line_that_reads_back(capsys):
    result = {"text": "안녕\n\x1b[31m\x9b2J\x7f\u202e\u2028", "loss": 1 / 3}
    print_json("evaluate", result)
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "convo": __version__,
        "json_version": 2,
        "command": "evaluate",
        **result,
    }
    assert "안녕" in out
    assert not CONTROL.search(out.rstrip("\n"))
    assert out.count("\n") == 1
    assert err == ""


def test_a_lone_surrogate_is_a_question_mark_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json("chat", {"text": "a\udcffb"})
    assert json.loads(capsys.readouterr().out)["text"] == "a?b"


def test_json_has_no_number_that_json_has_not():
    with pytest.raises(ValueError, match="JSON"):
        print_json("evaluate", {"loss": float("nan")})


def test_an_error_is_shown_on_stderr_with_its_hint_and_without_control_sequences(capsys):
    show_error(ConfigError("bad \x1b[31mname", hint="use \x9b2Janother"))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: bad name\nhint: use another\n")


def test_an_error_that_quotes_a_book_is_shortened_in_its_middle(capsys):
    show_error(ConfigError("begin " + "x" * 10**6, hint="end"))
    err = capsys.readouterr().err
    assert err.startswith("error: begin xxx")
    assert err.endswith("xxx\nhint: end\n")
    assert " […] " in err
    assert len(err) < 21_000


def test_an_error_without_a_hint_is_one_line(capsys):
    show_error(ConfigError("bad"))
    assert capsys.readouterr().err == "error: bad\n"


def test_an_error_is_an_object_on_stdout_too_where_json_was_asked_for(capsys):
    place = {"file": "c.yaml", "line": 3, "column": 1, "key": "seed", "hint": None}
    problems = [ProblemDetail("wrong", file="c.yaml", line=3, column=1, key="seed")]
    error = ConfigError("bad", hint="do", problems=problems)
    show_error(error, command="train", as_json=True)
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer["command"] == "train"
    assert answer["error"] == {
        "message": "bad",
        "hint": "do",
        "exit_code": 2,
        "problems": [{"message": "wrong", **place}],
    }
    assert err == "error: bad\nhint: do\n"


def test_a_stop_that_was_asked_for_is_no_error(capsys):
    show_error(StoppedError(2, "stopped after step 5", hint="convo resume runs/x"))
    assert capsys.readouterr().err == "stopped after step 5\nhint: convo resume runs/x\n"
