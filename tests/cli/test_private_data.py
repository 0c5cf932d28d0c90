"""Files derived from data are no more readable than the data, and other users cannot forge them."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from typing import Any

import pytest
import zstandard

from convo_cli.storage.sealed import file_sha256
from tests.commands import make_workplace, run_here, settings, start
from tests.sealed import seal_again
from tests.umask import umask

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes of POSIX")
needs_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root can be two users"
)
STRANGER = 65534
CACHE = "runs/.convo-cache"
FAST = settings("training.max_steps=2", "evaluation.every_steps=2")


@pytest.fixture(autouse=True)
def ordinary_umask():
    with umask(0o022):
        yield


@pytest.fixture
def place(tmp_path):
    tmp_path.chmod(0o755)
    return make_workplace(tmp_path)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def readable(folder):
    """Everything below a folder that others can read, by mode alone."""
    return [path for path in (folder, *folder.rglob("*")) if mode(path) & 0o077]


def convo(place, *arguments):
    result = run_here(place, *arguments, "-q")
    assert result.code == 0, result
    return result


# Modes


@pytest.mark.parametrize("private", ["train.jsonl", "valid.jsonl", "test.jsonl"])
def test_a_run_on_private_data_is_private(place, private):
    shutil.copyfile(place / "valid.jsonl", place / "test.jsonl")
    (place / private).chmod(0o600)
    convo(place, "train", "config.yaml", *FAST, *settings("data.test=test.jsonl"))
    assert (place / "runs/tiny/test.json").exists()
    assert readable(place / "runs/tiny") == readable(place / CACHE) == []
    assert mode(place / "runs") == 0o755, "output_dir is the user's own"
    convo(place, "resume", "runs/tiny", *settings("name=fork", "training.max_steps=3"))
    convo(place, "resume", "runs/tiny", *settings("training.max_steps=3"))
    assert readable(place / "runs/fork") == readable(place / "runs/tiny") == []
    assert (place / "runs/tiny/samples.jsonl").read_text()


@pytest.mark.parametrize(
    ("mask", "bits", "expected"), [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0, 0o640, 0o770)]
)
def test_a_run_on_readable_data_is_as_readable_as_the_umask_and_the_data_allow(
    place, mask, bits, expected
):
    for name in ("train.jsonl", "valid.jsonl"):
        (place / name).chmod(bits)
    os.umask(mask)
    convo(place, "train", "config.yaml", *FAST)
    assert mode(place / "runs/tiny") == mode(place / "runs/tiny/checkpoints") == expected
    assert mode(place / "runs/tiny/samples.jsonl") == expected & 0o666
    assert readable(place / CACHE) == []
    result = run_here(place, "train", "config.yaml", *FAST, *settings("name=again"))
    assert "encoded earlier; reusing its tokens" in result.err, "convo trusts its own cache"
    assert "not used" not in result.err


def test_data_in_a_private_directory_is_private(place):
    (place / "mine").mkdir(mode=0o700)
    for name in ("train.jsonl", "valid.jsonl"):
        (place / name).rename(place / "mine" / name)
    data = settings("data.train=mine/train.jsonl", "data.validation=mine/valid.jsonl")
    convo(place, "train", "config.yaml", *FAST, *data)
    assert mode(place / "runs/tiny") == 0o700
    convo(place, "train", "config.yaml", *FAST, *data, *settings("output_dir=mine/runs"))
    assert mode(place / "mine/runs/tiny") == 0o755, "the private directory is around it as well"


def test_a_resume_with_data_that_became_private_closes_the_run(place):
    convo(place, "train", "config.yaml", *FAST)
    assert mode(place / "runs/tiny") == 0o755
    (place / "train.jsonl").chmod(0o600)
    convo(place, "resume", "runs/tiny", *settings("training.max_steps=3"))
    assert mode(place / "runs/tiny") == 0o700
    assert readable(place / "runs/tiny/checkpoints/step-00000003") == []


def test_a_fork_of_a_private_run_is_private(place):
    convo(place, "train", "config.yaml", *FAST)
    (place / "runs/tiny").chmod(0o700)
    convo(place, "resume", "runs/tiny", *settings("name=fork", "training.max_steps=3"))
    assert readable(place / "runs/fork") == []


def test_a_fork_of_a_run_that_is_kept_from_changes_can_be_written(place):
    convo(place, "train", "config.yaml", *FAST)
    (place / "runs/tiny").chmod(0o555)
    convo(place, "resume", "runs/tiny", *settings("name=fork", "training.max_steps=3"))
    assert {mode(path) for path in (place / "runs/fork").rglob("*")} == {0o644, 0o755}
    assert mode(place / "runs/fork") == 0o755


def test_an_export_of_a_private_run_is_public_with_a_warning(place):
    (place / "train.jsonl").chmod(0o600)
    convo(place, "train", "config.yaml", *FAST)
    result = run_here(place, "export", "runs/tiny", "export")
    assert mode(place / "export") == 0o755
    assert (
        "export: other users can read it, although they cannot read runs/tiny; `chmod -R go= "
        "export`" in result.err
    )


PACKERS: dict[str, Any] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize(
    ("bits", "expected"), [(0o600, 0o600), (0o640, 0o640), (0o644, 0o644), (0o444, 0o644)]
)
def test_a_fixed_copy_is_not_more_readable_than_the_data(place, suffix, bits, expected):
    source = place / f"data.jsonl{suffix}"
    source.write_bytes(PACKERS[suffix]((place / "train.jsonl").read_bytes()))
    source.chmod(bits)
    convo(place, "validate-data", source.name, "--fix", "out.jsonl")
    assert mode(place / "out.jsonl") == expected
    convo(place, "validate-data", "valid.jsonl", source.name, "--fix", f"both.jsonl{suffix}")
    assert mode(place / f"both.jsonl{suffix}") == expected


def test_a_fixed_copy_keeps_the_privacy_of_the_file_that_it_replaces(place):
    (place / "out.jsonl").write_text("")
    (place / "out.jsonl").chmod(0o600)
    convo(place, "validate-data", "train.jsonl", "--fix", "out.jsonl", "--force")
    assert mode(place / "out.jsonl") == 0o600


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("convo < private", 0o600),
        ("convo < train.jsonl", 0o644),
        ("cat train.jsonl | convo", 0o600),
    ],
)
def test_a_fixed_copy_of_stdin_is_as_private_as_the_file_and_that_of_a_pipe_is_private(
    place, command, expected
):
    shutil.copyfile(place / "train.jsonl", place / "private")
    (place / "private").chmod(0o600)
    arguments = "validate-data - --fix out.jsonl -q"
    shell = command.replace("convo", f'"{sys.executable}" -m convo_cli {arguments}')
    subprocess.run(["sh", "-c", shell], cwd=place, check=True, capture_output=True)
    assert mode(place / "out.jsonl") == expected


# Forged caches


def weights(run):
    return file_sha256(run / "checkpoints/step-00000002/model.safetensors")


def forge(cache):
    """Give every token of the training data the id 5, and seal it again."""
    for folder in cache.glob("tokens-*[0-9a-f]"):
        (folder / "input_ids").write_bytes(
            (5).to_bytes(4, "little") * ((folder / "input_ids").stat().st_size // 4)
        )
        seal_again(folder)


def give_away(folder):
    for path in (folder, *folder.rglob("*")):
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


@needs_root
def test_tokens_in_a_cache_that_another_user_replaced_are_not_trained_on(place):
    (place / "runs").mkdir()
    (place / "runs").chmod(0o777)
    convo(place, "train", "config.yaml", *FAST)
    (place / CACHE).rename(place / "runs/theirs")
    shutil.copytree(place / "runs/theirs", place / CACHE)
    forge(place / CACHE)
    give_away(place / CACHE)
    result = run_here(place, "train", "config.yaml", *FAST, *settings("name=second"))
    assert result.code == 0
    assert (
        result.err.count(f"{CACHE}: not used, because it belongs to another user (uid {STRANGER})")
        == 1
    )
    assert "using its tokens" not in result.err
    assert weights(place / "runs/second") == weights(place / "runs/tiny")
    result = run_here(place, "resume", "runs/second", *settings("training.max_steps=3"))
    assert (result.code, "not used" in result.err, "using its tokens" in result.err) == (
        0,
        True,
        False,
    )
    result = run_here(place, "validate-data", "--config", "config.yaml")
    assert (result.code, "not used" in result.err) == (0, True)


@needs_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_another_user_can_neither_read_nor_forge_a_cache_in_a_shared_folder(place):
    (place / "runs").mkdir()
    (place / "runs").chmod(0o777)
    convo(place, "train", "config.yaml", *FAST)
    (folder,) = [
        one for one in (place / CACHE).glob("tokens-*[0-9a-f]") if "validation" not in one.name
    ][:1]
    for attack in (
        f"cat {folder}/input_ids",
        f"echo forged > {folder}/input_ids",
        f"ls {place / CACHE}",
        f"chmod 777 {place / CACHE}",
    ):
        command = [
            "setpriv",
            f"--reuid={STRANGER}",
            f"--regid={STRANGER}",
            "--clear-groups",
            "sh",
            "-c",
            attack,
        ]
        assert subprocess.run(command, check=False, capture_output=True).returncode != 0, attack
    result = run_here(place, "train", "config.yaml", *FAST, *settings("name=second"))
    assert "using its tokens" in result.err


def test_a_cache_that_others_may_write_to_is_not_trained_on(place):
    convo(place, "train", "config.yaml", *FAST)
    forge(place / CACHE)
    (place / CACHE).chmod(0o777)
    result = run_here(place, "train", "config.yaml", *FAST, *settings("name=second"))
    assert f"{CACHE}: not used, because other users may write to it (mode 0777)" in result.err
    assert weights(place / "runs/second") == weights(place / "runs/tiny")


# A signal while a chunk is encoded or a tokenizer is trained


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("phase", ["tokenizer", "tokens"])
def test_a_signal_does_not_wait_for_native_code_in_a_thread(place, phase, number, code):
    """Dialogues of 400 kB: encoding one takes seconds, and so does training a tokenizer on all."""
    chosen = random.Random(0)
    texts = [
        " ".join("".join(chosen.choices("aeionrst", k=5)) for _ in range(70_000))
        for _ in range(80 if phase == "tokenizer" else 12)
    ]
    (place / "large.jsonl").write_text(
        "\n".join(json.dumps(["What is said?", text]) for text in texts)
    )
    changes = settings(
        "data.validation=[]", "data.train=large.jsonl", "dialogue.long_turns=split", "name=large"
    )
    process = start(place, "train", "config.yaml", *FAST, *changes)
    try:
        until = time.monotonic() + 120
        while not list((place / CACHE).glob(f".tmp-{phase}-*")):
            time.sleep(0.01)
            assert time.monotonic() < until
            assert process.poll() is None, process.communicate()
        time.sleep(1)
        process.send_signal(number)
        sent = time.monotonic()
        _, err = process.communicate(timeout=60)
        seconds = time.monotonic() - sent
    finally:
        process.kill()
    assert process.returncode == code, err
    assert b"stopped before the first step; no run was created" in err
    assert b"Traceback" not in err
    assert seconds < 5, "0.3 s on an idle machine; a chunk takes longer"
    assert list((place / CACHE).glob(".tmp-*")) == []
    assert not (place / "runs/large").exists()
