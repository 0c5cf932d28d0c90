"""Data files that a finished model is scored on: tokens, sizes of the texts, turns to answer."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from convo_cli.config.schema import DataConfig
from convo_cli.data.dialogue import Dialogue, chunks
from convo_cli.data.held_out.references import reference_indices
from convo_cli.data.held_out.training_facts import collect_facts
from convo_cli.data.omissions import Omissions, report_omissions
from convo_cli.data.problems import ProblemError
from convo_cli.data.unchanged import read_unchanged
from convo_cli.errors import DataError
from convo_cli.events import Emit, Notice
from convo_cli.metrics.floors import TrainingReplies
from convo_cli.metrics.reply_texts import words
from convo_cli.runs.provenance.data_files import DataFile, DataFiles, with_hashed_data
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.tokens.store import ASSISTANT_TARGET, Encoded, TokenStore
from convo_cli.tokens.store_writer import write
from convo_cli.wording import counted

OF_THE_FILES = "the evaluated data, from other dialogues"


@dataclass(frozen=True)
class EvaluatedFiles:
    """The dialogues of the files, encoded for one model."""

    files: tuple[DataFile, ...]
    store: TokenStore
    num_bytes: NDArray[np.int64]
    """UTF-8 bytes of the scored assistant turns of each dialogue; (D,)."""
    num_words: NDArray[np.int64]  # (D,)
    dialogues: Sequence[Dialogue]
    """The dialogues with turns that get a reply, each cut after the last of these turns."""
    replies: TrainingReplies | None = None
    """Replies of the files, for the floors; None if they were not collected."""


@contextmanager
def open_files(
    data: DataConfig,
    encoder: DialogueEncoder,
    *,
    num_questions: int,
    collects_replies: bool,
    emit: Emit,
) -> Iterator[EvaluatedFiles]:
    """Encode the files of ``data.train`` into a temporary folder, which is all that is read later.

    The first ``num_questions`` assistant turns that answer another turn get a reply. Turns longer
    than the window are scored in parts. DataError if no dialogue has an assistant turn.
    """
    with TemporaryDirectory(prefix="convo-evaluate-") as folder:
        home = Path(folder)

        def read(files: DataFiles) -> tuple[EvaluatedFiles, list[Omissions]]:
            omissions = [Omissions() for _ in files.train]
            reading = _Reading(encoder, [file.path for file in files.train], num_questions)
            with read_unchanged(files.train, data, omissions) as stream:
                write(map(reading.encode, chunks(stream)), home)
            opened = EvaluatedFiles(
                files.train,
                TokenStore.open(home),
                np.array(reading.num_bytes, np.int64),
                np.array(reading.num_words, np.int64),
                reading.dialogues,
                _replies_of(files.train, data) if collects_replies else None,
            )
            return opened, omissions

        opened, omissions = with_hashed_data(data, read, emit)
        report_omissions(omissions, data.train, data.reasoning, emit)
        _require_targets(opened.store, data.train)
        _report_long_turns(opened.store, encoder, emit)
        yield opened


def _replies_of(files: Sequence[DataFile], data: DataConfig) -> TrainingReplies | None:
    with read_unchanged(files, data) as dialogues:
        return collect_facts(dialogues, OF_THE_FILES).replies


class _Reading:
    """One pass over the dialogues: encodes them and collects the other fields of the files."""

    def __init__(self, encoder: DialogueEncoder, paths: Sequence[str], num_questions: int) -> None:
        self._encoder, self._paths, self._num_questions = encoder, paths, num_questions
        self._num_asked = 0
        self.num_bytes, self.num_words = array("q"), array("q")
        self.dialogues: list[Dialogue] = []

    def encode(self, dialogues: Sequence[Dialogue]) -> TokenStore:
        encoded = []
        found = self._encoder.encode_all(dialogues, long_turns="split")
        for dialogue, one in zip(dialogues, found, strict=True):
            if not isinstance(one, Encoded):
                raise ProblemError(one)
            encoded.append((dialogue, one))
            self._note(dialogue)
        return TokenStore.build(encoded, self._paths)

    def _note(self, dialogue: Dialogue) -> None:
        scored = [turn.text for turn in dialogue.turns if turn.is_reply and turn.is_trained]
        self.num_bytes.append(sum(len(text.encode()) for text in scored))
        self.num_words.append(sum(len(words(text)) for text in scored))
        asked = reference_indices(dialogue.turns)[: self._num_questions - self._num_asked]
        if asked:
            self._num_asked += len(asked)
            self.dialogues.append(replace(dialogue, turns=dialogue.turns[: asked[-1] + 1]))


def _require_targets(store: TokenStore, paths: Sequence[str]) -> None:
    if not store.num_targets(ASSISTANT_TARGET):
        raise DataError(
            f"{', '.join(paths)}: there is nothing to score: no dialogue has an assistant turn",
            hint="name the speakers user and assistant; `convo validate-data` counts their turns",
        )


def _report_long_turns(store: TokenStore, encoder: DialogueEncoder, emit: Emit) -> None:
    if store.num_split:
        message = (
            f"in {store.num_split:,} of {counted(store.num_dialogues, 'dialogue')}, a turn is "
            f"longer than the model's window of {encoder.max_length} tokens; such a turn is "
            "scored in consecutive windows"
        )
        emit(Notice(message))
