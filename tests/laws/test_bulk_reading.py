"""Every way to read the lines of a file gives the same report, to the last field.

Good lines are read together or one by one, in blocks of any size, in one process or several.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.schema import ColumnsConfig, DataConfig, SpeakersConfig, TrainOn
from convo_cli.data.checks.block_reader import BlockReader
from convo_cli.data.checks.bulk import BulkReader
from convo_cli.data.checks.exact import LineRules
from convo_cli.data.checks.report import DataReport
from convo_cli.data.checks.statistics import BlockStatistics
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.reader import iter_blocks
from tests.cases import num_examples
from tests.conftest import CORPORA, SAMPLE_DATA
from tests.faulty_files import CASES

CONFIG = DataConfig(train=("unused",), speakers=SpeakersConfig(user=("user", "human", "Ärztin")))

WORDS = st.sampled_from(
    [
        "Hello", "hi", "Yes.", "안녕하세요", "日本語", "naïve", "É", "ﬁne", "Ｆｕｌｌ",
        "İstanbul", "e\u0301",
        "各\u0300", "ß", "🙂", "👨\u200d👩\u200d👧", "1,234", "C:\\readme", "50%", "a/b",
        '"quoted"', "\\n",
        "\\u00e9", '":', ": {}", "[x]", "NULL", "null", "cafÃ©", "\u200b", "\u2581so", "\x7f",
        "\x85", "&amp;",
        "<|end|>", "##", "__eou__", "A:", "User:", "12", "-3", "a\nb", "a\tb", "  ", "\u3000",
        "\u00a0", "x" * 60,
        '", "', '"}, {"role": "user", "content": "', "\ufffd", "\ue000", "[deleted]", "label",
        "b'x'",
        '{"role": "user"}', "array([1])", "Bot: hi", "\u1100\u1161", "\u212a", "\u2028", "\u00a8",
        "…", "’s",
        "<think>", "</think>", "<THINK>a</think>", "a < b",
    ]
)  # fmt: skip
TEXTS = st.lists(WORDS, min_size=0, max_size=4).map(" ".join) | st.sampled_from(
    [" a ", "\tb\n", "", " "]
)
GOOD_TEXTS = st.lists(
    st.sampled_from(["Hello", "there,", "how", "안녕", "été", "you", "’s", "fine"]),
    min_size=1,
    max_size=4,
).map(" ".join)
NAMES = st.sampled_from(
    ["user", "assistant", "human", "GPT", "bot", "system", "Ärztin", "narrator"]
)
LONG_TEXTS = st.sampled_from(
    [
        "A note under an ignored key, é and all, in full.", "3f2a" * 9,
        "2024-01-02T10:00:00.000000+00:00", "x" * 31,
        "안녕하세요 " * 5, '"quoted" and\nbroken, but long enough', "[]", " " * 40, "https://example.org/a/long/path/1.png",
    ]
)  # fmt: skip
LONG = "A note under an ignored key, long enough to be named."
EXTRAS = st.dictionaries(
    st.sampled_from(
        [
            *["id", "lang", "meta data", "score", "ok", "message", "system", "a" * 50, "k : "],
            *["tags", "note", "tools", "from"],
        ]
    ),
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
        TEXTS, LONG_TEXTS,
        st.lists(TEXTS | LONG_TEXTS, max_size=2),
        st.dictionaries(st.sampled_from(["x", "role"]), TEXTS, max_size=2),
    ),
    max_size=2,
)  # fmt: skip
SAID = st.sampled_from(
    [True, False, None, 0, 1, 0.0, 1.0, 2, 0.5, -1, -0.0, 10, "0", "false", [0, 1], {}]
)
MASKS = st.dictionaries(
    st.sampled_from(["train", "weight", "loss", "weight", "mask"])
    | st.sampled_from(["loss_mask", "Weight", "trian", "height"]),
    SAID, min_size=1, max_size=2,
)  # fmt: skip
REASONING = st.dictionaries(
    st.sampled_from(["reasoning_content", "thinking", "reasoning"]),
    st.sampled_from([None, "", "  ", False, 3, "Two and two.", "<think>Two</think>", ["a"]]),
    min_size=1, max_size=2,
)  # fmt: skip
REFERENCES = st.sampled_from(
    [{"references": value} for value in (None, [], "a", ["a"], ["b", "c"], ["b", " "], [{}], [1])]
)
HISTORY = st.sampled_from(
    [
        *([], None, 0, 5, False, True, 0.0, 0.5, "before", {"a": "b"}),
        *([["a", "b"]], [["a", "b"], ["c", "d"]], [["a"]]),
    ]
)
CALL = {"id": "c1", "type": "function", "function": {"name": "w", "arguments": "{}"}}
CALLS = st.sampled_from(
    [
        *({"tool_calls": [CALL]}, {"tool_calls": []}, {"tool_calls": "[]"}, {"tool_calls": None}),
        *({"tool_calls": "x"}, {"tool_calls": [{"name": "w", "arguments": {"a": "b"}}]}),
        *({"function_call": {"name": "w"}}, {"function_call": "auto"}, {"tool_call_id": "c1"}),
        *({"role": "tool"}, {"from": "observation"}, {"role": "function_call", "content": "{"}),
        *({"role": "tool", "content": None}, {"role": "function_call", "content": '{"name": "w"}'}),
    ]
)
DEFINITIONS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        *({"tools": [CALL]}, {"tools": ["a"]}, {"tools": "[]"}, {"functions": '[{"name": "w"}]'}),
        *({"tools": "[{"}, {"tools": "hammer"}, {"functions": [{"name": 5}]}, {"tools": {}}),
    ]
)
BESIDE = (
    st.just({})
    | MASKS
    | REASONING
    | REFERENCES
    | st.builds(lambda pairs: {"history": pairs}, HISTORY)
)


@st.composite
def values(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> Any:
    """A dialogue of any shape, or something like one."""
    said = draw(st.lists(texts, min_size=0, max_size=4))
    match draw(st.integers(0, 6)):
        case 0 | 1:
            return said
        case 2:
            line = {"instruction": "a", "input": draw(texts), **draw(BESIDE), "output": "b"}
            return line | draw(EXTRAS)
        case 3:
            return {"completion": "a", **draw(EXTRAS), **draw(BESIDE), "prompt": draw(texts)}
        case _:
            speaker, text = draw(
                st.sampled_from([("role", "content"), ("from", "value"), ("speaker", "text")])
            )
            turns: list[Any] = [{speaker: draw(NAMES), text: one} for one in said]
            for turn in turns:
                if draw(st.integers(0, 3)) == 0:
                    turn.update(draw(EXTRAS | MASKS | REASONING | REFERENCES | CALLS))
            if turns and draw(st.integers(0, 3)) == 0:  # what a line says twice is not lost
                turns[0]["note"] = turns[0][text]
            key = draw(st.sampled_from(["messages", "conversations", "turns"]))
            before, after = draw(EXTRAS), draw(EXTRAS | st.just({}) | MASKS | DEFINITIONS)
            return draw(st.sampled_from([turns, before | {key: turns} | after]))


WRITERS: list[Callable[[Any], str]] = [
    json.dumps,
    lambda value: json.dumps(value, ensure_ascii=False),
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    lambda value: json.dumps(value, ensure_ascii=False, separators=(" , ", " : ")),
    lambda value: json.dumps(value).replace("/", "\\/").replace("a", "\\u0061"),
]
FAULTS = [
    b"", b"  ", b' ["a", "b"] ', b'["a"', b'["a", "b"', b'"', b"\xff", b'["caf\xe9"]',
    b'["a\\u0000"]',
    b'["a\x07b", "c"]', b'["\\ud800", "b"]', b'["\\ud83d\\ude42", "\\u00e9"]',
    b'["\\u0022", "\\u005c"]',
    b'["a\\r\\n", "b"]', b"[]", b"{}", b'["a", "b"]\r', b'{"turns": ["a", "b"], "turns": ["c"]}',
    b'{"b": "x", "b": 2, "turns": ["a", "b"]}', b"5", b'["a", NaN]',
    b'{"turns": ["a", "b"], "id": 1e999}',
    b'{"turns": ["a", "b"], "id": 01}', b"x" * 3000, b'{"turns" : ["a", "b"], "turns": "x"}',
    b'["a", "b"] ["c", "d"]', b'\xef\xbb\xbf["a", "b"]', b"[" * 70 + b"]" * 70, b'["\\x", "b"]',
    b'["\\U0001F600", "b"]', b'["a\\\\", "b"]', b'["\\\\u0041", "\\\\\\"b"]', b'["a",\\u0020"b"]',
]  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Mostly good lines of a few shapes, for the bulk reader, and faulty ones of all kinds."""
    writer = draw(st.sampled_from(WRITERS))
    made = [
        writer(value).encode()
        for value in draw(st.lists(values(GOOD_TEXTS), min_size=1, max_size=8))
    ]
    made += [
        draw(st.sampled_from(WRITERS))(value).encode()
        for value in draw(st.lists(values(TEXTS), max_size=8))
    ]
    made += draw(st.lists(st.sampled_from(FAULTS), max_size=4))
    return b"\n".join(draw(st.permutations(made * draw(st.integers(1, 3)))))


def turns(speaker: str, text: str, *said: tuple[str, str], **extra: Any) -> list[dict[str, Any]]:
    """Turns of the same keys, the extra ones in the first alone."""
    return [
        {speaker: name, text: one} | (extra if index == 0 else {})
        for index, (name, one) in enumerate(said)
    ]


def turns_of(*texts: str) -> list[dict[str, Any]]:
    return turns("role", "content", *zip(("user", "assistant"), texts, strict=True))


def reports(
    paths: Sequence[str], block_bytes: int, config: DataConfig = CONFIG, **options: Any
) -> list[DataReport]:
    """The reports from reading in bulk, line by line, and each block as in a worker."""
    read = BlockReader.read

    def read_apart(self: BlockReader, data: bytes) -> BlockStatistics:
        return pickle.loads(pickle.dumps(read(BlockReader(self._rules, self._max_kept), data)))

    with patch("convo_cli.data.blocks.BUFFER_BYTES", block_bytes):
        made = [validate_files(paths, config, **options)]
        with patch.object(BulkReader, "read", lambda self, data: BlockStatistics()):
            made.append(validate_files(paths, config, **options))
        with patch.object(BlockReader, "read", read_apart):
            made.append(validate_files(paths, config, **options))
    return made


def assert_same(report: DataReport, *others: DataReport) -> None:
    for other in others:
        assert report == other
        for ours, theirs in zip(report.files, other.files, strict=True):
            for name in ("shapes", "unread_keys", "scripts"):
                assert list(getattr(ours, name)) == list(getattr(theirs, name)), name


@settings(max_examples=num_examples(300), deadline=None)
@given(
    st.lists(files(), min_size=1, max_size=2),
    st.sampled_from([16, 100, 1000, 2**18]),
    st.sampled_from(["assistant", "all", "last"]),
    st.sampled_from(["user", "assistant"]),
    st.sampled_from([None, "keep", "drop"]),
    st.integers(0, 3),
)
def test_the_report_is_the_same_as_from_reading_line_by_line(
    tmp_path_factory: pytest.TempPathFactory,
    contents: list[bytes],
    block_bytes: int,
    train_on: TrainOn,
    first_speaker: str,
    reasoning: str | None,
    max_problems: int,
) -> None:
    folder = tmp_path_factory.mktemp("data")
    paths = []
    for name, content in zip("ab", contents, strict=False):
        (folder / name).write_bytes(content)
        paths.append(str(folder / name))
    config = CONFIG.model_copy(update={"first_speaker": first_speaker, "reasoning": reasoning})
    options: Any = {"train_on": train_on, "max_problems": max_problems}
    whole = validate_files(paths, config, **options)
    assert_same(whole, *reports(paths, block_bytes, config, **options))


@pytest.mark.parametrize("writer", range(len(WRITERS)))
@pytest.mark.parametrize("key", ["weight", "loss", "train"])
@pytest.mark.parametrize("said", [[1, 0, 0.5, 1, 0, 10, 1.0], [0, 1, 2, 0, 1, -1, 0.0]])
def test_numbers_that_decide_what_is_trained_on_are_kept_apart(
    tmp_path: Path, said: list[float], key: str, writer: int
) -> None:
    """Lines that differ in numbers alone are read together, but for these."""
    of_turn, of_dialogue = (
        [
            {"id": number, **above, "messages": turns("role", "content", *TALK, **extra)}
            for number, (above, extra) in enumerate(each)
        ]
        for each in ([({}, {key: one}) for one in said], [({key: one}, {}) for one in said])
    )
    path = tmp_path / "a"
    for lines in (of_turn, of_dialogue):
        path.write_text("".join(WRITERS[writer](line) + "\n" for line in lines))
        report, *others = reports([str(path)], 2**18)
        assert_same(report, *others)
        (file,) = report.files
        num_zero = sum(one == 0 for one in said)
        assert {
            group.code: group.count for group in file.problem_groups if group.severity == "error"
        } == {"train-value": sum(one not in (0, 1) for one in said)}
        assert (file.num_untrained_turns, file.num_excluded) == (
            (num_zero, 0) if lines is of_turn else (0, num_zero)
        )


@pytest.mark.parametrize(
    "lines",
    [
        [
            {"prompt": "a", "completion": "b", "history": 0},
            {"prompt": "c", "completion": "d", "history": 5},
        ],
        [{"messages": turns_of("Hello there", "Hi!"), "from": "text 0"}],
        [
            {
                "messages": [
                    {"role": "user", "content": "Hello there", "speaker": "text 0"},
                    *turns_of("a", "b"),
                ]
            }
        ],
        [["Hello", "ok 縺é"], ["縺éé縺 b", "fine"]],
        [[["Hello", "Hi!"], ["Bye", "ok"]], [["user", "Hi"], ["Assistant ", "ok"]]],
    ],
    ids=[
        *["zero as history", "a name like a placeholder", "a second name"],
        *["mojibake at both ends", "names in pairs"],
    ],
)
def test_lines_that_are_easily_confused_are_kept_apart(tmp_path: Path, lines: list[Any]) -> None:
    path = tmp_path / "a"
    for given_lines in (lines, lines[::-1]):
        path.write_text("".join(json.dumps(line) + "\n" for line in given_lines))
        assert_same(*reports([str(path)], 2**18))


@pytest.mark.parametrize("text", ["NULL", "é", "plain"])
def test_the_order_of_shapes_and_keys_is_that_of_their_first_lines(
    tmp_path: Path, text: str
) -> None:
    """Also if the first line of a shape is suspicious or beyond ASCII, and so read last."""
    path = tmp_path / "a"
    first, second = (
        {"turns": [text, "b"], "note": LONG},
        {"messages": turns_of("c", "d"), "memo": LONG},
    )
    last = {"turns": ["e", "f"], "note": LONG}
    path.write_text(
        "".join(json.dumps(line) + "\n" for line in (first, second, second | {"id": 1}, last))
    )
    report, *others = reports([str(path)], 2**18)
    assert_same(report, *others)
    (file,) = report.files
    assert list(file.shapes) == ["turns", "messages"]
    assert list(file.unread_keys)[:2] == ["note", "memo"]
    unread = [
        problem.line
        for group in file.problem_groups
        for problem in group.problems
        if group.code == "unread-text"
    ]
    assert unread == [1, 2]


@pytest.mark.parametrize("block_bytes", [500, 2**18])
def test_faulty_files_have_the_same_report(tmp_path: Path, block_bytes: int) -> None:
    """Each by itself, and the lines of all of them among good ones."""
    paths = []
    for case in CASES:
        path = tmp_path / case.file_name
        path.write_bytes(case.content)
        paths.append(str(path))
        assert_same(*reports([str(path)], block_bytes))
    lines = [
        line for case in CASES if case.suffix == ".jsonl" for line in case.content.split(b"\n")
    ]
    good = [json.dumps([f"Hello {number}", "Hi!"]).encode() for number in range(len(lines))]
    mixed = tmp_path / "mixed"
    mixed.write_bytes(
        b"\n".join(line for pair in zip(good, lines, good, strict=True) for line in pair)
    )
    assert_same(*reports([str(mixed)], block_bytes, max_problems=10_000))


CORPUS_FILES = [*sorted(SAMPLE_DATA.glob("*.jsonl")), *sorted(CORPORA.glob("*/*.jsonl"))]


@pytest.mark.parametrize("path", CORPUS_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_files_have_the_same_report(path: Path) -> None:
    assert_same(*reports([str(path)], 2**18))


def test_most_lines_of_a_real_file_are_read_in_bulk() -> None:
    """Otherwise the laws above would hold for a bulk reader that reads nothing."""
    bulk = BulkReader(LineRules(CONFIG, "assistant"))
    blocks = list(iter_blocks(str(SAMPLE_DATA / "train.jsonl")))
    assert sum(len(bulk.read(block.data).dialogues) for block in blocks) > 0.9 * sum(
        len(block.numbers) for block in blocks
    )


TALK = (("assistant", "Hello?"), ("user", "Hi!"), ("assistant", "Tea?"))

SHAPES: dict[str, Callable[[str, int], Any]] = {
    "texts": lambda text, number: [text, "Hi!", text],
    "messages": lambda text, number: {
        "id": number,
        "messages": turns(
            "role",
            "content",
            ("system", "a"),
            ("user", text),
            ("assistant", text),
            train=number % 2 == 0,
        ),
    },
    "sharegpt": lambda text, number: {
        "score": number / 7,
        "conversations": turns("from", "value", ("human", text), ("gpt", "é"), weight=None),
        "source": {"name": text, "tags": ["a", "b"]},
    },
    "masks": lambda text, number: {
        "weight": 1,
        "messages": turns(
            "role", "content", ("user", text), ("assistant", text), weight=number % 2, note="é" * 40
        ),
    },
    "speakers": lambda text, number: turns(
        "speaker", "text", ("user", text), ("assistant", " a "), id=text
    ),
    "system": lambda text, number: {"system": "Be kind", "turns": [text, "b"]},
    "prompt": lambda text, number: {"prompt": text, "completion": text},
    "instruction": lambda text, number: {"instruction": text, "input": "", "output": text},
}


MAPPED: dict[str, tuple[dict[str, str], Callable[[str, int], Any]]] = {
    "turns": (
        {"turns": "meta.log", "speaker": "by.who", "text": "say"},
        lambda text, number: {
            "meta": {"id": number, "log": [
                {"by": {"who": name, "at": "noon"}, "say": text} for name in ("user", "bot")
            ]},
            "messages": text,
        },
    ),
    "pairs": (
        {"user": "q", "assistant": "row.a", "system": "brief"},
        lambda text, number: {"brief": "Be kind", "q": text, "row": {"a": text, "n": number}},
    ),
    "list of pairs": (
        {"turns": "log", "user": "u", "assistant": "s"},
        lambda text, number: {"log": [{"u": text, "s": "Yes"}, {"u": text, "s": text}]},
    ),
}  # fmt: skip
"""Paths of `data.columns`, and lines that they map."""


@pytest.mark.parametrize("name", sorted(MAPPED))
def test_mapped_lines_are_read_in_bulk_with_the_same_result(name: str) -> None:
    paths, make = MAPPED[name]
    rules = LineRules(CONFIG.model_copy(update={"columns": ColumnsConfig(**paths)}), "assistant")
    values = [make(f"Hello {number}, 안녕", number) for number in range(60)]
    good = "".join(json.dumps(value) + "\n" for value in values).encode()
    assert len(BulkReader(rules).read(good).dialogues) == 60
    values += [make("a &amp; b", 0), make(" ", 0), {"other": "x"}, ["Hi"], values[0]]
    values.append(json.loads(json.dumps(values[1]).replace('"bot"', '"zed"')))
    block = "".join(json.dumps(value) + "\n" for value in values).encode()
    reader, exact = BlockReader(rules, 5), BlockReader(rules, 5)
    with patch.object(BulkReader, "read", lambda self, data: BlockStatistics()):
        alone = exact.read(block)
    together = reader.read(block)
    for field in ("skeletons", "unread", "problems", "num_ascii_letters"):
        assert getattr(together, field) == getattr(alone, field)
    assert sorted(together.dialogues) == sorted(alone.dialogues)
    assert sorted(together.fingerprints) == sorted(alone.fingerprints)


@pytest.mark.parametrize("writer", range(len(WRITERS) - 2))
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_plain_dialogues_of_every_shape_are_read_in_bulk(shape: str, writer: int) -> None:
    bulk = BulkReader(LineRules(CONFIG, "assistant"))
    values = [SHAPES[shape](f'Hello "{number}"\n안녕', number) for number in range(100)]
    block = "".join(WRITERS[writer](value) + "\n" for value in values).encode()
    assert len(bulk.read(block).dialogues) == 100
