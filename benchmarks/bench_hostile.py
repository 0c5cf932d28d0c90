"""CPU seconds that `validate-data`, `--fix` and `train` need for one hostile line.

    python benchmarks/bench_hostile.py [--size 1000000] [--limit 60] [NAME ...]

Each number is for a separate process, without its imports. A process is killed at the limit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def repeated(piece: str, before: str = "", after: str = "") -> Callable[[int], str]:
    return lambda size: before + piece * (size // len(piece.encode())) + after


def in_text(piece: str, before: str = "", after: str = "") -> Callable[[int], str]:
    """A dialogue of two turns; the second one repeats the piece."""
    return lambda size: json.dumps(
        ["hi", before + piece * (size // len(piece.encode())) + after], ensure_ascii=False
    )


def numbered(piece: str, before: str, after: str) -> Callable[[int], str]:
    return lambda size: (
        before + ",".join(piece % i for i in range(size // (len(piece) + 4))) + after
    )


def levels(piece: str, core: str, closing: str, depth: int) -> Callable[[int], str]:
    """A core as large as the line, nested ``depth`` levels deep."""
    return lambda size: piece * depth + core.replace("…", "x" * size) + closing * depth


def not_utf8(line: Callable[[int], str]) -> Callable[[int], str]:
    return lambda size: line(size) + "\udce9"


LINES: dict[str, Callable[[int], str]] = {
    "numbers": in_text("7,14,", after="and so on"),
    "numbers apart": in_text("1 , ", after="x"),
    "digits": in_text("1", after="x"),
    "a float of many digits": repeated("9", '["a", 1.', "]"),
    "an integer of many digits": repeated("9", '["a", ', "]"),
    "an exponent of many digits": repeated("9", '["a", 1e-', "]"),
    "integers of many digits": numbered("9" * 300 + "%d", "[", "]"),
    "cut off, escaped quotes": repeated('\\"', '["hi","x'),
    "cut off, quotes": repeated('"', '["hi",'),
    "cut off, backslashes": repeated("\\", '["hi","'),
    "cut off, commas": repeated(", ", '["hi"'),
    "commas and spaces": repeated(" ", '["hi",', "x"),
    "open brackets": repeated("["),
    "open braces": repeated('{"a":'),
    "brackets": repeated("[],", "[", "[]]"),
    "a value after another": repeated('["a","b"] '),
    "a value after another, cut": repeated('["a","b"],', after="["),
    "a bad escape in each text": numbered('"\\q%d"', "[", "]"),
    "a suspicious text in each turn": numbered('"a\\u200b &amp; %d"', "[", "]"),
    "keys": numbered('"kez%d":"a"', '{"turns":["a","b"],', "}"),
    "keys like others": numbered('"rol%d":1', '{"turns":["a","b"],', "}"),
    "long keys": numbered('"' + "k" * 30 + '%d":"' + "b" * 31 + '"', '{"turns":["a","b"],', "}"),
    "unread texts and turns": lambda size: json.dumps(
        {"turns": [f"{'b' * 39} {i}" for i in range(size // 100)]}
        | {f"k{i}": "b " * 20 for i in range(size // 100)}
    ),
    "equal keys": repeated('"a":1,', '{"turns":["a","b"],', '"a":2}'),
    "equal keys of large values": levels('{"a":', '["…"]', "}", 60),
    "dialogues in an array": numbered('["a","b%d"]', "[", "]"),
    "dialogues in an array, each with a fault": numbered(
        '{"turns":["a","b%d"],"x":1,"x":1}', "[", "]"
    ),
    "empty turns": repeated('"",', "[", '"a","b"]'),
    "turns without a role": repeated('{"text":"a"},', "[", '{"text":"b"}]'),
    "unknown speakers": numbered('{"role":"r%d","text":"a"}', "[", "]"),
    "flags": numbered('"train%d":true', '{"turns":["a","b"],', "}"),
    "history": repeated('["a","b"],', '{"prompt":"a","completion":"b","history":[', '["a","b"]]}'),
    "backticks": in_text("`a"),
    "backticks in threes": in_text("``` ` "),
    "backticks and newlines": in_text("`\n"),
    "think": in_text("<think>"),
    "think, never closed": in_text("<think", after=">"),
    "think and spaces": in_text("<think>a</think> "),
    "spaces before think": in_text(" ", before="a", after="<think>a</think>b"),
    "entities": in_text("&amp;"),
    "entities inside entities": lambda size: json.dumps(["hi", "&" + "amp;" * (size // 4) + "lt;"]),
    "entities, half": in_text("&am"),
    "speaker and lines": in_text("\na b c", before="user: "),
    "speaker and spaces": in_text("\n   ", before="user: "),
    "an encoded value": in_text("[ ", after="{'role': 'user'}"),
    "b and quotes": in_text("'", before="b'", after="x"),
    "mojibake": in_text("Ã©"),
    "mojibake of mojibake": in_text("ÃƒÆ’Ã‚Â©"),
    "letters with accents": in_text("àâäéèêëïîôöùûüÿ"),
    "invisible": in_text("\u200b"),
    "joiners": in_text("\u200d"),
    "escape sequences": in_text("\x1b[0"),
    "C1": in_text("\x9d"),
    "ligatures": in_text("\ufdfa"),
    "marks in two orders": in_text("\u0301\u0316", before="a"),
    "marks in two orders, composed": in_text("\u0f73", before="a"),
    "halfwidth marks": in_text("\uff9e\u0301", before="a"),
    "surrogates": repeated("\\ud800", '["hi","', '"]'),
    "not UTF-8": not_utf8(in_text("a")),
    "carriage returns": repeated("\r", '["a",', '"b"]'),
    "carriage returns in a text": repeated("\\r", '["a","', '"]'),
    "Python": numbered("'%d'", "[", "]"),
    "Python, nested": repeated("(", "['a', "),
    "Python, signs": repeated("-", "['a', ", "1]"),
    "Python, sum": repeated("1+", "['a', ", "1]"),
    "Python, joined texts": repeated("'a' ", "['a', ", "]"),
    "Python, escapes": repeated("\\\\N{DIGIT ONE}", "['", "']"),
    "training names": numbered('"' + "loss" * 8 + '%d":1', '{"turns":["a","b"],', "}"),
}  # fmt: skip


def check(path: str) -> None:
    from convo_cli.config.schema import DataConfig
    from convo_cli.data.checks.validate import validate_files

    validate_files([path], DataConfig(train=(path,)))


def fix(path: str) -> None:
    from convo_cli.config.schema import DataConfig
    from convo_cli.data.repair.copies import repair_files

    repair_files([path], lambda line: None, DataConfig(train=(path,)))


def read(path: str) -> None:
    from convo_cli.config.schema import DataConfig
    from convo_cli.data.fingerprint import fingerprint
    from convo_cli.data.omissions import Omissions
    from convo_cli.data.reader import read_dialogues
    from convo_cli.errors import ConvoError

    try:
        for dialogue in read_dialogues(
            [path], DataConfig(train=(path,), reasoning="keep"), [Omissions()]
        ):
            fingerprint(dialogue.turns)
    except ConvoError:
        pass


READERS = {"validate-data": check, "validate-data --fix": fix, "train": read}


def seconds(name: str, reader: str, path: Path, limit: int) -> float:
    """Return the CPU seconds, or infinity if they exceed the limit."""
    command = [sys.executable, __file__, "--child", reader, str(path), "--limit", str(limit)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, -24, -9, 152):
        raise SystemExit(f"{name}, {reader}: exit code {done.returncode}")
    return float(done.stdout) if done.stdout else float("inf")


def child(reader: str, path: str, limit: int) -> None:
    import resource

    import ftfy  # noqa: F401

    resource.setrlimit(resource.RLIMIT_CPU, (limit + int(time.process_time()) + 1, limit + 5))
    started = time.process_time()
    READERS[reader](path)
    print(time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1_000_000, help="approximate bytes of the line")
    parser.add_argument("--limit", type=int, default=60, help="most CPU seconds of one reader")
    parser.add_argument("--child", nargs=2)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.limit)
        return
    print(f"| {arguments.size:,} bytes | {' | '.join(READERS)} |\n|---|{'---:|' * len(READERS)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or LINES:
            path = Path(folder) / "line.jsonl"
            path.write_bytes(LINES[name](arguments.size).encode("utf-8", "surrogateescape") + b"\n")
            taken = [seconds(name, reader, path, arguments.limit) for reader in READERS]
            cells = [
                f"{each:.2f}" if each < arguments.limit else f"> {arguments.limit}"
                for each in taken
            ]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
