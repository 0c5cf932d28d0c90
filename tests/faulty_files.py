"""Faulty data files with the problems that validation must find in each, and good ones.

python -m tests.faulty_files FOLDER     writes them all, and index.json with their problems
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zstandard


@dataclass(frozen=True)
class Finding:
    """A problem; column 0 and an empty path match any."""

    code: str
    line: int = 1
    column: int = 0
    path: str = ""


@dataclass(frozen=True)
class Case:
    name: str
    content: bytes
    findings: tuple[Finding, ...] = ()
    suffix: str = ".jsonl"

    @property
    def file_name(self) -> str:
        return self.name.replace(" ", "-") + self.suffix


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
BOM = b"\xef\xbb\xbf"


def dumped(value: Any, *, is_ascii: bool = False) -> bytes:
    return json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")


def as_lines(*values: Any) -> bytes:
    """Return one line for each value; bytes are written as they are."""
    return b"".join(
        (value if isinstance(value, bytes) else dumped(value)) + b"\n" for value in values
    )


def amid(line: Any) -> bytes:
    """Return a file with the line between two good ones."""
    return as_lines(["Good morning!", "Morning. Coffee?"], line, ["See you tomorrow.", "Bye!"])


GOOD = amid(["How was your weekend?", "Quiet, I read a book."])


def misread(text: str, encoding: str) -> str:
    """Decode UTF-8 in another encoding as lenient programs do, with controls for unknown bytes."""
    return "".join(_misread_byte(byte, encoding) for byte in text.encode())


def _misread_byte(byte: int, encoding: str) -> str:
    try:
        return bytes([byte]).decode(encoding)
    except UnicodeDecodeError:
        return chr(byte)


def _whole_file(code: str, contents: dict[str, bytes | tuple[bytes, str]]) -> Iterator[Case]:
    for name, content in contents.items():
        data, suffix = content if isinstance(content, tuple) else (content, ".jsonl")
        yield Case(name, data, (Finding(code, 1, 1, "$"),), suffix)


def _zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("train.jsonl"), GOOD)
    return packed.getvalue()


def _tarred() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("train.jsonl")
        member.size = len(GOOD)
        archive.addfile(member, io.BytesIO(GOOD))
    return packed.getvalue()


DIALOGUES = [["Hello", "Hi!"], ["Where to?", "To the station."], ["One ticket", "Two pounds"]]
MESSAGES = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
]


def whole_files() -> Iterator[Case]:
    """Files without any readable line."""
    yield from _whole_file(
        "empty-file",
        {
            "empty": b"",
            "only a byte order mark": BOM,
            "only blank lines": b"\n\n  \r\n\t\n",
            "empty gzip": (PACKERS[".gz"](b""), ".jsonl.gz"),
            "blank zstandard": (PACKERS[".zst"](b"\n\n"), ".jsonl.zst"),
        },
    )
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345678\n"
    yield from _whole_file(
        "git-lfs-pointer",
        {"git lfs pointer": pointer, "git lfs pointer with crlf": pointer.replace(b"\n", b"\r\n")},
    )
    yield from _whole_file(
        "html-page",
        {
            "html error page": b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n",
            "html login page after a blank line": b"\n<html lang='en'>\n<body>Sign "
            b"in</body></html>",
        },
    )
    yield from _whole_file(
        "csv-file",
        {
            "csv": (b"question,answer\nHi,Hello\nBye,Bye bye\n", ".csv"),
            "csv named jsonl": b"question,answer\nHi,Hello\nBye,Bye bye\n",
            "csv quoted": b'"question","answer"\n"Hello, you","Hi"\n"Well, well, well","Yes, '
            b'indeed"\n',
            "csv with line ends in quotes": b'id,text\n1,"Hello\nyou"\n2,"a, b"\n',
            "csv with semicolons": (
                b"frage;antwort\nHallo;Guten Tag, Sie\nTsch\xc3\xbcss;Ade\n",
                ".csv",
            ),
            "csv with bars": b"speaker|text\nA|Hello\nB|Hi\n",
            "csv after a byte order mark": BOM + b"question,answer\r\nHi,Hello\r\n",
            "tsv": (b"speaker\ttext\nA\tHello, you\nB\tHi\n", ".tsv"),
            "tsv named txt": (b"1\tHello\n2\tHi\n", ".txt"),
            "csv of one column": (b"text\nHello\n", ".csv"),
            "csv packed": (PACKERS[".gz"](b"question,answer\nHi,Hello\n"), ".csv.gz"),
        },
    )
    yield from _whole_file(
        "plain-text",
        {
            "plain text": b"Hello there!\nHi, how are you?\nFine.\n",
            "original dailydialog": b"The kitchen stinks . __eou__ I'll clean it . __eou__\nSo "
            b"Dick , __eou__\n",
            "original dailydialog labels": b"3 4 2 2 2 3\n2 1 2 1\n",
            "yaml": b"- role: user\n  content: Hello\n- role: assistant\n  content: Hi\n",
            "xml": b'<?xml version="1.0"?>\n<dialogues><turn>Hello</turn></dialogues>\n',
            "answer of a server": b"404: Not Found",
            "korean text": "안녕하세요\n네, 안녕하세요\n".encode(),
            "a python script": b"import json\n\nfor line in open('x'):\n    print(line)\n",
        },
    )
    yield from _whole_file(
        "pretty-printed-json",
        {
            "pretty printed array": (json.dumps(DIALOGUES, indent=2).encode(), ".json"),
            "pretty printed objects": json.dumps(MESSAGES, indent=4).encode(),
            "pretty printed object with tabs": json.dumps(MESSAGES[0], indent="\t").encode(),
            "array over several lines": b"[\n" + b",\n".join(map(dumped, DIALOGUES)) + b"\n]\n",
            "array that begins on the first line": b"["
            + b",\n".join(map(dumped, DIALOGUES))
            + b"]\n",
            "pretty printed with crlf": json.dumps(DIALOGUES, indent=2)
            .encode()
            .replace(b"\n", b"\r\n"),
        },
    )
    yield from _whole_file(
        "utf-16",
        {
            "utf 16 with mark": GOOD.decode().encode("utf-16"),
            "utf 16 little": GOOD.decode().encode("utf-16-le"),
            "utf 16 big": GOOD.decode().encode("utf-16-be"),
            "utf 16 packed": (PACKERS[".zst"](GOOD.decode().encode("utf-16")), ".jsonl.zst"),
        },
    )
    yield from _whole_file(
        "utf-32",
        {
            "utf 32 with mark": GOOD.decode().encode("utf-32"),
            "utf 32 little": GOOD.decode().encode("utf-32-le"),
            "utf 32 big": GOOD.decode().encode("utf-32-be"),
        },
    )
    yield from _whole_file(
        "binary-file",
        {
            "zip": _zipped(),
            "zip with its name": (_zipped(), ".zip"),
            "tar in gzip": (PACKERS[".gz"](_tarred()), ".tar.gz"),
            "parquet": (b"PAR1\x15\x04\x15\x10" + bytes(100) + b"PAR1", ".parquet"),
            "arrow": (b"ARROW1\0\0\xff\xff\xff\xff", ".arrow"),
            "bzip2": (bz2.compress(GOOD), ".jsonl.bz2"),
            "xz": (lzma.compress(GOOD), ".jsonl.xz"),
            "sqlite": (b"SQLite format 3\0\x10\0\x01\x01", ".db"),
            "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
            "pickle": (pickle.dumps(DIALOGUES, protocol=4), ".pkl"),
            "numpy": (b"\x93NUMPY\x01\0v\0{'descr': '<i8'}", ".npy"),
            "old excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(20), ".xls"),
        },
    )
    yield from _whole_file(
        "wrong-compression",
        {
            "gzip named jsonl": PACKERS[".gz"](GOOD),
            "zstandard named jsonl": PACKERS[".zst"](GOOD),
            "jsonl named gz": (GOOD, ".jsonl.gz"),
            "zip named gz": (_zipped(), ".jsonl.gz"),
            "gzip named zst": (PACKERS[".gz"](GOOD), ".jsonl.zst"),
        },
    )
    yield from _whole_file(
        "damaged-file",
        {
            "zero bytes": bytes(5000),
            "gzip cut in its head": (PACKERS[".gz"](GOOD)[:7], ".jsonl.gz"),
            "zstandard cut at once": (PACKERS[".zst"](GOOD)[:5], ".jsonl.zst"),
        },
    )
    packed = PACKERS[".gz"](as_lines(*([f"Question {i}?", f"Answer {i * i}."] for i in range(3))))
    yield Case("gzip without its end", packed[:-4], (Finding("damaged-file", 1, 1),), ".jsonl.gz")
    broken = bytearray(packed)
    broken[-6] ^= 0xFF
    yield Case(
        "gzip with a wrong checksum", bytes(broken), (Finding("damaged-file", 1, 1),), ".jsonl.gz"
    )


def _in_line_2(name: str, line: Any, code: str, column: int = 0, path: str = "") -> Case:
    return Case(name, amid(line), (Finding(code, 2, column, path),))


def broken_lines() -> Iterator[Case]:
    """A line that is not strict JSON, between two good ones."""
    rows: list[tuple[str, bytes | str, str, int, str]] = [
        ("truncated in a text", '["Hello", "Hi the', "truncated-json", 11, "$[1]"),
        ("truncated after a comma", '["Hello",', "truncated-json", 10, "$[1]"),
        (
            "truncated in an object",
            '{"messages": [{"role": "user"',
            "truncated-json",
            30,
            "$.messages[0]",
        ),
        ("two values on a line", '["Hello", "Hi!"]["Bye", "Bye!"]', "extra-data", 17, "$"),
        (
            "two objects on a line",
            '{"turns": ["a", "b"]} {"turns": ["c", "d"]}',
            "extra-data",
            23,
            "$",
        ),
        ("comma after the line", '["Hello", "Hi!"],', "extra-data", 17, "$"),
        ("comma before the bracket", '["Hello", "Hi!",]', "invalid-json", 16, "$"),
        ("comma before the brace", '{"turns": ["a", "b"],}', "invalid-json", 21, "$"),
        ("python list", "['Hello', 'Hi!']", "invalid-json", 2, "$[0]"),
        ("python object", "{'turns': ['Hello', 'Hi!']}", "invalid-json", 2, "$"),
        ("python none", '["Hello", None]', "invalid-json", 11, "$[1]"),
        ("python true", '{"turns": ["a", "b"], "ok": True}', "invalid-json", 29, "$.ok"),
        ("comment", '["Hello", "Hi!"] // greeting', "extra-data", 18, "$"),
        ("comment line", "# greetings", "invalid-json", 1, "$"),
        ("unquoted key", '{turns: ["a", "b"]}', "invalid-json", 2, "$"),
        ("plain text line", "Hello there", "invalid-json", 1, "$"),
        ("missing comma", '["Hello" "Hi!"]', "invalid-json", 10, "$"),
        ("missing colon", '{"turns" ["a", "b"]}', "invalid-json", 10, "$"),
        ("unescaped quote", '["He said "no".", "Hm"]', "invalid-json", 12, "$"),
        ("unescaped tab", '["Hello\there", "Hi!"]', "invalid-json", 8, "$[0]"),
        ("wrong escape", '["C:\\dir", "Hi!"]', "invalid-json", 5, "$[0]"),
        ("curly quotes as quotes", "[“Hello”, “Hi!”]", "invalid-json", 2, "$[0]"),
        ("conflict mark of git", "<<<<<<< HEAD", "invalid-json", 1, "$"),
        ("leading zero", '{"turns": ["a", "b"], "id": 007}', "invalid-json", 30, "$"),
        (
            "nan in a key that is not read",
            '{"turns": ["a", "b"], "score": NaN}',
            "not-a-number",
            32,
            "$.score",
        ),
        ("infinity", '{"turns": ["a", "b"], "score": -Infinity}', "not-a-number", 32, "$.score"),
        ("nan as a turn", '["Hello", NaN]', "not-a-number", 11, "$[1]"),
        ("number too large", '{"turns": ["a", "b"], "id": 1e999}', "number-too-large", 29, "$.id"),
        (
            "duplicate keys",
            '{"turns": ["a", "b"], "turns": ["c", "d"]}',
            "duplicate-key",
            23,
            "$.turns",
        ),
        (
            "equal duplicate keys",
            '{"id": 1, "turns": ["a", "b"], "id": 1}',
            "duplicate-key",
            32,
            "$.id",
        ),
        (
            "duplicate keys in a turn",
            '[{"role": "user", "content": "a", "role": "user"}, {"role": "bot", "content": "b"}]',
            "duplicate-key",
            35,
            "$[0].role",
        ),
        ("lone surrogate", '["Hello \\ud83d", "Hi!"]', "lone-surrogate", 9, "$[0]"),
        ("lone low surrogate", '["Hello", "\\ude00 Hi!"]', "lone-surrogate", 12, "$[1]"),
        ("nul escaped", '["Hello", "Hi\\u0000"]', "nul-character", 14, "$[1]"),
        ("nul byte", '["Hello", "Hi\0"]', "nul-character", 14, "$[1]"),
        ("escape character", '["Hello", "\\u001b[31mHi"]', "control-character", 12, "$[1]"),
        ("raw escape character", '["Hello", "\x1b[31mHi"]', "control-character", 12, "$[1]"),
        ("carriage return in a text", '["Hello\\r\\nyou", "Hi"]', "carriage-return", 2, "$[0]"),
        ("form feed", '["Hello", "Hi\\f"]', "control-character", 14, "$[1]"),
        ("deep nesting", "[" * 100 + "]" * 100, "nesting-too-deep", 65, ""),
        ("bottomless nesting", "[" * 100_000, "nesting-too-deep", 65, ""),
        ("windows 1252", b'["caf\xe9", "Hi!"]', "not-utf8", 6, "$[0]"),
        ("windows 1252 quotes", b'["It\x92s me", "Hi!"]', "not-utf8", 5, "$[0]"),
        ("cp949", '["안녕", "Hi!"]'.encode("cp949"), "not-utf8", 3, "$[0]"),
        (
            "cut character",
            '["Hello", "caf\u00e9"]'.encode().replace(b"\xa9", b""),
            "not-utf8",
            15,
            "$[1]",
        ),
        ("surrogate in utf 8", b'["Hello", "\xed\xa0\xbd"]', "not-utf8", 12, "$[1]"),
        ("byte order mark inside", BOM + dumped(["Hello", "Hi!"]), "stray-bom", 1, "$"),
    ]
    for name, line, code, column, path in rows:
        yield _in_line_2(name, line.encode() if isinstance(line, str) else line, code, column, path)
    yield Case(
        "two faults on one line",
        amid(b'{"turns": ["a\\u0000", "b"], "x": NaN, "y": NaN}'),
        (
            Finding("nul-character", 2, 14, "$.turns[0]"),
            Finding("not-a-number", 2, 34, "$.x"),
            Finding("not-a-number", 2, 44, "$.y"),
        ),
    )
    yield Case(
        "cut last line", GOOD + b'["And then", "we', (Finding("truncated-json", 4, 14, "$[1]"),)
    )
    yield Case(
        "label row line among dialogues", amid(b"3 4 2 2"), (Finding("extra-data", 2, 3, "$"),)
    )
    yield Case(
        "joined files with marks and blank lines",
        GOOD + b"\n" + BOM + as_lines(["Is it late?", "Not yet."]),
        (Finding("blank-line", 4, 1), Finding("stray-bom", 5, 1)),
    )
    for end in (b"\r\n", b"\n"):
        yield Case(
            f"blank lines of {len(end)} bytes",
            dumped(["Is it late?", "Not yet."]) + end * 3 + dumped(["Tea?", "Please."]) + end * 2,
            (Finding("blank-line", 2, 1),),
        )


def _turns(
    first: Any, second: Any, speaker: str = "role", text: str = "content"
) -> list[dict[str, Any]]:
    names = ("human", "gpt") if speaker == "from" else ("user", "assistant")
    return [{speaker: names[0], text: first}, {speaker: names[1], text: second}]


SHAPES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "list": (lambda text: ["Hello", text], "$[1]"),
    "turns": (lambda text: {"id": 7, "turns": ["Hello", text]}, "$.turns[1]"),
    "messages": (lambda text: {"messages": _turns("Hello", text)}, "$.messages[1].content"),
    "bare messages": (lambda text: _turns(text, "Hello"), "$[0].content"),
    "sharegpt": (
        lambda text: {"conversations": _turns("Hello", text, "from", "value")},
        "$.conversations[1].value",
    ),
    "speaker and text": (
        lambda text: {"turns": _turns("Hello", text, "speaker", "text")},
        "$.turns[1].text",
    ),
    "prompt": (lambda text: {"prompt": text, "completion": "Hello"}, "$.prompt"),
    "completion": (lambda text: {"prompt": "Hello", "completion": text}, "$.completion"),
    "completion of turns": (
        lambda text: {"prompt": "Hello", "completion": [{"role": "assistant", "content": text}]},
        "$.completion[0].content",
    ),
    "instruction": (
        lambda text: {"instruction": text, "input": "", "output": "Hello"},
        "$.instruction",
    ),
    "output": (
        lambda text: {"instruction": "Say hello", "input": "to me", "output": text},
        "$.output",
    ),
    "system": (lambda text: {"system": f"Be kind. {text}", "turns": ["Hello", "Hi!"]}, "$.system"),
}
TEXT_FAULTS: dict[str, Any] = {
    "empty-utterance": " ",
    "text-not-string": 5,
    "null-text": "NULL",
    "zero-width": "a\u200bb",
    "html-entity": "salt &amp; pepper",
    "mojibake": "cafÃ©",
}


def faults_in_every_shape() -> Iterator[Case]:
    """One fault in the text of each shape, in the middle line; some files are packed."""
    suffixes = ("", ".gz", ".zst")
    for number, (code, fault) in enumerate(TEXT_FAULTS.items()):
        for index, (shape, (make, path)) in enumerate(SHAPES.items()):
            if shape == "system" and not (isinstance(fault, str) and len(fault) > 4):
                continue
            line = make(fault)
            needle = dumped(f"Be kind. {fault}" if shape == "system" else fault).decode()
            column = (
                dumped(line).decode().rindex(needle) + 1
                if fault != 5
                else dumped(line).decode().rindex(" 5") + 2
            )
            packing = suffixes[(number + index) % 3]
            content = amid(line)
            named = "not-a-turn" if fault == 5 and path.endswith("]") else code
            yield Case(
                f"{code} in {shape}",
                PACKERS[packing](content) if packing else content,
                (Finding(named, 2, column, path),),
                f".jsonl{packing}",
            )


def wrong_values() -> Iterator[Case]:
    """Valid JSON that is not a dialogue."""
    user, reply = _turns("Hello", "Hi!")
    rows: list[tuple[str, Any, str, str]] = [
        ("number", 5, "unknown-shape", "$"),
        ("null", None, "unknown-shape", "$"),
        ("text", "Hello", "unknown-shape", "$"),
        ("empty object", {}, "unknown-shape", "$"),
        ("object of another kind", {"question": "Hello", "reply": "Hi!"}, "unknown-shape", "$"),
        ("object around all", {"rows": [["Hello", "Hi!"]]}, "unknown-shape", "$"),
        ("misspelt messages", {"mesages": [user, reply]}, "unknown-shape", "$"),
        ("messages as text", {"messages": "Hello"}, "unknown-shape", "$.messages"),
        ("array of dialogues", [*DIALOGUES, ["a", "b", "c"]], "array-of-dialogues", "$"),
        ("array of objects", MESSAGES * 2, "array-of-dialogues", "$"),
        ("empty list", [], "empty-dialogue", "$"),
        ("no messages", {"messages": []}, "empty-dialogue", "$.messages"),
        ("number as a turn", ["Hello", 4], "not-a-turn", "$[1]"),
        ("null as a turn", ["Hello", None], "not-a-turn", "$[1]"),
        ("mixed turns", ["Hello", user], "mixed-turns", "$[0]"),
        ("turn without text", [user, {"role": "assistant"}], "missing-key", "$[1]"),
        ("turn without speaker", [user, {"content": "Hi!"}], "missing-key", "$[1]"),
        (
            "misspelt content",
            {"messages": [user, {"role": "assistant", "contnet": "Hi!"}]},
            "missing-key",
            "$.messages[1]",
        ),
        (
            "null as text",
            [user, {"role": "assistant", "content": None}],
            "text-not-string",
            "$[1].content",
        ),
        (
            "an image",
            [{"role": "user", "content": [{"type": "image_url", "image_url": "a.png"}]}, reply],
            "part-not-text",
            "$[0].content[0]",
        ),
        (
            "input not a text",
            {"instruction": "Add", "input": [1, 2], "output": "3"},
            "text-not-string",
            "$.input",
        ),
        (
            "unknown speaker",
            [user, {"role": "narrator", "content": "Hi!"}],
            "unknown-speaker",
            "$[1].role",
        ),
        (
            "speaker is a number",
            [{"speaker": 0, "text": "Hi!"}, reply],
            "unknown-speaker",
            "$[0].speaker",
        ),
        (
            "tool result without a call",
            [user, {"role": "tool", "content": "42"}, reply],
            "tool-call",
            "$[1].content",
        ),
        (
            "arguments of a tool call that are not JSON",
            [user, {"role": "assistant", "tool_calls": [{"name": "w", "arguments": "{"}]}, reply],
            "tool-call",
            "$[1].tool_calls[0].arguments",
        ),
        (
            "system in the middle",
            [user, {"role": "system", "content": "Be kind"}, reply],
            "system-not-first",
            "$[1].content",
        ),
        (
            "two systems",
            {
                "system": "Be kind",
                "messages": [{"role": "system", "content": "Be terse"}, user, reply],
            },
            "system-not-first",
            "$.messages[0].content",
        ),
        ("train is a text", [user, {**reply, "train": "true"}], "train-value", "$[1].train"),
        ("train is a number", [user, {**reply, "train": 2}], "train-value", "$[1].train"),
        (
            "prompt as a list of texts",
            {"prompt": ["Hello"], "completion": "Hi!"},
            "missing-key",
            "$.prompt[0]",
        ),
        (
            "no target",
            [{"role": "user", "content": "Anyone here?"}, {"role": "user", "content": "Hello?"}],
            "no-target",
            "$",
        ),
        ("nothing trained", [user, {**reply, "train": False}], "no-target", "$"),
        ("misspelt train", [user, {**reply, "trian": False}], "train-key", "$[1].trian"),
        (
            "misspelt system",
            {"systm": "Be kind", "messages": [user, reply]},
            "misspelt-key",
            "$.systm",
        ),
    ]
    for name, value, code, path in rows:
        yield _in_line_2(f"value {name}", value, code, path=path)
    yield Case(
        "nothing to train in the whole file",
        as_lines([user], [{**user, "content": "Hello?"}]),
        (
            Finding("nothing-to-train"),
            *(Finding(code, line) for line in (1, 2) for code in ("no-target", "one-turn")),
        ),
    )
    yield Case(
        "several faults in one dialogue",
        amid(
            [
                user,
                {"role": "narrator", "content": ""},
                {"role": "assistant", "content": 3},
                {"content": "x"},
            ]
        ),
        (
            Finding("unknown-speaker", 2, path="$[1].role"),
            Finding("text-not-string", 2, path="$[2].content"),
            Finding("missing-key", 2, path="$[3]"),
        ),
    )
    values: dict[str, dict[str, Any]] = {
        "weight of a half": {"weight": 0.5},
        "weight of minus one": {"weight": -1},
        "weight as a text": {"weight": "0"},
        "loss as a number above one": {"loss": 2},
        "train as a list": {"train": [True]},
    }
    for name, keys in values.items():
        (key,) = keys
        yield _in_line_2(name, [user, reply | keys], "train-value", path=f"$[1].{key}")
        yield _in_line_2(
            f"{name} of a dialogue",
            {"messages": [user, reply], **keys},
            "train-value",
            path=f"$.{key}",
        )
    for key in (
        "mask",
        "masked",
        "loss_mask",
        "trainable",
        "training",
        "train_on_turn",
        "Weight",
        "output_with_loss",
    ):
        yield _in_line_2(
            f"{key} on a turn", [user, {**reply, key: 1}], "train-key", path=f"$[1].{key}"
        )
        yield _in_line_2(
            f"{key} on a dialogue",
            {key: True, "turns": ["Hello", "Hi!"]},
            "train-key",
            path=f"$.{key}",
        )
    conflict = {"messages": [user, {**reply, "weight": 1}], "train": False}
    yield _in_line_2(
        "weight against train",
        [user, {**reply, "weight": 1, "train": False}],
        "train-conflict",
        path="$[1]",
    )
    yield _in_line_2(
        "a turn against its dialogue", conflict, "train-conflict", path="$.messages[1]"
    )
    for name, value, path in (
        (
            "of one text",
            {"instruction": "Hi", "output": "Yes.", "history": [["a"]]},
            "$.history[0]",
        ),
        (
            "of three texts",
            {"prompt": "Hi", "completion": "Yes.", "history": [["a", "b", "c"]]},
            "$.history[0]",
        ),
        ("beside messages", {"messages": [user, reply], "history": [["a", "b"]]}, "$.history"),
    ):
        yield _in_line_2(f"history {name}", value, "history", path=path)
    for name, others, at in (("not in a list", "Hey!", ""), ("repeated", ["Hey!", "Hey!"], "[1]")):
        yield _in_line_2(
            f"references {name}",
            [user, {**reply, "references": others}],
            "references",
            path=f"$[1].references{at}",
        )
    thinking = {**reply, "reasoning_content": "A greeting needs a greeting."}
    yield _in_line_2(
        "reasoning in a key", [user, thinking], "reasoning", path="$[1].reasoning_content"
    )
    yield _in_line_2(
        "reasoning in a text",
        ["Hello", "<think>\nA greeting.\n</think>\n\nHi!"],
        "reasoning",
        path="$[1]",
    )
    yield _in_line_2(
        "reasoning that never ends", ["Hello", "<think>A greeting."], "reasoning-tags", path="$[1]"
    )
    yield _in_line_2(
        "reasoning that never began",
        ["Hello", "A greeting.</think>Hi!"],
        "reasoning-tags",
        path="$[1]",
    )
    unread = {
        "messages": [user, reply],
        "summary": "The user says hello, and the assistant answers it.",
    }
    yield _in_line_2("text that is not read", unread, "unread-text", column=1, path="$.summary")
    call = {"function": {"name": "wave", "arguments": "{}"}}
    yield _in_line_2(
        "calls that are not read",
        {"turns": ["Hello", "Hi!"], "tool_calls": [call]},
        "unread-text",
        1,
        "$.tool_calls",
    )
    yield Case(
        "mixed shapes with faults in two of them",
        as_lines(
            ["Hello", "Hi!"],
            {"messages": []},
            {"prompt": "a", "completion": "b"},
            ["x", ""],
            MESSAGES[0],
        ),
        (Finding("empty-dialogue", 2, 14), Finding("empty-utterance", 4, 7)),
    )


LONG_TEXT = "I was born in the year 1632, in the city of York. " * 2100


def suspicious_dialogues() -> Iterator[Case]:
    """Valid dialogues that are probably mistakes."""
    yield Case(
        "repeated dialogues",
        as_lines(["Hello", "Hi!"], ["Tea?", "Please."], ["Hello", "Hi!"], ["HELLO ", "hi!"]),
        (Finding("duplicate", 3, 1), Finding("duplicate", 4, 1)),
    )
    yield Case(
        "one turn", amid({"messages": _turns("Hello", "Hi!")[1:]}), (Finding("one-turn", 2, 1),)
    )
    yield Case(
        "one turn of the user",
        amid(["Hello?"]),
        (Finding("one-turn", 2, 1), Finding("no-target", 2, 1)),
    )
    yield _in_line_2(
        "long dialogue",
        [f"This is turn {number}." for number in range(1001)],
        "long-dialogue",
        1,
        "$",
    )
    yield _in_line_2(
        "long utterance", ["Tell me your story.", LONG_TEXT], "long-utterance", 25, "$[1]"
    )
    yield _in_line_2(
        "long korean utterance", ["말해 줘", "옛날 옛적에 " * 6000], "long-utterance", 10, "$[1]"
    )
    copy = "Your order was shipped on Monday and will arrive on Thursday."
    yield _in_line_2("turn saved twice", ["Where is it?", copy, copy], "repeated-turn", 83, "$[2]")
    for name, texts in {
        "acts and emotions": ["0 0 0 4"],
        "acts as turns": ["3", "2", "3", "4"],
        "numbers": ["12", "7"],
        "commas": ["0,0,1", "0,1,1"],
        "headings": ["speaker", "text"],
        "capital headings": ["Question", "Answer"],
        "headings of dailydialog": ["dialog", "act", "emotion"],
    }.items():
        yield (
            _in_line_2(f"label row of {name}", texts, "label-row", 1, "$")
            if len(texts) > 1
            else Case(
                f"label row of {name}",
                amid({"messages": [{"role": "assistant", "content": texts[0]}]}),
                (Finding("label-row", 2, 1), Finding("one-turn", 2, 1)),
            )
        )
    yield _in_line_2(
        "label row of a header in messages", _turns("content", "content"), "label-row", 1, "$"
    )
    yield _in_line_2(
        "label row after the turns",
        ["Say, Jim?", "You know.", "What?", "3 4 3"],
        "label-row",
        37,
        "$[3]",
    )
    yield _in_line_2(
        "label row before the turns", ["4 1", "Say, Jim?", "You know."], "label-row", 2, "$[0]"
    )
    yield _in_line_2(
        "label row of casino", ["Two of each?", "Deal!", "Submit-Deal"], "label-row", 27, "$[2]"
    )
    yield _in_line_2(
        "every text with a letter", ["A: Hello", "B: Hi!", "A: Tea?"], "speaker-prefix", 1, "$"
    )


def suspicious_texts() -> Iterator[Case]:
    """A valid text that is probably a mistake, as the second turn of the second line."""
    texts: dict[str, dict[str, str]] = {
        "null-text": {
            text: text
            for text in (
                "NULL",
                "null",
                "None",
                "nan",
                "NaN",
                "undefined",
                "[object Object]",
                "[deleted]",
                "#N/A",
            )
        },
        "zero-width": {
            "space": "Hello\u200bthere",
            "joiner": "Hello\u200dthere",
            "non-joiner": "Hello\u200cthere",
            "joiner at the start": "\u200dHello",
            "mark": "Hello\ufeff there",
            "word joiner": "Hello\u2060there",
            "soft hyphen": "exam\u00adple",
            "hangul filler": "안녕\u3164하세요",
            "hidden tag": "Hello \U000e0041\U000e0042",
        },
        "stray-control": {
            "delete": "booger \x7f I",
            "next line": "Hello\x85there",
            "line separator": "Hello\u2028there",
            "c1": "Hello \x93there\x94",
        },
        "bidi-override": {"right to left": "the file is \u202egnp.exe"},
        "replacement-character": {"": "caf\ufffd", "korean": "안\ufffd하세요"},
        "private-use": {
            "symbol": "\ue001 Call us",
            "noncharacter": "Hello\uffff",
            "supplementary": "Hello \U000f0001",
        },
        "mojibake": {
            "french": misread("Déjà vu, mon été à Paris", "cp1252"),
            "german": misread("Größe und Österreich", "cp1252"),
            "spanish": misread("¿Qué tal? Mañana", "latin-1"),
            "curly quote": misread("It’s here", "cp1252"),
            "curly quote in latin": misread("It’s here", "latin-1"),
            "emoji": misread("Nice 😀", "cp1252"),
            "emoji in latin": misread("Nice 😀", "latin-1"),
            "korean": misread("안녕하세요", "cp1252"),
            "japanese": misread("こんにちは", "cp1252"),
            "chinese": misread("你好吗", "latin-1"),
            "russian": misread("Привет, как дела?", "cp1252"),
            "russian in cyrillic": misread("Привет, как дела?", "cp1251"),
            "greek": misread("Γειά σου", "cp1252"),
            "arabic": misread("مرحبا", "cp1252"),
            "hebrew": misread("שלום", "cp1252"),
            "japanese in shift jis": "縺薙ｓ縺ｫ縺｡縺ｯ",
            "korean in cp949": "안녕하세요".encode("cp949").decode("latin-1"),
            "russian in cp1251": "Здравствуйте".encode("cp1251").decode("latin-1"),
            "byte order mark": misread("\ufeffHello", "cp1252"),
            "twice": misread(misread("été", "cp1252"), "cp1252"),
        },
        "html-markup": {
            "answer of a web page": '<div class="markdown prose w-full"><p>Hi</p></div>',
            "paragraphs": "<p>Hi</p>\n<p>there</p>",
        },
        "html-entity": {
            "amp": "Tom &amp; Jerry",
            "apostrophe": "It&#39;s me",
            "hexadecimal": "It&#x27;s me",
            "quotes": "&quot;Hello&quot; &lt;br&gt;",
            "nbsp": "Hello&nbsp;there",
            "letter": "caf&eacute;",
        },
        "special-token": {
            "endoftext": "Hello<|endoftext|>",
            "chatml": "<|im_start|>assistant\nHello<|im_end|>",
            "llama": "[INST] Hello [/INST] Hi!",
            "llama end": "Hi there </s>",
            "llama system": "<<SYS>> Be kind <</SYS>>",
            "dailydialog": "Hello . __eou__ Hi .",
            "bert": "[CLS] Hello [SEP]",
            "unknown": "Hello <unk> there",
            "gemma": "Hello<end_of_turn>",
            "alpaca": "### Instruction:\nSay hello\n### Response:\nHello",
        },
        "speaker-prefix": {
            "user": "User: hello there",
            "assistant": "Assistant: hello there",
            "upper": "HUMAN: hello there",
            "numbered": "Speaker 1: hello there",
            "letter": "B:: Come on!",
        },
        "escape-sequence": {
            "paragraph": "Hello.\\n\\nHow are you?",
            "newline": "Hello.\\nHow are you?",
            "quote": 'She said \\"no\\".',
            "apostrophe": "Don\\'t!",
            "letter": "caf\\u00e9",
        },
        "encoded-value": {
            "message": json.dumps({"role": "user", "content": "Hello"}),
            "messages of python": str([{"from": "human", "value": "Hello"}]),
            "dialogue": json.dumps({"turns": ["Hello", "Hi!"]}),
            "parts": json.dumps([{"type": "text", "text": "Hello"}]),
            "bytes": "b'Hello there'",
            "array": "array(['Hello', 'Hi!'], dtype=object)",
        },
        "subword-mark": {
            "sentencepiece": "\u2581Hello\u2581there",
            "bytes": "Hello,\u0120how\u0120are\u0120you",
            "wordpiece": "I am play ##ing",
        },
    }
    for code, named in texts.items():
        for name, text in named.items():
            before = "What did it say?"
            column = len(json.dumps(before)) + 4
            yield _in_line_2(
                f"{code} {name}".strip().replace("/", "-"), [before, text], code, column, "$[1]"
            )


INNOCENT_TEXTS = {
    "none in a sentence": "None of them, and null points.",
    "nan as a grandmother": "Nan is at home.",
    "none with a full stop": "None.",
    "number": "42",
    "year": "1984",
    "phone number": "010 8825 6798",
    "digits of a code": "4 7 1 1",
    "price": "3,50 or 4.20",
    "family emoji": "👨\u200d👩\u200d👧\u200d👦 and 🏳️\u200d🌈",
    "profession emoji": "👩🏽\u200d💻!",
    "flag of wales": "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f won",
    "keycaps": "1️⃣ 2️⃣",
    "persian": "می\u200cخواهم بروم",
    "hindi joiner": "क्\u200dष",
    "sinhala joiner": "ශ්\u200dරී ලංකා",
    "arabic with marks": "مرحبا (\u200fHello\u200e) بك",
    "hebrew": "שלום לך",
    "french": "« Où êtes-vous allé ? » — “À l’hôtel…”",
    "portuguese": "“NÃO”, disse a irmã. AMANHÃ… IRMÃ – MANHÃ",
    "portuguese quotes": "«AMANHû",
    "romanian": "Ând și Îmi pare rău, ÎN CÂMP",
    "vietnamese": "Tôi không biết, à… Đã ăn cơm chưa?",
    "german": "Tschüß, Größe, ÄÖÜ äöü",
    "nordic": "Ångström på Åland, æøå",
    "polish": "Zażółć gęślą jaźń",
    "turkish": "İstanbul'da güneşli",
    "icelandic": "Það er gott, Ísland",
    "maltese": "Ġorġ qal “ħabib”",
    "russian": "Россия, Р. Стругацкий, С…Р… Съешь «булок»",
    "ukrainian": "Сієста в Києві, Рєпін",
    "japanese": "日本語のテキスト、もつれ（縺れ）",
    "korean": "안녕하세요, ㅋㅋㅋ ㅠㅠ!",
    "korean with hanja": "大韓民國 만세",
    "chinese": "你好，世界。",
    "degrees": "It is 25°C, ±2°, ½ of ¼ …",
    "spanish": "¿¡Qué!? ¡¡¡Ñandú!!!",
    "dots": "1st……·······",
    "drawn out": "éééééé! Nãããããão! ààààà",
    "currency": "£5, €6, ¥700, ¢50",
    "curly quotes": "“It’s fine,” she said — ‘really’…",
    "non-breaking space": "10\u00a0000 km",
    "ideographic space": "全角\u3000スペース",
    "base64": "SGVsbG8gd29ybGQh+/==",
    "hash": "d41d8cd98f00b204e9800998ecf8427e",
    "url": "https://example.org/a?b=1&c=2&copy=3#top",
    "ampersand": "R&D; AT&T, Tom & Jerry; Q&A;",
    "code with tabs": "def f(x):\n\treturn x\n",
    "code in backticks": "Write `&amp;` or `<|endoftext|>`, not `</s>`.",
    "fenced code": "```python\nprint(\"a\\n\\nb\", 'it\\'s')\n```\nThat is all.",
    "printf": 'printf("hello\\n");',
    "windows path": "It is in C:\\new\\readme.txt",
    "latex": "\\nabla f = \\neg x, \\{a\\}",
    "regex": "^[A-Z]+\\d{2}\\w*$",
    "shrug": "¯\\_(ツ)_/¯",
    "less than": "1 < 2 and 3 > 2 <3",
    "html tag": "Use <b>bold</b> or <br>.",
    "square brackets": "[laughs] Well, [citation needed] [MASKED]",
    "markdown": "## Title\n\n- one\n- two\n\n#hashtag ##",
    "markdown heading": "### Answer\nYes.",
    "dunder": "call __init__ and __eq__",
    "json answer": '{"name": "Ann", "age": 30}',
    "json list": '["red", "green"]',
    "json role": '{"role": "admin"}',
    "quoted": '"Hello," he said.',
    "colon": "Note: it is late",
    "time": "Around 8: or 9:30",
    "form": "User: admin\nPassword: secret",
    "scene": "Person 1: Hello!\nPerson 2: Hi!",
    "choice": "B: Paris",
    "user in a sentence": "User interfaces: a short history",
    "label in a sentence": "Label",
    "one word": "text",
    "good-bye": "Good-Bye",
    "bee": "b'ho",
    "nul in words": "\\0 is NUL",
    "email": "a_b+c@example.org",
    "math": "2 + 2 = 4, −5 ≤ x",
    "box": "┌──┐\n│  │\n└──┘",
    "combining": "e\u0301 and ñ",
    "zalgo": "h\u0300\u0301\u0302i",
    "variation selector": "❤️ ☎︎",
    "control pictures": "␀ ␛",
    "exactly 100 kB": "b" * 100_000,
}


def innocents() -> Iterator[Case]:
    """Files without any problem."""
    for name, text in INNOCENT_TEXTS.items():
        yield Case(f"fine {name}", amid(["What did it say?", text]))
    yield Case(
        "fine everything escaped",
        as_lines(*(dumped(value, is_ascii=True) for value in (["“é”", "😀"], ["안", "녕"]))),
    )
    yield Case("fine crlf", GOOD.replace(b"\n", b"\r\n"))
    yield Case("fine byte order mark at the start", BOM + GOOD)
    yield Case(
        "fine byte order mark and crlf in gzip",
        PACKERS[".gz"](BOM + GOOD.replace(b"\n", b"\r\n")),
        (),
        ".jsonl.gz",
    )
    yield Case("fine blank last lines", GOOD + b"\n\n  \n")
    yield Case("fine without a last line end", GOOD.rstrip())
    yield Case("fine spaces around", GOOD.replace(b"[", b"  [ ").replace(b"]", b" ] "))
    yield Case(
        "fine joined gzip files",
        PACKERS[".gz"](GOOD) + PACKERS[".gz"](as_lines(["x?", "y."])),
        (),
        ".jsonl.gz",
    )
    user, reply = _turns("Hello", "Hi!")
    for key in ("train", "weight", "loss"):
        for said in (False, 0, 0.0, None, True, 1, 1.0):
            yield Case(f"fine {key} {said!r}", amid([{**reply, key: said}, user, reply]))
            if said in (None, 1):
                yield Case(
                    f"fine {key} {said!r} of a dialogue",
                    amid({"messages": [user, reply], key: said}),
                )
    yield Case(
        "fine masks that say nothing",
        amid({"mask": None, "messages": [user, {**reply, "masked": None}]}),
    )
    yield Case(
        "fine history",
        amid({"instruction": "And?", "output": "So.", "history": [["a", "b"], ["c", "d"]]}),
    )
    yield Case("fine empty history", amid({"messages": [user, reply], "history": []}))
    yield Case(
        "fine empty reasoning", amid([user, {**reply, "reasoning_content": None, "thinking": " "}])
    )
    yield Case("fine reasoning of a user", amid(["What does <think> mean?", "It is a tag."]))
    yield Case(
        "fine ids",
        amid({"conversation_hash": "3f2a" * 16, "turns": ["Hello", "Hi!"], "tools": "[]"}),
    )
    yield Case(
        "fine prompt twice",
        amid({"prompt": "x " * 40, "messages": [{**user, "content": "x " * 40}, reply]}),
    )
    yield Case("fine named txt", GOOD, (), ".txt")
    yield Case("fine named csv", GOOD, (), ".csv")
    yield Case("fine named json", GOOD, (), ".json")
    yield Case("fine counting up", amid(["1", "2", "3", "4"]))
    yield Case("fine counting down", amid(["10", "8", "6"]))
    yield Case("fine countdown in a text", amid(["Count!", "3 2 1", "Go!", "Whee"]))
    yield Case("fine arithmetic", amid(["What is 6 times 7?", "42", "And half of it?", "21"]))
    yield Case("fine short repeat", amid(["How do you do?", "How do you do?"]))
    yield Case("fine repeat later", amid(["x" * 50, "No.", "x" * 50]))
    yield Case("fine a thousand turns", amid([f"This is turn {number}." for number in range(1000)]))
    yield Case(
        "fine one speaker twice", amid([{"role": "user", "content": "Hi"}, *_turns("you", "Hello")])
    )
    yield Case("fine ends on the user", amid(["Hello", "Hi!", "Bye"]))
    yield Case(
        "fine metadata",
        amid({"id": 7, "lang": "en", "score": 0.5, "tags": [], "turns": ["a", "b"]}),
    )
    ultrachat = {"prompt": "Hi", "prompt_id": "f0e3", "messages": _turns("Hi", "Hello")}
    yield Case("fine messages beside their prompt", amid(ultrachat))
    yield Case(
        "fine number of turns",
        amid({"turn": 1, "model": "x", "language": "en", "conversations": _turns("a", "b")}),
    )
    yield Case("fine multiple choice", amid(["A: Paris or B: Rome?", "A: Paris"]))
    yield Case("fine texts with braces", amid(["}{][", ',":']))
    yield Case(
        "fine empty system and input",
        as_lines(
            {"system": " ", "turns": ["a", "b"]},
            {"instruction": "Say hi", "input": "", "output": "Hi"},
        ),
    )
    yield Case(
        "fine names in capitals",
        amid([{"from": "Human", "value": "a"}, {"from": "GPT", "value": "b"}]),
    )
    for shape, (make, _) in SHAPES.items():
        yield Case(f"fine {shape}", amid(make("Good day to you!")))
    yield Case(
        "fine every shape in one file",
        as_lines(*(make(f"Good day, {shape}!") for shape, (make, _) in SHAPES.items())),
    )


CASES: tuple[Case, ...] = tuple(
    case
    for make in (
        whole_files,
        broken_lines,
        faults_in_every_shape,
        wrong_values,
        suspicious_dialogues,
        suspicious_texts,
        innocents,
    )
    for case in make()
)


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for case in CASES:
        (folder / case.file_name).write_bytes(case.content)
        index.append(
            {"file": case.file_name, "findings": [asdict(finding) for finding in case.findings]}
        )
    (folder / "index.json").write_text(
        json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8"
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
