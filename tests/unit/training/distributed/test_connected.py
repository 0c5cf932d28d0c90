"""A lost connection is the error of the lost process; any other error stays what it is."""

from __future__ import annotations

import threading

import pytest
import torch.distributed as dist

from convo_cli.errors import DiskError, RankLostError
from convo_cli.training.distributed import process_group
from convo_cli.training.distributed.process_group import ProcessGroup


@pytest.fixture
def group(monkeypatch):
    """Rank 0 of two processes, of which the other one never answers."""
    monkeypatch.setattr(process_group, "_TO_CONFIRM", 0.0)
    group = object.__new__(ProcessGroup)
    group.rank, group.size, group._hosts, group._store = 0, 2, [], dist.HashStore()
    return group


@pytest.mark.parametrize(
    "error",
    [RuntimeError("[/a/gloo/transport/tcp/pair.cc:5] Closed"), dist.DistBackendError("NCCL")],
)
def test_a_lost_connection_names_the_process(group, error):
    with pytest.raises(RankLostError, match="rank 1 ended or did not answer"), group.connected():
        raise error


def test_a_failure_to_end_the_group_fails_no_run(group, monkeypatch):
    def fail():
        raise dist.DistBackendError("NCCL")

    monkeypatch.setattr(dist, "destroy_process_group", fail)
    group._store.set("left/1", "")
    group.leave()


@pytest.fixture
def hung(group, monkeypatch):
    """Rank 1, whose rank 0 hangs."""

    class Hung:
        def __getattr__(self, name):
            return lambda *arguments: threading.Event().wait()

    monkeypatch.setattr(process_group, "_TO_ASK", 0.05)
    group.rank, group._store = 1, Hung()
    return group


def test_a_store_that_never_answers_is_that_of_rank_0(hung):
    with pytest.raises(RankLostError, match="rank 0 ended or did not answer"), hung.connected():
        raise dist.DistBackendError("timed out")


def test_an_error_does_not_wait_for_a_store_that_never_answers(hung):
    hung.publish(DiskError("the disk is full"))


def test_another_error_stays(group):
    with pytest.raises(RuntimeError, match="a bug"), group.connected():
        raise RuntimeError("a bug")
