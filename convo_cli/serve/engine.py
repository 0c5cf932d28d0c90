"""The engine: one thread that answers jobs with one model, in a continuous batch.

Other threads submit and cancel jobs, and receive events through the function of each job. A job
that cannot be computed fails alone. After an unexpected exception, the jobs in progress fail, and
the thread continues with later ones. The weights of the model must not change, and no other code
may use the model meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import torch

from convo_cli.errors import ConvoError
from convo_cli.model.decoding.continuous.batch_requests import NewToken, Outcome, Request
from convo_cli.model.decoding.continuous.continuous_batch import ContinuousBatch
from convo_cli.model.decoding.generator import Generator
from convo_cli.serve.jobs import (
    BusyError,
    EngineFaultError,
    Failed,
    Finished,
    Job,
    JobEvent,
    Piece,
)
from convo_cli.serve.reply_text import ReplyText


@dataclass(eq=False)
class _Task:
    """A job in progress."""

    job: Job
    request: Request
    text: ReplyText
    is_over: bool = False
    """Whether its last event was emitted, or it was cancelled."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while an event is emitted, so that none follows `Engine.cancel`."""


class Engine:
    """Answers jobs with one model in a thread of its own."""

    def __init__(
        self,
        generator: Generator,
        *,
        max_rows: int = 16,
        max_waiting: int = 64,
        on_fault: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        """Prepare the model and start the thread.

        ``on_fault`` receives exceptions that are faults of convo, in the engine's thread.
        """
        self.num_faults = 0
        """Exceptions that were faults of convo."""
        self._generator = generator
        self._on_fault = on_fault
        self._changed = threading.Condition()
        self._tasks: dict[Job, _Task] = {}
        self._by_request: dict[Request, _Task] = {}
        self._submitted: list[_Task] = []
        self._cancelled: list[_Task] = []
        self._is_draining = False
        self._is_stopping = False
        # The copy of the weights and the proofs are made here, so that the first job need not wait.
        with torch.inference_mode(), generator.answering() as forward:
            self._batch = ContinuousBatch(
                generator.model, forward, frozenset(generator.encoder.stop_ids), max_rows=max_rows
            )
        self.max_rows = self._batch.max_rows
        """Limit of the replies that are computed at a time."""
        self._max_jobs = self.max_rows + max_waiting
        self._num_torch_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="convo-engine", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Return the number of jobs whose prompt is not being read yet."""
        with self._changed:
            return len(self._submitted) + self._batch.num_waiting

    @property
    def num_running(self) -> int:
        """Return the number of the other jobs in progress."""
        with self._changed:
            return max(0, len(self._tasks) - self.num_waiting)

    def submit(self, job: Job) -> None:
        """Queue a job. Raises BusyError if the queue is full or the engine is draining.

        ValueError if a stop string is empty.
        """
        request = Request(job.query, job.settings, job.seed, job.cache_key)
        task = _Task(job, request, ReplyText(self._generator.encoder, job.stop))
        with self._changed:
            if self._is_draining:
                raise BusyError("the server is stopping")
            if len(self._tasks) >= self._max_jobs:
                raise BusyError("too many requests are waiting", hint="try again later")
            self._tasks[job] = self._by_request[request] = task
            self._submitted.append(task)
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """End a job without an event; its row is freed at the next step."""
        with self._changed:
            task = self._tasks.get(job)
        if task is None:
            return
        with task.lock:
            if not task.is_over:
                self._close(task)
                with self._changed:
                    self._cancelled.append(task)
                    self._changed.notify_all()

    def drain(self, seconds: float) -> None:
        """Refuse new jobs, finish the accepted ones, and end the thread.

        After ``seconds``, the remaining jobs fail with BusyError.
        """
        with self._changed:
            self._is_draining = True
            self._changed.notify_all()
        self._thread.join(seconds)
        with self._changed:
            self._is_stopping = True
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._num_torch_threads)  # a new thread has the library's default
        while self._wait_for_work():
            try:
                with torch.inference_mode(), self._generator.answering():
                    while self._wait_for_work():
                        self._advance()
            except Exception as error:  # noqa: BLE001 - the thread must not die
                self._report(error)
                self._fail_running()

    def _fail_running(self) -> None:
        """Fail the jobs in progress after a fault; those that only waited are kept."""
        with self._changed:
            waiting = self._batch.clear()
            kept = {*waiting, *(task.request for task in self._submitted)}
            running = [task for task in self._tasks.values() if task.request not in kept]
        for task in running or list(self._tasks.values()):
            self._fail(task, _fault())
        for request in waiting:
            if request in self._by_request:
                self._batch.add(request)

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; return False at the end of the thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_work() or self._is_draining)
            if not self._is_stopping:
                return self._has_work()
        for task in list(self._tasks.values()):
            self._fail(task, BusyError("the server is stopping"))
        return False

    def _has_work(self) -> bool:
        return bool(self._tasks or self._cancelled or not self._batch.is_idle)

    def _advance(self) -> None:
        """Take one step of the batch and emit its outcomes."""
        with self._changed:
            submitted, self._submitted = self._submitted, []
            cancelled, self._cancelled = self._cancelled, []
            for task in submitted:
                if not task.is_over:
                    self._batch.add(task.request)
        for task in cancelled:
            self._batch.remove(task.request)
        for outcome in self._batch.step():
            self._deliver(outcome)

    def _deliver(self, outcome: Outcome) -> None:
        task = self._by_request.get(outcome.request)
        if task is None:  # cancelled
            return
        try:
            if isinstance(outcome, NewToken):
                self._add_token(task, outcome)
            else:
                self._fail(task, outcome.error)
        except Exception as error:  # noqa: BLE001 - only this job fails
            self._report(error)
            self._batch.remove(task.request)
            self._fail(task, _fault())

    def _add_token(self, task: _Task, outcome: NewToken) -> None:
        text = task.text.push(outcome.token, is_last=outcome.is_last)
        if text:
            self._emit(task, Piece(text))
        if task.text.is_stopped or outcome.is_last:
            self._batch.remove(task.request)
            request = task.request
            reason: Literal["stop", "length"] = "stop" if task.text.is_stopped else "length"
            self._end(task, Finished(reason, len(request.ids), request.num_reused))

    def _fail(self, task: _Task, error: ConvoError) -> None:
        try:
            self._end(task, Failed(error))
        except Exception as fault:  # noqa: BLE001 - the receiver's fault must not end the thread
            self._report(fault)

    def _end(self, task: _Task, event: JobEvent) -> None:
        with task.lock:
            if not task.is_over:
                self._close(task)
                task.job.emit(event)

    def _emit(self, task: _Task, event: JobEvent) -> None:
        with task.lock:
            if not task.is_over:
                task.job.emit(event)

    def _close(self, task: _Task) -> None:
        task.is_over = True
        with self._changed:
            self._tasks.pop(task.job, None)
            self._by_request.pop(task.request, None)

    def _report(self, error: Exception) -> None:
        self.num_faults += 1
        with suppress(Exception):  # the thread must not die
            self._on_fault(error)


def _fault() -> EngineFaultError:
    return EngineFaultError("the request failed because of an internal error")
