"""A phase of a run: steps in a row with the same batch settings, and where in the stream of examples they begin."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

from convo_cli.config.schema import TrainingConfig


class Phase(BaseModel):
    """Checkpoints store the phases of their run: a resume with another batch size continues with the next example."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_step: int = Field(0, ge=0)
    """Steps before the phase."""
    first_example: int = Field(0, ge=0)
    """Examples trained on before the phase, those of all epochs together."""
    batch: int = Field(ge=1)
    """What a step takes, in units."""
    unit: Literal["examples", "tokens"] = "examples"

    @classmethod
    def of(cls, training: TrainingConfig, first_step: int = 0, first_example: int = 0) -> Self:
        """The phase that begins there with the batch settings of the config."""
        batch = training.batch
        return cls(first_step=first_step, first_example=first_example, batch=batch.number, unit=batch.unit)
