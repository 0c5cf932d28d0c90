"""Start of a process's part in its world: it meets the others and connects by gloo and nccl.

Small values always travel over gloo; gradients travel over nccl if they are on a GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from convo_cli.errors import ConvoError, UsageError, first_line
from convo_cli.training.distributed.process_group import POLL, ProcessGroup
from convo_cli.training.distributed.rank_process import LISTENER, is_launched
from convo_cli.wording import counted
from convo_cli.world import Seat, World

_TO_MEET = "CONVO_SECONDS_TO_MEET"
"""Environment variable: seconds in which all processes must have started."""
_TO_ANSWER = "CONVO_SECONDS_TO_ANSWER"
"""Environment variable: seconds after which a process that does not answer counts as hung."""


@contextmanager
def joined(seat: Seat, device: str) -> Iterator[World]:
    """Join the world of several processes that the environment describes.

    ``device`` is the value of the config. Rank 0 reports the errors of all processes, so in the
    others a ConvoError becomes SystemExit; under `launch` it does not, because `launch` keeps what
    they print. UsageError if the processes do not meet.
    """
    group = ProcessGroup(seat, _connect(seat, device))
    try:
        yield group
    except Exception as error:
        group.publish(error)
        if group.is_first or is_launched() or not isinstance(error, ConvoError):
            raise
        raise SystemExit(error.exit_code) from None
    group.leave()


def _connect(seat: Seat, device: str) -> Store:
    """Meet the other processes and return their store."""
    has_cuda = device != "cpu" and torch.cuda.is_available()
    if has_cuda:
        if seat.local_size > (count := torch.cuda.device_count()):
            raise UsageError(
                f"{seat.local_size} processes run on this machine, which has "
                f"{counted(count, 'CUDA device')}",
                hint="lower --devices, or use --set training.device=cpu",
            )
        torch.cuda.set_device(seat.local_rank)
    to_meet, to_answer = _seconds(_TO_MEET, 300), _seconds(_TO_ANSWER, 600)
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not (host and port.isascii() and port.isdecimal()):
        raise UsageError(
            f"MASTER_ADDR={host} MASTER_PORT={port}: not the address of rank 0",
            hint="start the processes with torchrun, which sets both",
        )
    try:
        if fd := os.environ.get(LISTENER):
            store: Store = dist.TCPStore(  # type: ignore[attr-defined]
                host, int(port), seat.size, seat.rank == 0, to_meet, wait_for_workers=False,
                master_listen_fd=int(fd) if seat.rank == 0 else None,
            )  # fmt: skip
        else:
            store, _, _ = next(iter(rendezvous("env://", timeout=to_meet)))
        _meet(seat, store, to_meet)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if has_cuda else "gloo",
            store=PrefixStore("group", store), rank=seat.rank, world_size=seat.size,
            timeout=to_answer,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        in_time = f"start all of them within {to_meet.total_seconds():.0f} seconds ({_TO_MEET}), "
        raise UsageError(
            f"the {seat.size} processes did not meet at {host}:{port} ({first_line(error)})",
            hint="choose another MASTER_PORT (torchrun --master-port): a program uses this one"
            if "EADDRINUSE" in str(error)
            else in_time + "and give them an address that every machine can reach",
        ) from error
    return PrefixStore("convo", store)


def _seconds(name: str, default: int) -> timedelta:
    text = os.environ.get(name, str(default))
    if not (text.isdecimal() and 0 < int(text) < 1_000_000):
        raise UsageError(f"{name}={text}: not a number of seconds", hint=f"{name}=600")
    return timedelta(seconds=int(text))


def _meet(seat: Seat, store: Store, to_meet: timedelta) -> None:
    """Wait until every process has reached the store; unlike torch's wait, a signal ends this."""
    store.set(f"here/{seat.rank}", "")
    missing, deadline = list(range(seat.size)), time.monotonic() + to_meet.total_seconds()
    while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"rank {missing[0]} is missing")
        time.sleep(POLL)
