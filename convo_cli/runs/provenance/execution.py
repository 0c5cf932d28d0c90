"""The execution of a run: device, precision, CPU threads and batching.

It affects the bits of a run as data and config do. run.json stores it, and every resume reuses it.
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
    num_processes: int = Field(1, ge=1)
    """Processes that share each step, one for each device."""
    num_threads: int = Field(ge=1)
    """CPU threads of one operation; they share its sums, so their number changes the last bits."""
    cpu_capability: str
    """The instruction set of torch's CPU kernels, such as AVX2."""
    environment: dict[str, str]
    """Environment variables that are set and choose kernels of the math libraries."""


class Execution(Machine):
    """The machine and the batching: how examples become batches, and what computes their loss."""

    is_packed: bool
    why_padded: str | None
    """The reason why batches are padded; None if they are packed."""
    has_plain_head: bool
    """True if logits are the last hidden states times the output embeddings.

    Then only the logits at targets are computed.
    """
    attention: str
    """The attention kernel."""
    sharding: Literal["none", "full"] = "none"
    """Whether each process has all of the model (none) or a part of it (full)."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Examples in one forward pass; None: all examples of the step."""

    @property
    def batching(self) -> str:
        """The batching in words."""
        rows = "packed rows" if self.is_packed else "padded rows"
        logits = "at targets" if self.has_plain_head else "of all tokens"
        return f"{rows} ({self.attention}), logits {logits}"


class Change(BaseModel):
    """A change by a resume that affects the bits of the updates after ``step``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int = Field(ge=0)
    message: str
