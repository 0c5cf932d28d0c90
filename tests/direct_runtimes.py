"""A runtime of an export in the process of the test, which spares the start of another process."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from convo_cli.export.bounded.bounded_runtime import Opened
from convo_cli.export.bounded.runtime_pipe import RuntimeFailedError
from convo_cli.export.format import Format


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what libraries print and warn of, as the process does."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class DirectRuntime:
    """Answers as `BoundedRuntime` does, without its limits."""

    def __init__(self, form: Format, folder: Path, base: Path | None) -> None:
        try:
            with _silent():
                self._runtime: Any = form.open_runtime(folder, base)
        except Exception as error:
            raise RuntimeFailedError(f"it cannot be opened or used ({error})") from error

    def __enter__(self) -> DirectRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        if close := getattr(self._runtime, "close", None):
            close()

    @property
    def opened(self) -> Opened:
        one = self._runtime
        classes = list(getattr(one, "classes", ()))
        return Opened(one.name, one.version, classes, list(one.stop_ids))

    def text_ids(self, texts):
        with _silent():
            return [list(self._runtime.text_ids(text)) for text in texts]

    def prompt_ids(self, dialogues):
        return [self._prompt(one) for one in dialogues]

    def _prompt(self, messages):
        try:
            with _silent():
                return list(self._runtime.prompt_ids(messages))
        except Exception as error:  # noqa: BLE001  (template engines raise many types)
            return str(error)

    def greedy(self, prompts, num_tokens):
        with _silent():
            return [list(self._runtime.greedy(ids, num_tokens)) for ids in prompts]

    def nll(self, targets):
        with _silent():
            return [list(self._runtime.nll(ids, start)) for ids, start in targets]
