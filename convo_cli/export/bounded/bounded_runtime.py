"""Client of the runtime process: an export in its own runtime, with limits of time and memory.

Whatever a runtime does (crash, hang, take memory, print, answer nonsense), the result is one
RuntimeFailedError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import msgspec

from convo_cli.cpus import num_cpus
from convo_cli.export.bounded.runtime_pipe import RuntimeFailedError, RuntimePipe, shown
from convo_cli.export.bounded.runtime_process import Limits
from convo_cli.export.format import Format

_SECONDS = 600
_SECONDS_PER_BYTE = 6e-7  # ten minutes for each GB of files
_MEMORY_BYTES = 4 * 2**30
_MEMORY_PER_BYTE = 3  # of files
_MAX_ID = 2**31


class Opened(msgspec.Struct):
    """What a runtime says of itself."""

    name: str
    version: str
    classes: list[str]
    stop_ids: list[int]


class BoundedRuntime:
    """An export in a process of its own; it opens while this process does other work.

    Use it as a context manager: the process ends with the block.
    """

    def __init__(
        self,
        form: Format | ModuleType,
        folder: Path,
        base: Path | None,
        limits: Limits | None = None,
    ) -> None:
        """Start the process; ``form`` is the module of a format, or one that opens a part of it."""
        places = [folder] if base is None else [folder, base]
        num_bytes = sum(
            file.stat().st_size for place in places for file in place.rglob("*") if file.is_file()
        )
        seconds = _SECONDS + _SECONDS_PER_BYTE * num_bytes
        limits = limits or Limits(
            _MEMORY_BYTES + _MEMORY_PER_BYTE * num_bytes, math.ceil(seconds * num_cpus())
        )
        self._pipe = RuntimePipe(limits, min(seconds, limits.cpu_seconds))
        self._opened: Opened | None = None
        self._pipe.send(
            {
                "module": form.__name__,  # type: ignore[union-attr]
                "folder": str(folder.resolve()),
                "base": None if base is None else str(base.resolve()),
                "limits": limits,
            }
        )

    def __enter__(self) -> BoundedRuntime:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pipe.close()

    @property
    def opened(self) -> Opened:
        """Wait until the export is open, and return what the runtime says of itself."""
        if self._opened is None:
            opened = self._receive(Opened)
            _require(all(0 <= one < _MAX_ID for one in opened.stop_ids), "an id out of range")
            self._opened = opened
        return self._opened

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        found = self._ask(list[list[int]], len(texts), task="text_ids", texts=list(texts))
        return [_ids(one) for one in found]

    def prompt_ids(self, dialogues: Sequence[Sequence[Mapping[str, str]]]) -> list[list[int] | str]:
        """Return the ids of each prompt, or why the runtime refuses the dialogue."""
        given = [list(one) for one in dialogues]
        kind = list[list[int] | str]
        found = self._ask(kind, len(given), task="prompt_ids", dialogues=given)
        return [shown(one) if isinstance(one, str) else _ids(one) for one in found]

    def greedy(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> list[list[int]]:
        """Return the greedy reply to each prompt."""
        given = [list(one) for one in prompts]
        kind = list[list[int]]
        found: list[list[int]] = self._ask(
            kind, len(given), task="greedy", prompts=given, num_tokens=num_tokens
        )
        for one in found:
            _require(len(_ids(one)) <= num_tokens, f"a reply of {len(one):,} tokens")
        return found

    def nll(self, targets: Sequence[tuple[Sequence[int], int]]) -> list[list[float]]:
        """Return the nats of ``ids[start:]`` for each pair of ids and start."""
        given = [[list(ids), start] for ids, start in targets]
        kind = list[list[float]]
        found: list[list[float]] = self._ask(kind, len(given), task="nll", targets=given)
        for (ids, start), one in zip(targets, found, strict=True):
            _require(len(one) == len(ids) - start, f"{len(one)} values for {len(ids) - start}")
            _require(all(map(math.isfinite, one)), "a value that is not finite")
        return found

    def _ask(self, kind: Any, num: int, **request: object) -> Any:
        _ = self.opened
        self._pipe.send(request)
        found = self._receive(kind)
        _require(len(found) == num, f"{len(found):,} answers to {num:,} questions")
        return found

    def _receive(self, kind: Any) -> Any:
        line = self._pipe.receive()
        try:
            answer = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            if "error" in answer:
                reason = shown(msgspec.json.decode(answer["error"], type=str))
                raise RuntimeFailedError(f"it cannot be opened or used ({reason})")
            return msgspec.json.decode(answer["found"], type=kind)
        except (msgspec.DecodeError, KeyError, UnicodeDecodeError, RecursionError) as error:
            raise RuntimeFailedError(f"its answer is not valid ({shown(str(error))})") from error


def _require(is_valid: bool, what: str) -> None:
    if not is_valid:
        raise RuntimeFailedError(f"its answer is not valid ({what})")


def _ids(ids: list[int]) -> list[int]:
    _require(all(0 <= one < _MAX_ID for one in ids), "an id out of range")
    return ids
