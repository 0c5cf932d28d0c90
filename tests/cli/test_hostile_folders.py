"""Every hostile model folder is refused with a message, in bounded time and memory."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time

import pytest

from tests.cases import quick_only
from tests.commands import EXECUTABLE, environment, settings
from tests.hostile_folders import FOLDERS, HARMLESS, harmless

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
PRETRAINED = settings(
    "name=new", "model.scratch=null", "model.pretrained=model", "training.max_steps=1",
    "training.warmup_steps=0", "data.validation=[]",
)  # fmt: skip
OWN = settings("dialogue.template=turns")
CPU_SECONDS = 90
MEMORY_KIB = 1_500_000


def require_refused(result, name):
    assert result.code in ((0, 2, 3) if name in HARMLESS else (2,)), result
    assert "Traceback" not in result.err
    if result.code == 2:
        assert result.out == ""
        message = re.search(r"^error: (model[:/].+)\nhint: .+", result.err, re.M)
        assert message, result.err
        assert len(message[1]) < 500


def test_the_folder_that_the_attacks_change_works(convo, work):
    harmless(work / "model")
    assert convo("chat", "model", stdin=b"hi\n").code == 0
    assert convo("train", "config.yaml", "-q", *PRETRAINED, *OWN) == (0, "runs/new\n", "")


@pytest.mark.parametrize("name", quick_only(FOLDERS, *list(FOLDERS)[::3]))
def test_refusing_a_folder_takes_the_main_process_little_time_and_memory(convo, work, name):
    FOLDERS[name](work / "model")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    require_refused(convo("chat", "model", stdin=b"hi\n"), name)
    assert time.process_time() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000, "in KiB"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["chat", "model"], ["train", "config.yaml", "-q", *PRETRAINED, *OWN]]
)
@pytest.mark.parametrize("name", FOLDERS)
def test_the_whole_command_is_bounded(work, name, command):
    """CPU time is limited for each process, memory for the largest of them."""
    FOLDERS[name](work / "model")

    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))

    with (work / "out").open("wb") as out, (work / "err").open("wb") as err:
        process = subprocess.Popen(
            [EXECUTABLE, *command], cwd=work, env=environment(), stdin=subprocess.DEVNULL,
            stdout=out, stderr=err, preexec_fn=limit,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = (work / "err").read_text(errors="replace")
    assert process.returncode in (0, 2, 3), text
    assert "Traceback" not in text
    assert used.ru_maxrss < MEMORY_KIB


def test_a_foreign_run_directory_is_tried_like_any_folder(convo, work):
    """Its manifest proves nothing about its author."""
    from convo_cli.storage.atomic import publish_directory

    checkpoint = next((work / "runs/tiny/checkpoints").glob("step-*"))
    hostile = work / "hostile"
    FOLDERS["decoder_chain"](work / "model")

    def fill(aside):
        for file in checkpoint.iterdir():
            if file.name != "MANIFEST.json":
                shutil.copyfile(file, aside / file.name)
        shutil.copyfile(work / "model/tokenizer.json", aside / "tokenizer.json")

    publish_directory(hostile, fill)
    result = convo("chat", "hostile", stdin=b"hi\n")
    assert result.code == 2
    assert (
        "hostile: its tokenizer can decode one character of a token to 1,099,511,627,776"
        in result.err
    )


def test_a_run_with_its_own_template_holds_no_foreign_template(convo, work):
    harmless(work / "model")
    (work / "model/additional_chat_templates").mkdir()
    (work / "model/additional_chat_templates/tools.jinja").write_text("STRANGER")
    (work / "model/chat_template.jinja").write_text("STRANGER")
    assert convo("train", "config.yaml", "-q", *PRETRAINED, *OWN) == (0, "runs/new\n", "")
    assert convo("export", "runs/new", "exports/new", "-q").code == 0
    for folder in ("runs/new", "exports/new"):
        for file in (work / folder).rglob("*"):
            assert "additional_chat_templates" not in str(file)
            assert not file.is_file() or b"STRANGER" not in file.read_bytes(), file
