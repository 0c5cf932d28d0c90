"""Micro-batch size of a run: that of the config, or with auto the largest that fits in memory.

It is chosen once, before step 1. run.json stores it, and a resume keeps it if it still fits.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import numpy as np

from convo_cli.config.schema import TrainingConfig
from convo_cli.errors import UsageError
from convo_cli.events import Emit, Notice, begin
from convo_cli.model.memory.batch_trial import try_batch
from convo_cli.model.nvml import measured
from convo_cli.report import shown
from convo_cli.runs.provenance.run_info import RunInfo
from convo_cli.tokens.store import ASSISTANT_TARGET, Example
from convo_cli.training.fitting.largest_size import Measurements, Size, largest_that_fits
from convo_cli.training.fitting.worst_pass import WorstPasses
from convo_cli.training.planning.run_memory import LATER, Room, loss_of, tensor_bytes
from convo_cli.training.run_parts import FittedPass, Parts
from convo_cli.wording import counted
from convo_cli.world import seat_in

_SHARE, _RESERVE = 0.85, 64 << 20
"""A new choice leaves 15 % of the room and 64 MiB free.

They are for what a process loads later, for unused memory between blocks in use, and for errors of
the prediction.
"""
_KEPT_SHARE = 0.95
"""A stored number is kept if it leaves 5 %, beside the libraries that a run imports later.

So it does not change with each resume.
"""
_QUICK = 1e12
"""Most operations of a pass that takes a CPU a few seconds."""


def with_micro_batch_size(parts: Parts, info: RunInfo | None, emit: Emit) -> Parts:
    """Return the parts with the micro-batch size of the run in their execution.

    ``info`` is run.json of a resumed run. Every process of the world calls this, before gradients
    and moments exist and before the model is sharded.
    """
    training = parts.config.training
    size, fitted = training.micro_batch_size, None
    if size == "auto":
        begin("measuring the memory of a micro-batch", emit)
        is_same = info is not None and _settings(info.config.training) == _settings(training)
        size, fitted = _Search(parts).agree(info if is_same else None, emit)
    execution = parts.execution.model_copy(update={"micro_batch_size": size})
    return replace(parts, execution=execution, fitted=fitted)


def _settings(training: TrainingConfig) -> tuple[object, ...]:
    return training.micro_batch_size, training.batch


@dataclass(frozen=True, slots=True)
class _Found:
    """The size that a process found, and the facts behind it, in bytes."""

    size: int
    needed: int | None
    """Bytes of its worst pass; None if it ran out of memory."""
    larger: int | None
    """Bytes of the worst pass of the next larger size; None if there is none or it failed."""
    room: int
    """Bytes that are free for passes."""

    @property
    def fits(self) -> bool:
        """Return whether its worst pass fits."""
        return self.needed is not None and self.needed <= self.room


class _Search:
    """The search for the largest size whose worst pass fits beside gradients and moments.

    Evaluations, replies and saving come between steps, so no pass needs memory at the same time.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts, self._world = parts, parts.world
        lengths, size = parts.data.train.lengths, self._world.size
        self._worst = WorstPasses(lengths, parts.order, parts.batching, size)
        self._known = Measurements(self._measure)
        seat = seat_in()
        room = measured(lambda: Room.of(parts.device, 1 if seat is None else seat.local_size))
        if room is None:
            raise UsageError(
                "training.micro_batch_size is auto, but the free memory cannot be read here",
                hint="set training.micro_batch_size to a number",
            )
        free, self._most = room.free, room.total
        self._room = free - _bytes_to_come(parts)
        self._num_weights = sum(weight.numel() for weight in parts.model.parameters())

    def agree(self, info: RunInfo | None, emit: Emit) -> tuple[int | None, FittedPass | None]:
        """Return the smallest size that any process found; None: all examples of the step.

        The second value is its worst pass; None if it does not fit. ``info`` has an earlier choice;
        None: there is none. A new choice emits notices.
        """
        self._world.meet()  # passes of other processes take memory
        whole, stored = self._worst.largest, None
        if info is not None:
            stored = info.execution.micro_batch_size or whole
        own = self._find(stored)
        self._world.meet()  # without a time limit, unlike `gather`
        all_found = [_Found(*values) for values in self._world.gather(list(astuple(own)))]
        found = min(all_found, key=lambda one: one.size)
        if found.size != stored:
            if stored is not None:
                why = f"{self._in_words(stored)} no longer fit in the free memory"
                emit(Notice(f"micro-batch size: chosen again, because {why}"))
            emit(self._notice(found))
        is_whole = found.size == whole and self._parts.order.phases[-1].unit == "tokens"
        size = None if is_whole else found.size
        if found.needed is None or not found.fits:
            return size, None
        return size, FittedPass(found.needed, self._most)

    def _find(self, stored: int | None) -> _Found:
        sizes = [self._size(size) for size in self._worst.sizes()]
        if stored is not None:
            smaller = [size for size in sizes if size.size < stored]
            candidates = [self._size(stored), *smaller]
            kept = largest_that_fits(candidates, self._known, self._fits, self._fits_well)
            if kept.size == stored:
                return _Found(kept.size, kept.needed, kept.larger, self._room)
        fit = largest_that_fits(sizes, self._known, self._fits_well, self._fits_well)
        return _Found(fit.size, fit.needed, fit.larger, self._room)

    def _fits(self, needed: int) -> bool:
        return needed + LATER <= _KEPT_SHARE * self._room

    def _fits_well(self, needed: int) -> bool:
        return needed + _RESERVE <= _SHARE * self._room

    def _size(self, size: int) -> Size:
        num_slots = self._worst.num_slots(size)
        is_quick = self._parts.device.type != "cpu" or 6 * num_slots * self._num_weights <= _QUICK
        return Size(size, num_slots, is_quick)

    def _measure(self, size: Size) -> int | None:
        """Return the peak of the worst passes of a size; None if memory ran out."""
        parts, peak = self._parts, 0
        for indices in self._worst.passes(size.size):
            examples = [parts.data.train[int(index)] for index in indices]
            examples = [_all_targets(example, is_halved=size.is_halved) for example in examples]
            batch = parts.batching.batch(examples, (ASSISTANT_TARGET,))
            trial = try_batch(parts.model, loss_of(parts), batch)
            if trial is None:
                return None
            peak = max(peak, trial.peak_bytes)
        return peak

    def _in_words(self, size: int) -> str:
        return "all examples of a step" if size >= self._worst.largest else counted(size, "example")

    def _notice(self, found: _Found) -> Notice:
        chosen = f"micro-batches: {self._in_words(found.size)}"
        room = f"{shown.size(max(0, found.room))} are free beside gradients and AdamW's moments"
        if found.needed is None or not found.fits:
            why = "" if found.needed is None else f" (it needs {shown.size(found.needed)}; {room})"
            message = f"{chosen}, and the longest one may not fit in memory{why}"
            return Notice(message, is_warning=True)
        needed = f"a pass needs up to {shown.size(found.needed)}"
        if found.size >= self._worst.largest:
            return Notice(f"{chosen} ({needed}; {room})")
        more = "do not fit" if found.larger is None else f"need {shown.size(found.larger)}"
        if found.larger is not None and found.larger <= found.room:
            more += ", which leaves too little in reserve"
        return Notice(f"{chosen} ({needed}; {room}; twice as many {more})")


def _all_targets(example: Example, *, is_halved: bool) -> Example:
    """Return an example that needs the most memory of its length: every token is a target."""
    length = len(example.input_ids)
    ids = example.input_ids[: max(2, length // 2) if is_halved else length]
    return Example(ids, np.full(len(ids), ASSISTANT_TARGET, np.uint8))


def _bytes_to_come(parts: Parts) -> int:
    """Return the bytes of gradients and moments."""
    _, gradients, moments = tensor_bytes(parts)
    # With sharding, gradients are whole until the last pass of a step.
    whole = gradients * parts.world.size if parts.execution.sharding == "full" else 0
    return whole + gradients + moments
