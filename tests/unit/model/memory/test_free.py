"""Free memory: the limits of cgroups of both versions, of the process and of the machine."""

from __future__ import annotations

import sys

import psutil
import pytest
import torch

from convo_cli.model.memory.free import Bound, cgroup_bounds, free_bytes, limit_bytes

CPU = torch.device("cpu")
MIB = 2**20
STAT = "anon 1000\nfile 5000\ninactive_anon 0\ninactive_file 3000\nactive_file 1000\n"
OF_VERSION_1 = "hierarchical_memory_limit 99\ntotal_inactive_file 3000\ntotal_active_file 1000\n"


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n", encoding="ascii")


def member(tmp_path, text):
    file = tmp_path / "cgroup"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_limits_of_a_cgroup_and_of_its_parents_count(tmp_path):
    top = tmp_path / "fs"
    write(top / "user.slice", memory__max=9000 * MIB, memory__current=7000 * MIB)
    write(top / "user.slice" / "job", memory__max="max", memory__current=100, memory__stat=STAT)
    write(top, memory__stat=STAT)  # the root of the machine has no limit
    found = cgroup_bounds(member(tmp_path, "0::/user.slice/job\n"), top)
    assert found == [Bound(9000 * MIB, 7000 * MIB)]


def test_the_page_cache_of_a_cgroup_is_free(tmp_path):
    write(tmp_path / "a", memory__max=8192, memory__current=6000, memory__stat=STAT)
    assert cgroup_bounds(member(tmp_path, "0::/a\n"), tmp_path) == [Bound(8192, 2000)]


def test_the_lower_limit_at_which_the_kernel_slows_a_process_down_counts(tmp_path):
    write(tmp_path / "a", memory__max=8192, memory__high=4096, memory__current=1000)
    assert cgroup_bounds(member(tmp_path, "0::/a\n"), tmp_path) == [
        Bound(8192, 1000),
        Bound(4096, 1000),
    ]


@pytest.mark.parametrize("path", ["/docker/4f1a", "/"])
def test_a_container_of_version_1_has_its_limit_at_the_top(tmp_path, path):
    """The path in the membership is that of the host, and does not exist in the container."""
    lines = f"12:pids:{path}\n4:memory,hugetlb:{path}\n1:name=systemd:{path}\n0::/\n"
    files = {"memory__limit_in_bytes": 2048 * MIB, "memory__usage_in_bytes": 5000}
    write(tmp_path / "fs" / "memory", **files, memory__stat=OF_VERSION_1)
    found = cgroup_bounds(member(tmp_path, lines), tmp_path / "fs")
    assert found == [Bound(2048 * MIB, 1000)]


def test_a_cgroup_of_version_1_without_a_limit_is_no_limit(tmp_path):
    files = {"memory__limit_in_bytes": 9223372036854771712, "memory__usage_in_bytes": 5000}
    write(tmp_path / "memory" / "job", **files)
    assert cgroup_bounds(member(tmp_path, "4:memory:/job\n"), tmp_path) == []


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::\n", "::::\n", "0::/../../etc\n"])
def test_a_membership_that_says_nothing_is_no_limit(tmp_path, text):
    assert cgroup_bounds(member(tmp_path, text), tmp_path / "fs") == []
    assert cgroup_bounds(tmp_path / "missing", tmp_path) == []


def test_a_machine_has_no_more_free_memory_than_it_reports():
    free = free_bytes(CPU)
    assert 0 < free <= psutil.virtual_memory().total
    assert free < limit_bytes(CPU)


@pytest.mark.skipif(sys.platform != "linux", reason="reads limits of Linux")
def test_a_limit_of_the_process_is_the_end_of_free_memory():
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + 300 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        free, most = free_bytes(CPU), limit_bytes(CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert 200 * MIB < free <= 300 * MIB
    assert most == limit
