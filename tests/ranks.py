"""Several processes that run a function together, for tests of a world of more than one."""

from __future__ import annotations

import json
import multiprocessing
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from convo_cli.errors import ConvoError
from convo_cli.world import World


class GroupWorld(World):
    """The processes of the default group; errors of rank 0 are raised by all."""

    def __init__(self):
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather(self, value):
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, json.dumps(value))
        return [json.loads(one) for one in values]

    def sum(self, values):
        return [sum(column) for column in zip(*self.gather(list(values)), strict=True)]

    def any(self, flag):
        return any(self.gather(flag))

    def first_alone(self, work):
        result, error = None, None
        if self.is_first:
            try:
                result = work()
            except (ConvoError, OSError) as caught:
                error = caught
        message = self.gather(None if error is None else str(error))[0]
        if error is not None:
            raise error
        if message is not None:
            raise RuntimeError(message)
        return result


def run_ranks(size: int, folder: Any, call: Callable[[World], Any]) -> list[Any]:
    """Return what ``call`` returns in each process; the first error fails the test.

    The processes are forked, so that they need not import torch again.
    """
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def rank_main(rank):
        torch.set_num_threads(1)
        error = "ended early"
        result = None
        try:
            store = dist.FileStore(str(folder / f"store-{size}"), size)
            dist.init_process_group("gloo", rank=rank, world_size=size, store=store)
            result, error = call(GroupWorld()), None
            dist.barrier()
            dist.destroy_process_group()
        finally:
            queue.put((rank, result, error and traceback.format_exc()))

    processes = [context.Process(target=rank_main, args=(rank,)) for rank in range(size)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        for process in processes:
            process.start()
    results: dict[int, Any] = {}
    try:
        for _ in processes:
            rank, result, error = queue.get()
            assert error is None, f"rank {rank}: {error}"
            results[rank] = result
    finally:
        for process in processes:
            if len(results) < size:
                process.kill()
            process.join()
    (folder / f"store-{size}").unlink(missing_ok=True)
    return [results[rank] for rank in range(size)]
