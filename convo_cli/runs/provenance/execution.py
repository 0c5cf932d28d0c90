"""The execution of a run: device, precision, CPU threads and batching, which affect its bits like
data and config.

run.json stores it, and every resume uses it again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ResolvedPrecision = Literal["fp32", "bf16", "fp16"]


class Machine(BaseModel):
    """The part that is chosen before the model is built: device, threads and arithmetic."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str
    """cpu, mps or cuda:N."""
    device_name: str
    """The model of the GPU or of the processor."""
    precision: ResolvedPrecision
    num_threads: int = Field(ge=1)
    """CPU threads of one operation; sums are split among them, so their number changes the last
    bits.
    """
    cpu_capability: str
    """The instruction set of torch's CPU kernels, such as AVX2."""
    environment: dict[str, str]
    """Environment variables that are set and choose kernels of the math libraries."""


class Execution(Machine):
    """The machine and the batching: how examples become batches, and which code computes their
    loss.
    """

    is_packed: bool
    why_padded: str | None
    """The reason why batches are padded; None if they are packed."""
    has_plain_head: bool
    """True if logits are the last hidden states times the output embeddings; the loss then needs
    only targets.
    """
    attention: str
    """The attention kernel."""

    @property
    def batching(self) -> str:
        """The batching in words."""
        rows = "packed rows" if self.is_packed else "padded rows"
        return (
            f"{rows} ({self.attention}), logits "
            f"{'at targets' if self.has_plain_head else 'of all tokens'}"
        )


class Change(BaseModel):
    """A change by a resume that affects the bits: updates after ``step`` are computed
    differently.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int = Field(ge=0)
    message: str
