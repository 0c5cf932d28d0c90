"""An export that a fault or a signal ends leaves nothing: no folder, no part of one, no process."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from convo_cli.export import exporting
from convo_cli.export.formats import FORMATS
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.lock import locked
from convo_cli.storage.sealed import verify_directory
from tests.commands import start
from tests.full_disk import file_size_limit
from tests.umask import umask

RUN = "runs/tiny"
WHOLE = [
    pytest.param(name, marks=() if name == "huggingface" else pytest.mark.slow)
    for name, form in FORMATS.items()
    if form.about().merges
]
"""Formats of whole models."""


def require_packages(name):
    about = FORMATS[name].about()
    for package in (*about.writes_with, *about.runs_with):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def entries(work):
    return sorted(path.name for path in work.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="a limit of file sizes")
@pytest.mark.parametrize("name", WHOLE)
def test_a_disk_that_gets_full_while_the_weights_are_written(work, convo, name):
    require_packages(name)
    before = entries(work)
    with file_size_limit(40_000):
        result = convo("export", RUN, "out", "--format", name)
    assert result.code == 7, result
    # numpy says only that fewer bytes were written.
    reasons = [os.strerror(number) for number in (errno.EFBIG, errno.ENOSPC)]
    assert any(f"out: {reason}" in result.err for reason in reasons), result.err
    assert "Traceback" not in result.err
    assert entries(work) == before


@pytest.mark.parametrize("part", ["prove", "write_card"])
def test_a_disk_that_gets_full_in_the_receipt_or_the_card(work, convo, monkeypatch, part):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if part == "write_card":
        monkeypatch.setattr(exporting, "prove", lambda *_: None)
    monkeypatch.setattr(exporting, part, fail)
    before = entries(work)
    result = convo("export", RUN, "exports/tiny", "--force")
    assert result.code == 7
    assert f"exports/tiny: {os.strerror(errno.ENOSPC)}" in result.err
    assert entries(work) == before
    assert entries(work / "exports") == ["tiny"]
    verify_directory(work / "exports/tiny")


def test_space_is_asked_before_a_byte_is_written(work, convo, monkeypatch):
    usage = SimpleNamespace(total=2**30, used=2**30, free=2**16)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (usage.total, usage.used, usage.free))
    monkeypatch.setattr(exporting, "publish_directory", lambda *_: pytest.fail("written"))
    result = convo("export", RUN, "out")
    assert result.code == 7
    assert "out: needs 2." in result.err
    assert "only 0.1 MiB is free" in result.err


def test_space_is_asked_for_the_type_of_the_weights():
    model = SimpleNamespace(get_memory_footprint=lambda: 10**9)
    source: Any = SimpleNamespace(files=(), generator=SimpleNamespace(model=model), base=None)

    def wanted(dtype, *, is_merged=False):
        return exporting._num_bytes(source, dtype, is_merged=is_merged)

    assert wanted("fp32") > 10**9 > wanted("fp16") > 5 * 10**8 > wanted("q8_0") > 2.6 * 10**8
    assert wanted("fp32", is_merged=True) > 2 * 10**9


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root may write it all")
def test_a_folder_that_may_not_be_written_is_named(work, convo, monkeypatch):
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK and real(path, mode))
    result = convo("export", RUN, "new/out")
    assert result.code == 7
    assert "new/out: cannot be created, because you need write permission in" in result.err


def test_a_run_that_is_training_is_exported_from_a_published_checkpoint(work, convo):
    run = work / RUN
    aside = run / "checkpoints/.tmp-step-00000009-1"
    shutil.copytree(run / "checkpoints/step-00000006", aside)
    (aside / "model.safetensors").write_bytes(b"half")
    with locked(RunDirectory(run)):
        result = convo("export", RUN, "out", "--json", "-q")
    assert result.code == 0
    assert result.json["source"].endswith("step-00000006")
    assert aside.exists(), "it belongs to the run"


def test_a_folder_that_the_format_filled_with_a_link_is_not_published(work, convo, monkeypatch):
    real = exporting.prove

    def plant(name, folder, *arguments):
        receipt = real(name, folder, *arguments)
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to(work / "config.yaml")
        return receipt

    monkeypatch.setattr(exporting, "prove", plant)
    before = (work / "config.yaml").stat()
    result = convo("export", RUN, "out")
    assert result.code == 7
    assert "config.json: not a regular file, but a symbolic link" in result.err
    assert not (work / "out").exists()
    assert (work / "config.yaml").stat() == before


@pytest.mark.skipif(os.name != "posix", reason="umask")
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.about().merges])
def test_all_files_of_a_format_have_the_modes_of_the_umask(work, convo, name):
    require_packages(name)
    with umask(0o027):
        assert convo("export", RUN, "out", "--format", name, "-q").code == 0
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (work / "out").rglob("*")}
    assert modes == dict.fromkeys(modes, oct(0o640))
    assert not [path for path in (work / "out").rglob("*") if path.is_symlink()]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.about().merges])
def test_every_format_replaces_its_earlier_export_by_force(work, convo, name):
    require_packages(name)
    for _ in range(2):
        assert convo("export", RUN, "out", "--format", name, "-q", "--force").code == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["huggingface", "legacy"])
def test_a_signal_in_the_proof_leaves_neither_files_nor_processes(work, number, name):
    before = entries(work)
    process = start(work, "export", RUN, "out", "--format", name)
    try:
        for line in process.stderr:
            if b"to compare it with" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        err = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert entries(work) == before
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
