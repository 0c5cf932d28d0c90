"""The execution of a run: device, precision, CPU threads and batching, which decide its bits with data and config.

run.json stores it, and every resume uses it again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ResolvedPrecision = Literal["fp32", "bf16", "fp16"]


class Machine(BaseModel):
    """The part that is chosen before the model is built: where it computes, and in which arithmetic."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str
    """cpu, mps or cuda:N."""
    device_name: str
    """The model of the GPU or of the processor."""
    precision: ResolvedPrecision
    num_threads: int = Field(ge=1)
    """CPU threads of one operation; sums are split among them, so their number changes the last bits."""
    cpu_capability: str
    """The instructions that torch's CPU kernels use, such as AVX2."""
    environment: dict[str, str]
    """Variables that choose the kernels of the math libraries, as far as they are set."""


class Execution(Machine):
    """The machine and the batching: how examples become batches, and which code computes their loss."""

    is_packed: bool
    why_padded: str | None
    """Why batches are padded; None for packed ones."""
    has_plain_head: bool
    """The logits are the last hidden states times the output embeddings, so the loss needs them at targets only."""
    attention: str
    """The attention kernel."""

    @property
    def batching(self) -> str:
        """The batching in words."""
        rows = "packed rows" if self.is_packed else "padded rows"
        return f"{rows} ({self.attention}), logits {'at targets' if self.has_plain_head else 'of all tokens'}"


class Change(BaseModel):
    """A resume changed what decides the bits: the updates after ``step`` are computed in another way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int = Field(ge=0)
    message: str
