"""Phases of a run: consecutive steps with the same batch settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

from convo_cli.config.schema import TrainingConfig


class Phase(BaseModel):
    """A phase and its start in the stream of examples.

    Checkpoints store the phases, so that a resume with another batch size continues at the next
    example.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_step: int = Field(0, ge=0)
    """Number of steps before the phase."""
    first_example: int = Field(0, ge=0)
    """Number of examples trained on before the phase, over all epochs."""
    batch: int = Field(ge=1)
    """Size of a step in ``unit``."""
    unit: Literal["examples", "tokens"] = "examples"

    @classmethod
    def of(cls, training: TrainingConfig, first_step: int = 0, first_example: int = 0) -> Self:
        """Return the phase that begins here with the batch settings of the config."""
        batch = training.batch
        return cls(
            first_step=first_step, first_example=first_example, batch=batch.number, unit=batch.unit
        )
