"""The judge of `validate-data --fix --config`, which refuses what the config does not accept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import msgspec

from convo_cli.config.schema import PretrainedModel, RunConfig
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.problems import Problem
from convo_cli.data.repair.dialogues import Judge
from convo_cli.events import ignore
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.encode import encode, to_store
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.prepared_text import build_encoder
from convo_cli.runs.provenance.data_files import DataFiles, read_data_files

Repair: TypeAlias = Callable[[Callable[[bytes], object], Judge | None], int]
"""Passes the lines that a judge accepts to a writer, and returns their number."""


def judge_of(config: RunConfig, repair: Repair) -> Judge | None:
    """Return a judge of lines that pass the pre-flight together; None if no line is left.

    A new tokenizer is trained on the accepted lines, and also decides which lines are accepted. So
    it is trained again until it refuses no further line.
    """
    refused: dict[bytes, Problem] = {}
    if isinstance(config.model.origin, PretrainedModel):
        return _judge(config, DataFiles((), ()), refused)
    with TemporaryDirectory(prefix="convo-fix-") as folder:
        lines = Path(folder) / "accepted.jsonl"
        config = config.model_copy(update={"data": config.data.of([str(lines)])})

        def write_lines(judge: Judge | None) -> int:
            with lines.open("wb") as file:
                return repair(file.write, judge)

        judge, num_before = None, 0
        while (num_lines := write_lines(judge)) not in (0, num_before):
            judge, num_before = _judge(config, read_data_files(config.data), refused), num_lines
        return judge


def _judge(config: RunConfig, files: DataFiles, refused: dict[bytes, Problem]) -> Judge:
    """Return a judge with the encoder of a run on these files.

    It adds the hashes of dialogues that it refuses to ``refused``, and refuses them from then on.
    """
    # The pre-flight of the fixed file emits these events again.
    encoder = build_encoder(Inputs(config, files, Cache(None, ignore), ignore)).encoder

    def judge(turns: Sequence[Turn]) -> Problem | None:
        dialogue = Dialogue(tuple(turns))
        key = hashlib.sha256(msgspec.json.encode(dialogue.turns)).digest()
        if key not in refused:
            found: list[Problem] = []
            encoded = zip([dialogue], encode([dialogue], config, encoder), strict=True)
            to_store(list(encoded), config, encoder, found.append)
            if not found:
                return None
            refused[key] = found[0]
        return refused[key]

    return judge
