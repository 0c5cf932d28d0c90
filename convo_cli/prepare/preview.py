"""Preview of training for `validate-data`: the preparation and checks of `train`, but no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convo_cli.config.schema import RunConfig
from convo_cli.data.checks.report import Spread
from convo_cli.events import Emit, TokenCounts
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.preflight import tokens_per_dialogue
from convo_cli.prepare.prepare import PreparedData, prepare_data
from convo_cli.prepare.prepared_text import build_encoder
from convo_cli.runs.provenance.data_files import DataFiles, with_hashed_data
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.readable import Stretch, stretches


@dataclass(frozen=True)
class ShownExample:
    """An example of the training data, with the file and line of its dialogue."""

    where: str
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True)
class Preview:
    """The result for data and a config that `train` would accept."""

    template: str
    max_length: int
    training: TokenCounts
    validation: TokenCounts | None
    test: TokenCounts | None
    tokens_per_dialogue: Spread
    """Lengths of the training dialogues before windows are cut."""
    shown: tuple[ShownExample, ...]


def preview(
    config: RunConfig, emit: Emit, *, home: Path | None, max_problems: int, num_shown: int
) -> Preview:
    """Do everything that `train` does before it builds a model.

    ``home`` holds the cache; None for a temporary one. Raises what `build_encoder` and
    `prepare_data` raise.
    """
    cache = Cache(home, emit)

    def prepare(files: DataFiles) -> tuple[DialogueEncoder, PreparedData]:
        inputs = Inputs(config, files, cache, emit)
        encoder = build_encoder(inputs).encoder
        return encoder, prepare_data(inputs, encoder, max_problems=max_problems)

    encoder, data = with_hashed_data(config.data, prepare, emit)
    train = data.train
    return Preview(
        template=encoder.template.name,
        max_length=encoder.max_length,
        **data.counts(encoder.max_length),
        tokens_per_dialogue=tokens_per_dialogue(train),
        shown=tuple(
            ShownExample(
                train.where(int(train.dialogue_of[index]), config.data.train),
                tuple(stretches(encoder, train[index])),
            )
            for index in range(min(num_shown, len(train)))
        ),
    )
