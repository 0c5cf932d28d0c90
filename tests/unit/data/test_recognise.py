from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.data.recognise import recognise_compression, recognise_content

WORDS = st.text(st.characters(categories=["L"], max_codepoint=0x24F), min_size=1, max_size=8)
CELLS = st.lists(WORDS, min_size=1, max_size=5).map(", ".join)


def code_of(head: bytes, suffix: str = ".jsonl") -> str | None:
    problem = recognise_content(head, suffix)
    return None if problem is None else problem.code


@given(
    st.integers(2, 4).flatmap(
        lambda width: st.lists(
            st.lists(CELLS, min_size=width, max_size=width), min_size=2, max_size=8
        )
    )
)
def test_every_output_of_the_csv_module_is_a_table(rows: list[list[str]]) -> None:
    for delimiter in "\t,;|":
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
        assert code_of(text.getvalue().encode()) == "csv-file"


@given(
    st.lists(
        st.recursive(
            WORDS | st.integers() | st.none() | st.booleans(),
            lambda inner: st.lists(inner, max_size=3),
        ),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_json_lines_are_never_mistaken_for_another_format(
    values: list[object], has_mark: bool
) -> None:
    lines = "\n".join(json.dumps([value], ensure_ascii=False) for value in values).encode()
    assert code_of((b"\xef\xbb\xbf" if has_mark else b"") + lines) is None


@pytest.mark.parametrize(
    "head",
    [
        b'"Hello, you."\n"Hi!"\n',
        b"5\n6\n",
        b"null\n",
        b"NaN\n",
        b"['Hello', 'Hi!']\n",
        b"('Hello', 'Hi!')\n",
        b'Hello\n["Hello", "Hi!"]\n',
        b"\x81\xa4\x82 not utf 8\n",
    ],
)
def test_lines_that_resemble_json_are_left_to_the_decoder(head: bytes) -> None:
    assert code_of(head) is None


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            b"404: Not Found",
            'the file is plain text, not JSON Lines; it begins with "404: Not Found"',
        ),
        (b"<?xml?>", 'the file is XML, not JSON Lines; it begins with "<?xml?>"'),
        (b"a|b\nc|d\n", 'the file is a table with bar-separated columns; it begins with "a|b"'),
    ],
)
def test_the_message_shows_how_the_file_begins(head: bytes, message: str) -> None:
    problem = recognise_content(head, ".jsonl")
    assert problem is not None
    assert problem.message == message


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=3),
    st.sampled_from(["UTF-16", "UTF-32"]),
    st.sampled_from(["LE", "BE"]),
    st.booleans(),
)
def test_wide_text_is_named_as_iconv_names_it(
    text: str, encoding: str, order: str, has_mark: bool
) -> None:
    """The text follows the bracket that begins a line of JSON."""
    mark = "\ufeff" if has_mark else ""
    head = f"{mark}[{text}".encode(f"{encoding}-{order}")
    problem = recognise_content(head, ".jsonl")
    assert problem is not None
    assert problem.code == encoding.lower()
    name = encoding if has_mark else encoding + order
    assert problem.message == f"the file is {name}, but JSON Lines are UTF-8"
    assert head.decode(name).removeprefix("\ufeff") == f"[{text}"


def test_a_zero_byte_inside_json_is_no_encoding() -> None:
    assert code_of(b'["\0", "Hi"]') is None


@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".csv", ".tsv", ".gz", ".zst", ""]))
def test_any_bytes_are_judged_without_an_error(head: bytes, suffix: str) -> None:
    for problem in (recognise_compression(head[:4], suffix), recognise_content(head, suffix)):
        assert problem is None or (problem.severity == "error" and problem.message.isprintable())


LOGS = {
    "irc": "[12:00] <ada> Hi\n[12:01] <ben> Hello\n[12:02] * ada waves\n",
    "irssi": "12:00 < ada> Hi\n12:01 <@ben> Hello\n12:02 -!- cleo has joined\n",
    "nicknames": "<ada> Hi\n<ben> Hello\n",
    "weechat": "2024-01-02 10:00:00\tada\tHi\n".replace("\t", " ").replace(" Hi", ": Hi") * 3,
    "whatsapp": "[02/01/24, 10:00:00] Ada: Coming?\n[02/01/24, 10:01:00] Ben: Yes\n",
    "android": "02/01/2024, 10:00 - Ada: Coming?\nand when?\n02/01/2024, 10:01 - Ben: Yes\n",
}


@pytest.mark.parametrize("name", LOGS)
def test_a_log_of_a_chat_is_one_problem(name: str) -> None:
    problem = recognise_content(LOGS[name].encode(), ".txt")
    assert problem is not None
    assert problem.code == "chat-log"
    assert "convo import" in problem.hint


def test_tables_and_dialogues_are_not_logs() -> None:
    table = b"2024-01-02 10:00:00,ada,Hi\n2024-01-02 10:01:00,ben,Hello\n"
    problem = recognise_content(table, ".csv")
    assert problem is not None
    assert problem.code == "csv-file"
    for line in (b'["12:00", "Hi"]\n', b'[["02/01/24"], 3]\n', b"[12, 3]\n"):
        assert recognise_content(line * 3, ".jsonl") is None


def test_an_array_over_several_lines_names_the_format_of_its_values() -> None:
    slack = json.dumps([{"type": "message", "user": "U1", "text": "a", "ts": "1.1"}] * 3, indent=1)
    pair = json.dumps([{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "c"}], indent=2)
    telegram = json.dumps({"messages": [{"from_id": "user1", "text": "a"}]}, indent=1)
    for text, what in ((slack, "Slack"), (pair, "preference pair"), (telegram, "Telegram")):
        problem = recognise_content(text.encode(), ".json")
        assert problem is not None
        assert problem.code == "other-format"
        assert what in problem.message
    dialogues = json.dumps([{"messages": [{"role": "user", "content": "a"}]}], indent=1)
    problem = recognise_content(dialogues.encode(), ".json")
    assert problem is not None
    assert problem.code == "pretty-printed-json"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_pointer_or_a_page_with_the_name_of_packed_data_is_named(suffix: str) -> None:
    pointer = recognise_compression(b"version https://git-lfs.github.com/spec/v1\n", suffix)
    assert pointer is not None
    assert pointer.code == "git-lfs-pointer"
    page = recognise_compression(b"<!DOCTYPE html><html>", suffix)
    assert page is not None
    assert page.code == "html-page"
