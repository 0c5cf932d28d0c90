"""The inputs of preparation as one value: config, hashed data files, cache and emit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

from convo_cli.config.schema import RunConfig
from convo_cli.data.dialogue import Dialogue
from convo_cli.data.held_out.validation_split import ValidationSplit, find_split, hash_opening
from convo_cli.data.omissions import Omissions
from convo_cli.data.unchanged import HashingFile, read_unchanged
from convo_cli.events import Emit
from convo_cli.prepare.cache import Cache
from convo_cli.runs.provenance.data_files import DataFile, DataFiles
from convo_cli.world import World

_FORMAT = 6  # of what is cached; a change to how text becomes ids and targets needs another number


@dataclass(frozen=True)
class Inputs:
    """Config and data files to prepare, the cache that keeps the result, and the event sink.

    A data set is train, validation or test. With `data.validation_split`, the files of train hold
    both train and validation.
    """

    config: RunConfig
    files: DataFiles
    """The data files of the config, with their hashes."""
    cache: Cache
    emit: Emit
    world: World = field(default_factory=World)
    """The processes that prepare the same inputs; rank 0 fills the cache."""

    def files_of(self, data_set: str) -> tuple[DataFile, ...]:
        """Return the files that hold a data set."""
        name = "train" if self._is_split(data_set) else data_set
        return cast("tuple[DataFile, ...]", getattr(self.files, name))

    def reading(self, data_set: str) -> dict[str, object]:
        """Return the part of a cache key that decides which dialogues a data set has."""
        data = self.config.data
        key: dict[str, object] = {
            "format": _FORMAT,
            "files": [file.sha256 for file in self.files_of(data_set)],
            "first_speaker": data.first_speaker,
            "speakers": data.speakers.model_dump(),
            "columns": data.columns.model_dump(),
            "reasoning": data.reasoning,
        }
        if self._is_split(data_set):
            key["split"] = [data.validation_split, data_set]
        return key

    @contextmanager
    def read(
        self,
        data_set: str,
        files: Sequence[DataFile] | None = None,
        omissions: Sequence[Omissions] | None = None,
        opened: list[HashingFile] | None = None,
    ) -> Iterator[Iterator[Dialogue]]:
        """Read the dialogues of a data set, like `read_unchanged`; ``files`` are some of its files.

        With a split, the ``omissions`` of train are those of the whole files, and validation has
        none.
        """
        files = self.files_of(data_set) if files is None else files
        if not self._is_split(data_set):
            with read_unchanged(files, self.config.data, omissions, opened) as dialogues:
                yield dialogues
            return
        counts = omissions if data_set == "train" else None
        with read_unchanged(files, self.config.data, counts, opened) as dialogues:
            by_file = dict(zip((file.path for file in files), counts or (), strict=False))
            yield _one_side(dialogues, self._split, data_set, by_file)

    @cached_property
    def _split(self) -> ValidationSplit:
        share = self.config.data.validation_split
        assert share is not None, "only a data set that is split asks for the rule"
        with read_unchanged(self.files.train, self.config.data) as dialogues:
            return find_split((hash_opening(one.turns) for one in dialogues), share)

    def _is_split(self, data_set: str) -> bool:
        return data_set != "test" and self.config.data.validation_split is not None


def _one_side(
    dialogues: Iterable[Dialogue],
    split: ValidationSplit,
    data_set: str,
    omissions: Mapping[str, Omissions],
) -> Iterator[Dialogue]:
    """Yield the dialogues of one side; those that train leaves to validation are counted."""
    for dialogue in dialogues:
        is_held_back = split.is_held_back(hash_opening(dialogue.turns))
        if is_held_back == (data_set == "validation"):
            yield dialogue
        elif is_held_back and dialogue.file in omissions:
            omissions[dialogue.file].num_held_back += 1
