"""The proof that resuming a run changes nothing, on the user's own run, data and device.

If the run has an earlier checkpoint, the steps from it to the newest one are taken again, with a
save and a resume halfway, and compared with the files of the run. Otherwise some steps from the
newest checkpoint are taken twice: without a break, and with a save and a resume. The results must
be equal, bit for bit.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from convo_cli.config.schema import RunConfig
from convo_cli.errors import ConvoError, typeable
from convo_cli.events import Emit, Event, Notice, begin, ignore
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.runs.checkpoints import read_state
from convo_cli.runs.directory import RunDirectory, existing_run
from convo_cli.runs.lock import locked
from convo_cli.runs.logs.event_log import MetricsLog
from convo_cli.runs.opening import open_checkpoint
from convo_cli.runs.provenance.data_files import read_data_files
from convo_cli.runs.provenance.run_info import RunInfo, read_run_info
from convo_cli.signals import StopRequest, listening
from convo_cli.storage.atomic import make_directory
from convo_cli.storage.sealed import verify_directory
from convo_cli.storage.snapshot import Snapshot
from convo_cli.training.build import build_from
from convo_cli.training.loop import train
from convo_cli.training.resume.accept import accept_changes, require_same_config, resumed_info
from convo_cli.training.resume.compare import Check, Trace, compare, saved_trace
from convo_cli.training.resume.replay_job import ReplayJob, counted
from convo_cli.training.run_parts import Parts
from convo_cli.training.saving import save_checkpoint
from convo_cli.training.state import TrainState

_DEFAULT_STEPS = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the proof."""

    checkpoint: str
    """The checkpoint that both ways start from."""
    num_steps: int
    resumed_after: int
    """Steps before the save and the resume."""
    compared_with: str | None
    """The run's own checkpoint at the end of the steps; None if the steps were taken twice."""
    reason: str
    """The reason why the steps were taken again, or twice."""
    checks: tuple[Check, ...]

    @property
    def difference(self) -> str | None:
        """The first difference; None if everything is equal."""
        return next((check.difference for check in self.checks if check.difference), None)


def verify_run(
    run_dir: Path,
    config: RunConfig,
    emit: Emit,
    *,
    num_steps: int | None = None,
    allow_changed: bool = False,
) -> Verdict:
    """Prove that a resume changes nothing.

    If ``num_steps`` (at least 2) is given, as many are taken from the newest checkpoint. The run
    stays unchanged. Raises what `convo_cli.training.run.resume_run` raises.
    """
    run = existing_run(run_dir)
    stopped = "stopped before the comparison was complete; the run is unchanged"
    again = f"convo resume {typeable(run.path)} --verify"
    with (
        listening() as stop,
        stop.interrupting(stopped, hint=again),
        locked(run),
        tempfile.TemporaryDirectory(prefix="convo-verify-") as folder,
    ):
        info = read_run_info(run)
        require_same_config(info.config, config)
        inputs = Inputs(
            config, read_data_files(config.data, emit), Cache(run.path.resolve().parent, emit), emit
        )
        accepted = accept_changes(run, info, inputs, allow_changed=allow_changed)
        begin("verifying the checkpoint", emit)
        newest = open_checkpoint(run.path, emit, "last")
        aside = RunDirectory(Path(folder))
        make_directory(aside.checkpoints)
        proof = _Proof(run, aside, newest, info, accepted, inputs, stop, emit)
        verdict = "--steps was given" if num_steps else proof.take_again()
        if isinstance(verdict, Verdict):
            return verdict
        return proof.take_twice(num_steps or _DEFAULT_STEPS, verdict)


@dataclass
class _Proof:
    """Takes steps of a run again, in a temporary folder."""

    run: RunDirectory
    aside: RunDirectory
    newest: Snapshot
    info: RunInfo
    accepted: RunInfo
    inputs: Inputs
    """Emits events only while the first parts are built; later builds would repeat them."""
    stop: StopRequest
    emit: Emit

    def take_again(self) -> Verdict | str:
        """Take the steps before the newest checkpoint again and compare.

        Returns the reason if that is impossible.
        """
        newest, last = self.newest.path.name, read_state(self.newest.path).progress.step
        earlier = self._earlier_checkpoint(last)
        if earlier is None:
            return f"the run has no intact checkpoint before {newest}"
        first = read_state(earlier.path).progress.step
        if change := self._change_between(first, last):
            return change
        parts, state = self._build(earlier.path)
        earlier.require_unchanged()
        if change := self._change_between(first, last):  # another machine, or --set
            return change
        half, name = first + (last - first) // 2, earlier.path.name
        self.emit(
            Notice(
                f"taking steps {first + 1:,} to {last:,} again, from {name}; --steps 4 takes fewer"
            )
        )
        count = counted(self.emit, "taking the steps again", first, last - first)
        with closing(MetricsLog(self.aside.metrics, self.aside.samples, after_step=first)) as log:

            def listen(event: Event) -> None:
                count(event)
                log(event)

            self._advance(parts, state, half, listen)
            self._save(parts, state)
            del parts, state
            parts, state = self._build(self.aside.checkpoint(half))
            self._advance(parts, state, last, listen)
            self._save(parts, state)
        own, again = saved_trace(self.run, first, last), saved_trace(self.aside, first, last)
        self.newest.require_unchanged()
        # After a power cut the run's log may lack lines.
        again.logged = {key: again.logged.get(key) for key in own.logged}
        reason = f"the run has a checkpoint before {newest}, and nothing changed between them"
        checks = compare(own, again, ways=("in the run", "when taken again"))
        return Verdict(name, last - first, half - first, newest, reason, checks)

    def take_twice(self, num_steps: int, reason: str) -> Verdict:
        """Take steps from the newest checkpoint without a break, then with a resume halfway."""
        parts, state = self._build(self.newest.path)
        first = state.progress.step
        half, last = first + num_steps // 2, first + num_steps
        straight, resumed = Trace(), Trace()
        count = counted(self.emit, "without a resume", first, num_steps)
        self._advance(parts, state, last, straight.listening(count), straight)
        straight.finish(state)

        count = counted(self.emit, "with a resume", first, num_steps)
        del parts, state
        parts, state = self._build(self.newest.path)
        self.newest.require_unchanged()
        self._advance(parts, state, half, resumed.listening(count), resumed)
        self._save(parts, state)
        del parts, state
        parts, state = self._build(self.aside.checkpoint(half))
        self._advance(parts, state, last, resumed.listening(count), resumed)
        resumed.finish(state)
        checks = compare(straight, resumed, ways=("without a resume", "with a resume"))
        return Verdict(self.newest.path.name, num_steps, half - first, None, reason, checks)

    def _earlier_checkpoint(self, last: int) -> Snapshot | None:
        """Return the newest intact checkpoint before a step, verified."""
        for step in reversed([step for step in self.run.checkpoint_steps() if step < last]):
            try:
                files = verify_directory(self.run.checkpoint(step))
                if read_state(files.path).run_id == self.info.run_id:
                    return files
            except ConvoError:
                continue
        return None

    def _change_between(self, first: int, last: int) -> str | None:
        """Return the first change recorded between two steps, if the run changed there."""
        changes = (change for change in self.info.changes if first < change.step <= last)
        return next(
            (f"the run changes at step {change.step} ({change.message})" for change in changes),
            None,
        )

    def _build(self, checkpoint: Path) -> tuple[Parts, TrainState]:
        """Build the parts and the state of a checkpoint, and record changes in ``info``."""
        inputs, self.inputs = self.inputs, replace(self.inputs, emit=ignore)
        step = read_state(self.newest.path).progress.step
        parts, state = build_from(checkpoint, self.info, inputs)
        state.is_evaluated = True  # this evaluation is not part of the compared steps
        config, emit = inputs.config, inputs.emit
        self.info = resumed_info(
            self.info, self.accepted, config, parts.execution, step=step, emit=emit
        )
        return parts, state

    def _save(self, parts: Parts, state: TrainState) -> None:
        save_checkpoint(self.aside, state, parts.encoder, spiece=parts.spiece, emit=ignore)

    def _advance(
        self, parts: Parts, state: TrainState, until: int, listen: Emit, trace: Trace | None = None
    ) -> None:
        """Run the training loop up to a step without saving; ``trace`` records the batches."""
        train(state, ReplayJob(self.aside, parts, until, self.stop, listen, trace))
