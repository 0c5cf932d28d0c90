"""World of several processes that share a store and the collectives of torch.distributed.

A wait that may be long polls the store, because a collective has a time limit. The store also holds
the error of the process that failed first, so that rank 0 can report it. Nothing is pickled: values
travel as JSON.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.tensor import DTensor

from convo_cli.errors import ConvoError, RankLostError, StoppedError
from convo_cli.training.distributed.error_records import as_error, as_record
from convo_cli.training.distributed.gradients import sum_in_buckets
from convo_cli.world import Seat, Tally, World

T = TypeVar("T")

_TO_CONFIRM = 2.0  # seconds in which the other processes confirm that they are alive
_TO_ASK = 2 * _TO_CONFIRM  # seconds in which the store must answer
POLL = 0.05  # seconds between two looks at the store
_FAILED = "failed"
_GLOO = "gloo/transport/"  # gloo raises RuntimeError with the path of its source file


class ProcessGroup(World):
    """Several processes that met at a store."""

    def __init__(self, seat: Seat, store: Store) -> None:
        self.rank, self.size, self.local_rank, _ = seat
        self._store, self._turn = store, 0
        self._hosts: list[str] = []
        self._hosts = self.gather(socket.gethostname())

    def name(self, rank: int) -> str:
        return f"rank {rank}" + (f" on {self._hosts[rank]}" if self._hosts else "")

    def sum(self, values: Sequence[float]) -> list[float]:
        own = torch.tensor(values, dtype=torch.float64)
        total = torch.zeros_like(own)
        for part in self._all(own):
            total += part
        return cast("list[float]", total.tolist())

    def gather(self, value: T) -> list[T]:
        text = json.dumps(value).encode()
        sizes = [int(size) for size in self._all(torch.tensor([len(text)]))]
        own = torch.zeros(max(sizes), dtype=torch.uint8)
        own[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        parts = zip(self._all(own), sizes, strict=True)
        return [json.loads(bytes(part[:size].tolist())) for part, size in parts]

    def _all(self, own: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with self._explained():
            dist.all_gather(parts, own)
        return parts

    def sum_gradients(self, parameters: Iterable[Any]) -> None:
        trained = [
            parameter
            for parameter in parameters
            # FSDP2 has reduced the gradients of its own parameters.
            if parameter.requires_grad and not isinstance(parameter, DTensor)
        ]
        # A process without examples has no gradients. AdamW must not move a parameter that no
        # process used.
        counts = self.sum([parameter.grad is not None for parameter in trained])
        gradients: list[Tensor] = []
        for parameter, count in zip(trained, counts, strict=True):
            if count and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if count:
                gradients.append(parameter.grad)
        with self._explained():
            sum_in_buckets(gradients)

    def share_weights(self, tensors: Iterable[Any]) -> None:
        with self._explained(), torch.no_grad():
            for tensor in tensors:
                whole = tensor.contiguous()
                dist.broadcast(whole, 0)
                if whole is not tensor:
                    tensor.copy_(whole)

    @contextmanager
    def after_first(self) -> Iterator[None]:
        key = self._next_key()
        if not self.is_first:
            self._wait(lambda: self._store.check([key]))
        yield
        if self.is_first:
            self._store.set(key, "done")

    @contextmanager
    def connected(self) -> Iterator[None]:
        # FSDP2 runs its own collectives inside the passes of a model.
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or _GLOO in str(error):
                raise self._cause() from error
            raise

    def first_alone(self, work: Callable[[], T]) -> T | None:
        with self.after_first():
            return work() if self.is_first else None

    def tally(self) -> Tally:
        return _SharedTally(self, self._store, self._next_key())

    def meet(self, on_wait: Callable[[], None] = lambda: None) -> None:
        here = self.tally()
        here.add(1)
        self._wait(lambda: here.add() == self.size, on_wait)

    def agreed(self, work: Callable[[], T], on_wait: Callable[[], None] = lambda: None) -> T:
        result: list[T] = []
        error: ConvoError | None = None
        try:
            result.append(work())
        except (RankLostError, StoppedError):  # these end every process
            raise
        except ConvoError as caught:
            error = caught
        self.meet(on_wait)
        records = self.gather(None if error is None else as_record(error))
        failed = next((rank for rank, record in enumerate(records) if record is not None), None)
        if failed is not None:
            own = error if failed == self.rank else None
            raise own or as_error(records[failed] or [], self.name(failed))
        return result[0]

    def publish(self, error: Exception) -> None:
        """Leave an error in the store for rank 0, unless another process failed first."""
        if not isinstance(error, RankLostError):
            record = json.dumps([self.rank, *as_record(error)])
            _answers(lambda: self._store.compare_set(_FAILED, "", record))

    def leave(self) -> None:
        """Leave the world after success; rank 0 leaves last, because it serves the store."""
        self._store.set(f"left/{self.rank}", "")
        others = [f"left/{rank}" for rank in range(1, self.size if self.is_first else 0)]
        self._wait(lambda: all(self._store.check([key]) for key in others))
        with suppress(RuntimeError):  # nccl may fail at its end, but the run has succeeded
            dist.destroy_process_group()

    def _next_key(self) -> str:
        self._turn += 1
        return f"turn/{self._turn}"

    def _wait(
        self, is_over: Callable[[], bool], on_wait: Callable[[], None] = lambda: None
    ) -> None:
        """Poll the store until the wait ``is_over``; polls have no time limit."""
        with self._explained():
            while not is_over():
                if (failure := self._failure()) is not None:
                    raise failure
                on_wait()
                time.sleep(POLL)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Replace an error of a collective or of the store by the error that caused it."""
        try:
            yield
        except RuntimeError as error:
            raise self._cause() from error

    def _cause(self) -> ConvoError:
        """Return the error of the process that failed first, or name those that give no answer."""
        causes = _answers(self._ask_for_cause)
        return causes[0] if causes else self._lost([0])

    def _ask_for_cause(self) -> ConvoError:
        missing = [rank for rank in range(self.size) if rank != self.rank]
        deadline = time.monotonic() + _TO_CONFIRM
        self._store.set(f"alive/{self.rank}", "")
        while missing and time.monotonic() < deadline:
            if (failure := self._failure()) is not None:
                return failure
            missing = [rank for rank in missing if not self._store.check([f"alive/{rank}"])]
            time.sleep(POLL)
        return self._lost(missing)

    def _lost(self, ranks: Sequence[int]) -> RankLostError:
        names = " and ".join(map(self.name, ranks)) or "a connection"
        return RankLostError(f"{names} ended or did not answer, so convo stopped")

    def _failure(self) -> ConvoError | None:
        if not self._store.check([_FAILED]):
            return None
        rank, *record = json.loads(self._store.get(_FAILED))
        found = as_error(record, self.name(rank))
        if isinstance(found, StoppedError):
            return found
        error = RankLostError(found.message, hint=found.hint)
        error.exit_code = found.exit_code
        return error


def _answers(ask: Callable[[], T]) -> list[T]:
    """Return the answer of the store; nothing if rank 0, which serves it, ended or hangs."""
    answers: list[T] = []

    def wait() -> None:
        with suppress(RuntimeError):
            answers.append(ask())

    # In a thread, because a call to the store never returns if the process serving it hangs.
    asking = threading.Thread(target=wait, daemon=True)
    asking.start()
    asking.join(_TO_ASK)
    return list(answers)


class _SharedTally(Tally):
    """A counter in the store."""

    def __init__(self, group: ProcessGroup, store: Store, key: str) -> None:
        self._group, self._store, self._key = group, store, key

    def add(self, amount: int = 0) -> int:
        with self._group._explained():
            return self._store.add(self._key, amount)
