"""Every regular expression of the source and its uses, with texts that take it long if it can.

A pattern that can read a character in two ways, or look for its end again from each of many
beginnings, takes quadratic or exponential time on some text that repeats a piece. The pieces come
from the pattern itself.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import math
import pkgutil
import re
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import convo_cli

try:
    from re import _parser as parser  # since Python 3.11
except ImportError:
    import sre_parse as parser

SOURCE = Path(convo_cli.__file__).parent
SCANNING = {"search", "sub", "subn", "split", "finditer", "findall"}
MODES = ("match", "fullmatch", "scan")
FUNCTIONS = SCANNING | {"compile", "match", "fullmatch"}
SIZE = 4_000  # characters
SECONDS = 0.4e-6 * SIZE
"""Few linear patterns take longer; for those, a text of four times the size decides."""
LIMIT = 0.5  # CPU seconds for one text
TICK = 0.004  # CPU seconds; some kernels count no less


class Use(NamedTuple):
    """A pattern, its place in the source, and the methods that use it."""

    where: str
    pattern: re.Pattern[Any]
    modes: tuple[str, ...]


def uses() -> tuple[list[Use], set[tuple[str, str]]]:
    """Return all patterns, and the file and expression of each that is built inside a call."""
    found: dict[tuple[str, str], Use] = {}
    unknown = set()
    sources = {file: file.read_text(encoding="utf-8") for file in sorted(SOURCE.rglob("*.py"))}
    for file, source in sources.items():
        name = file.relative_to(SOURCE).as_posix()
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func.value) != "re" or node.func.attr not in FUNCTIONS:
                continue
            expression = ast.unparse(node.args[0])
            module = vars(importlib.import_module(_module_name(file)))
            flags = [ast.unparse(each.value) for each in node.keywords if each.arg == "flags"]
            flags += [ast.unparse(each) for each in node.args[1:2] if node.func.attr == "compile"]
            try:
                value = eval(expression, dict(module))
                pattern = re.compile(value, eval(flags[0], dict(module)) if flags else 0)
            except NameError:
                unknown.add((name, expression))
                continue
            modes = (
                (_mode(node.func.attr),)
                if node.func.attr != "compile"
                else _modes(tree, node, file, sources)
            )
            found[name, expression] = Use(f"{name}: {pattern.pattern!r}"[:100], pattern, modes)
    known = {use.pattern for use in found.values()}
    for info in pkgutil.walk_packages(convo_cli.__path__, "convo_cli."):
        if info.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(info.name)).items():
            # Such a pattern is made in a way that the source does not show.
            if isinstance(value, re.Pattern) and value not in known:
                found[info.name, name] = Use(f"{info.name}.{name}", value, MODES)
    return list(found.values()), unknown


def _module_name(file: Path) -> str:
    return ".".join(("convo_cli", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def _mode(method: str) -> str:
    return "scan" if method in SCANNING else method


def _modes(tree: ast.AST, call: ast.Call, file: Path, sources: dict[Path, str]) -> tuple[str, ...]:
    """Return how a compiled pattern is used: in every way if it is passed on."""
    names = [
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and node.value is call
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    if not names:
        return MODES
    modes = set()
    for source in [sources[file]] if names[0].startswith("_") else sources.values():
        for match in re.finditer(rf"(?<![\w.]){names[0]}\b(?:\.(\w+))?(?! = )(?!,?\n)", source):
            if match[1] not in ("pattern", "flags"):
                modes |= {_mode(match[1])} if match[1] in FUNCTIONS else set(MODES)
    return tuple(sorted(modes)) or MODES


# Texts


def texts(pattern: re.Pattern[Any], size: int = SIZE) -> Iterator[Any]:
    """Yield texts of this size that repeat a piece, between a beginning and an end."""
    for before, piece, after in _pumps(pattern):
        text = before + piece * (size // len(piece)) + after
        yield text if isinstance(pattern.pattern, str) else text.encode("latin-1", "ignore")


def _pumps(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    tree = parser.parse(
        pattern.pattern, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, str) else 0
    )
    whole = _samples(tree)
    # Large classes of characters are sampled evenly.
    alphabet = sorted({char for text in whole for char in text} | set(_members(tree)))
    alphabet = alphabet[:: -(-len(alphabet) // 14)]
    pieces = {text[:end] for text in whole for end in range(1, len(text) + 1)}
    pieces |= {piece for _, piece in _repeats(tree, "")}
    pieces |= {
        "".join(pair) for length in (1, 2) for pair in itertools.product(alphabet, repeat=length)
    }
    befores = sorted({"", *(before for before, _ in _repeats(tree, ""))}, key=len)
    befores = befores[:: -(-len(befores) // 4)]
    yield from itertools.product(befores, sorted(filter(None, pieces)), ("", "\x01", "x\n"))


def _samples(tree: Any, limit: int = 12) -> list[str]:
    """Return some texts that the pattern matches, apart from its lookarounds."""
    joined = [""]
    for item in tree:
        options = _options(item)
        first = [text + options[0] for text in joined]
        joined = [*first, *(joined[0] + option for option in options[1:])][:limit]
    return joined


def _options(item: Any) -> list[str]:
    kind, value = str(item[0]), item[1]
    if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "CATEGORY", "RANGE"):
        return _characters(item) or ["x"]
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        low, high, inner = value
        texts = [text * max(low, 1) for text in _samples(inner)]
        return [*texts, *(text * 2 for text in texts[:1] if high > 1), *([""] if low == 0 else [])]
    if kind == "SUBPATTERN":
        return _samples(value[-1])
    if kind == "ATOMIC_GROUP":
        return _samples(value)
    if kind == "BRANCH":
        return [text for branch in value[1] for text in _samples(branch, 3)]
    if kind in ("ASSERT", "ASSERT_NOT"):
        return ["", *_samples(value[1], 2)] if value[0] > 0 else [""]
    return [""]


def _characters(item: Any) -> list[str]:
    kind, value = str(item[0]), item[1]
    if kind == "LITERAL":
        return [chr(value)]
    if kind == "ANY":
        return ["a"]
    if kind == "NOT_LITERAL":
        return [char for char in "ab" if char != chr(value)][:1]
    if kind == "RANGE":
        return [chr(value[0]), chr(value[1])]
    if kind == "CATEGORY":
        return {"DIGIT": ["7"], "SPACE": [" ", "\n"], "WORD": ["a", "_"]}.get(
            str(value).rpartition("_")[2], ["-"]
        )
    if str(value[0][0]) == "NEGATE":
        out = {char for each in value[1:] for char in _characters(each)}
        return [char for char in 'ab7" \\<' if char not in out][:3]
    return [char for each in value for char in _characters(each)]


def _members(tree: Any) -> Iterator[str]:
    """Yield every character that the pattern names, at any depth."""
    for item in tree:
        if str(item[0]) in ("LITERAL", "IN", "NOT_LITERAL"):
            yield from _characters(item)
            if str(item[0]) == "IN":
                yield from (
                    char
                    for each in item[1]
                    if str(each[0]) == "LITERAL"
                    for char in _characters(each)
                )
        for inner in _inside(item):
            yield from _members(inner)


def _inside(item: Any) -> list[Any]:
    kind, value = str(item[0]), item[1]
    if kind.endswith("_REPEAT"):
        return [value[2]]
    if kind == "SUBPATTERN":
        return [value[-1]]
    if kind == "ATOMIC_GROUP":
        return [value]
    if kind == "BRANCH":
        return list(value[1])
    if kind in ("ASSERT", "ASSERT_NOT"):
        return [value[1]]
    if kind == "GROUPREF_EXISTS":
        return [each for each in value[1:] if each is not None]
    return []


def _repeats(tree: Any, before: str) -> Iterator[tuple[str, str]]:
    """Yield the text before each repeat, and the text that is repeated."""
    for item in tree:
        if str(item[0]).endswith("_REPEAT"):
            yield from ((before, text) for text in _samples(item[1][2]) if text)
        for inner in _inside(item):
            yield from _repeats(inner, before)
        before += _options(item)[0]


# Time


def slowness(pattern: re.Pattern[Any], mode: str, every: int = 1) -> str:
    """Return a text on which the pattern is not linear; empty if there is none.

    Only one of ``every`` texts is tried.
    """
    pairs = zip(texts(pattern), texts(pattern, 4 * SIZE), strict=True)
    for text, longer in itertools.islice(pairs, 0, None, every):
        taken = _seconds(pattern, mode, text)
        if taken < SECONDS:
            continue
        if taken < LIMIT:
            taken = min(_seconds(pattern, mode, text) for _ in range(3))
            if min(_seconds(pattern, mode, longer) for _ in range(3)) < 8 * max(taken, TICK):
                continue
        return f"{mode} on {text[:30]!r} … {text[-10:]!r}: {taken:.3g} s for {len(text)} characters"
    return ""


def _seconds(pattern: re.Pattern[Any], mode: str, text: Any) -> float:
    """Return the CPU seconds; infinity beyond the limit."""
    started = time.process_time()
    try:
        with _limited():
            if mode == "scan":
                deque(pattern.finditer(text), maxlen=0)
            else:
                getattr(pattern, mode)(text)
    except TimeoutError:
        return math.inf
    return time.process_time() - started


@contextmanager
def _limited() -> Iterator[None]:
    """Raise TimeoutError if the block takes longer than the limit, if the system has a timer."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def main() -> None:
    """Print the most CPU microseconds that each pattern takes for a character of its texts."""
    print(f"| pattern | use | µs a character, at most, of {4 * SIZE:,} |\n|---|---|---:|")
    for where, pattern, modes in uses()[0]:
        worst = max(
            _seconds(pattern, mode, text) for mode in modes for text in texts(pattern, 4 * SIZE)
        )
        row = f"| `{where}` | {', '.join(modes)} | {worst / (4 * SIZE) * 1e6:.2f} |"
        print(row.replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()
