"""Events of a run as dataclasses. The loop emits them; reporters show, store or draw them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know: a setting skipped, overridden or chosen for them."""

    message: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of one stage of work beside the steps, from ``done`` 0 to ``total``."""

    stage: str
    done: int
    total: int | None = None
    """None if it is not known."""
    unit: Literal["", "bytes", "dialogues", "examples", "steps"] = ""
    """Unit of ``done`` and ``total``; empty for a stage that counts nothing."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Counts of the pre-flight for one data set: training, validation or test."""

    num_dialogues: int
    num_examples: int
    """Dialogues, and windows of those longer than `dialogue.max_length`."""
    num_over_length: int
    """Dialogues that are cut into windows without losing targets."""
    num_tokens: int
    """Tokens of all examples; tokens that windows repeat as context count each time."""
    num_dialogue_tokens: int
    """Tokens of the dialogues before windows are cut; each counts once, like a target."""
    num_targets_by_role: Mapping[str, int]
    median_tokens: float
    """Median tokens of a whole dialogue."""
    max_tokens: int
    num_split: int = 0
    """Dialogues with a turn too long for any window, cut by `dialogue.long_turns: split`."""
    num_left_out: int = 0
    """Dialogues left out by `dialogue.long_turns: drop`; no other number counts them."""
    num_held_back: int = 0
    """Dialogues held back by `data.validation_split`, which no other number of training counts."""


@dataclass(frozen=True, slots=True)
class BestScore:
    """The best score of a run so far, and the step whose weights have it."""

    name: str
    """``loss``, or the name of a metric."""
    value: float
    step: int


@dataclass(frozen=True, slots=True)
class RunStarted:
    """Everything is built and checked; step ``first_step`` comes next."""

    run_dir: Path
    device: str
    precision: str
    num_threads: int
    """CPU threads of one operation."""
    num_parameters: int
    template: str
    max_length: int
    training: TokenCounts
    validation: TokenCounts | None
    first_step: int
    max_steps: int
    steps_per_epoch: int
    peak_flops: float | None = None
    """Peak operations per second of the device; None if not known."""
    batch_size: int | None = None
    """Examples of a step; None if a step is a number of tokens."""
    steps_per_evaluation: float | None = None
    """Steps between two evaluations, a fraction if they come by epochs; None without validation."""
    steps_per_checkpoint: float | None = None
    """Steps between two checkpoints; None if only the last step saves one."""
    metric: str = ""
    """The metric by which the best checkpoint is chosen, besides the loss."""
    best: tuple[BestScore, ...] = ()
    """The best scores of earlier steps, for a resumed run."""
    test: TokenCounts | None = None
    num_processes: int = 1  # they share each step, one for each device
    micro_batch_size: int | None = None  # examples in one forward pass; None: all of a step
    files: tuple[Mapping[str, Any], ...] = ()
    """Shares of the training files in the steps (`convo_cli.tokens.shares`), if they differ."""
    validation_files: tuple[str, ...] = ()  # paths; empty for a single file


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer update; ``loss`` is that of the whole step before it, in nats per target."""

    step: int
    max_steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    num_tokens: int
    num_targets: int
    seconds: float
    tokens_seen: int
    epoch: float = 0.0
    """Epochs finished after the step."""
    waiting_seconds: float = 0.0
    """Part of ``seconds`` spent on choosing and batching examples."""
    flops: float = 0.0
    """Operations of the step's matrix products."""
    loss_by_file: tuple[float | None, ...] = ()
    """The loss on each training file, None without a target; empty for a single file."""
    num_targets_by_file: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """Use of the GPU of a run; a value that is not available is None."""

    process_bytes: int | None = None
    """Memory that torch holds for this process."""
    peak_process_bytes: int | None = None
    used_bytes: int | None = None
    """Memory in use by all programs."""
    total_bytes: int | None = None
    utilization: float | None = None
    """Share of the last second in which the GPU computed."""
    memory_utilization: float | None = None
    """Share of the last second in which its memory was read or written."""
    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    fan_speed: float | None = None
    """Share of the highest speed."""
    power_watts: float | None = None
    power_limit_watts: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceMeasured:
    """Use of the machine after ``step`` updates; a value that is not available is None."""

    step: int
    memory_bytes: int | None
    """Resident memory of all processes of the job."""
    peak_memory_bytes: int | None
    cpu_utilization: float | None
    """Share of the machine's CPUs that all programs used since the previous measurement."""
    gpu: GpuUsage | None = None
    """The GPU on which the job holds most memory; None for a run on a CPU."""


@dataclass(frozen=True, slots=True)
class SampleReply:
    """A reply generated from the gold history of a validation dialogue, next to the real one."""

    history: tuple[tuple[str, str], ...]
    """(role, text) of every turn before the reply."""
    reference: str
    reply: str
    stopped: bool
    """False if the reply ended at the token limit instead of a stop token."""
    other_references: tuple[str, ...] = ()
    """Further real replies to the same history, if the data has them."""


@dataclass(frozen=True, slots=True)
class HealthFinding:
    """A sign that a run is going wrong, found by an evaluation."""

    kind: str
    """Name of the sign, such as ``end-token``, ``echo`` or ``repetition``."""
    message: str
    """What was measured, and the likely cause."""


@dataclass(frozen=True, slots=True)
class EvaluationDone:
    """Scores of the weights after ``step`` updates; ``metrics`` are those of the replies."""

    step: int
    loss: float
    perplexity: float
    num_targets: int
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[SampleReply, ...] = ()
    best: tuple[str, ...] = ()
    """The scores (loss, metric) that are the best of the run so far."""
    weights: str = ""
    """Hash of the weights (`convo_cli.runs.logs.evaluations.weights_of`); empty if not on disk."""
    num_split: int = 0
    """Dialogues with a turn too long for any window, scored in consecutive windows."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Bounds of the 95 % interval of each metric that has one."""
    real_scores: Mapping[str, float] = field(default_factory=dict)
    """Values of the real replies, for the metrics whose best value is theirs."""
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Scores of trivial replies to the same turns, by floor (constant, echo, random) and metric."""
    end_nll: float | None = None
    """Mean nll of the tokens that end the real replies, in nats; None if not measured."""
    inner_nll: float | None = None
    """Mean nll of the other assistant targets, in nats; None if not measured."""
    findings: tuple[HealthFinding, ...] = ()
    loss_by_file: tuple[float | None, ...] = ()
    """The loss on each file, None without a target; empty for a single file."""


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A whole checkpoint was published. Its evaluation, if one is due, comes after it."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Training ended; ``reason`` is a sentence such as 'all 300 steps done'."""

    step: int
    reason: str
    is_stopped: bool = False
    """True if the user stopped the run, which is then reported by a message of its own."""


Event = (
    Notice | Progress | RunStarted | StepDone | DeviceMeasured | EvaluationDone | CheckpointSaved
    | RunFinished
)  # fmt: skip
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop an event."""


def begin(stage: str, emit: Emit) -> None:
    """Emit the beginning of a stage whose length is unknown."""
    emit(Progress(stage, 0))
