"""`convo import`: what it writes and shows, and the sources and arguments that it refuses."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
import zipfile
from contextlib import suppress

import pytest

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.validate import validate_files
from convo_cli.errors import ConvoError
from convo_cli.importers.importing import ImportOptions, import_source
from tests.commands import run_here, run_process, start

CHAT = """\
02/01/24, 09:59 - Messages and calls are end-to-end encrypted. No one outside this chat can read.
02/01/24, 10:00 - Ben: Are you coming?
02/01/24, 10:01 - Ada: Yes
02/01/24, 10:01 - Ada: In five minutes,
with Cleo
02/01/24, 10:02 - Ben: <Media omitted>
03/01/24, 18:00 - Ada: Hello?
03/01/24, 18:01 - Ben: Call +49 170 1234567 or write to ben@example.org
03/01/24, 18:02 - Ada: I will\u200b
15/01/24, 18:02 - Ben: Anyone?
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "chat.txt").write_text(CHAT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def convo(folder):
    return lambda *arguments: run_here(folder, "import", *arguments)


def dialogues(path):
    return [json.loads(line)["messages"] for line in path.read_text("utf-8").splitlines()]


def test_a_chat_becomes_dialogues_that_can_be_trained_on(convo, folder):
    result = convo("chat.txt", "--assistant", "ada", "-o", "data.jsonl")
    assert (result.code, result.err) == (0, "")
    assert dialogues(folder / "data.jsonl") == [
        [
            {"role": "user", "content": "Are you coming?"},
            {"role": "assistant", "content": "Yes\nIn five minutes,\nwith Cleo"},
        ],
        [
            {"role": "user", "content": "Call +49 170 1234567 or write to ben@example.org"},
            {"role": "assistant", "content": "I will"},
        ],
    ]
    for words in (
        "dialogues  ", "messages of Ada", "2024-01-02 to 2024-01-15, cut at pauses of 6h", "media",
        "system lines", "messages of the assistant before", "dialogues without a reply",
        "characters removed", "continuation lines", "e-mail addresses: 1, phone numbers: 1",
        "next: convo validate-data data.jsonl", "convo init-config --train data.jsonl",
    ):  # fmt: skip
        assert words in result.out, words
    report = validate_files([str(folder / "data.jsonl")], DataConfig(train=("x",)))
    assert (report.is_trainable, report.num_warnings) == (True, 0)


def test_only_this_user_can_read_the_output_and_it_names_neither_people_nor_paths(convo, folder):
    before = os.umask(0)
    try:
        assert convo("chat.txt", "--assistant", "Ada", "-o", "data.jsonl").code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "data.jsonl").stat().st_mode) == 0o600
    text = (folder / "data.jsonl").read_text("utf-8")
    assert not {"Ada", "Ben", "chat.txt", str(folder)} & set(text.replace('"', " ").split())


def test_names_can_stay_and_a_pause_can_be_chosen(convo, folder):
    options = ("--assistant", "Ada", "--keep-names", "--pause", "2w", "-o", "data.jsonl")
    assert convo("chat.txt", *options).code == 0
    (dialogue,) = dialogues(folder / "data.jsonl")
    assert dialogue[0]["content"] == "Ben: Are you coming?"
    assert [turn["role"] for turn in dialogue] == ["user", "assistant"] * 2 + ["user"]


def test_as_json_and_quiet(convo):
    record = convo("chat.txt", "--assistant", "Ada", "-o", "a.jsonl", "--json").json
    assert record["command"] == "import"
    assert (record["num_dialogues"], record["format"], record["out"]) == (2, "whatsapp", "a.jsonl")
    assert record["speakers"][0] == {"name": "Ada", "role": "assistant", "num_messages": 4}
    assert record["dropped"]["media"] == 1
    quiet = convo("chat.txt", "--assistant", "Ada", "-o", "b.jsonl", "--quiet")
    assert quiet.out.startswith("warning: ")
    assert "next" not in quiet.out


TWO = "02.01.24, 10:00 - Ben: Hi\n02.01.24, 10:01 - Ada: Yes\n"
REFUSED = {
    "no assistant": (TWO, (), 2, "Ben (1), Ada (1)"),
    "an unknown assistant": (TWO, ("--assistant", "Adda"), 2, "did you mean --assistant Ada?"),
    "a first name": (TWO.replace("Ada", "Ada M"), ("--assistant", "ada"), 2, "mean --assistant 'A"),
    "all assistants": (TWO, ("--assistant", "Ada", "--assistant", "Ben"), 2, "names all people"),
    "one speaker": (TWO.replace("Ben", "Ada"), ("--assistant", "Ada"), 3, "only one person"),
    "only media": (
        TWO.replace("Hi", "<Media omitted>").replace("Yes", "<Media omitted>"),
        ("--assistant", "Ada"),
        3,
        "media: 2",
    ),
    "mixed dates": ("13/01/24, 1:00 - Ben: a\n01/13/24, 1:00 - Ada: b\n", (), 3, "no order of day"),
    "no reply": (TWO, ("--assistant", "Ben"), 3, "no dialogue is left"),
    "empty": ("", (), 3, "the file is empty"),
    "white space": (" \n\n", (), 3, "the file is empty"),
    "prose": ("It was a dark night.\nIt rained.\n", (), 2, "whatsapp: a WhatsApp chat"),
    "a web page": ("<!doctype html><html></html>", (), 2, "an HTML page"),
    "dialogues": ('["Hi", "Hello!"]\n', (), 2, "convo validate-data source"),
    "a wrong format": (TWO, ("--format", "whatsap"), 2, "one of "),
    "another format": (TWO, ("--format", "telegram"), 3, "not JSON"),
    "a pause without a unit": (TWO, ("--pause", "6"), 2, "such as 6h"),
    "no pause": (TWO, ("--pause", "0h"), 2, "such as 6h"),
    "a binary file": (b"\x89PNG\r\n\x1a\n\0\0\xff\xfe", (), 2, "not recognised"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_has_one_message_and_writes_nothing(convo, folder, case):
    content, options, code, words = REFUSED[case]
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "source").write_bytes(data)
    before = sorted(folder.iterdir())
    result = convo("source", *options, "-o", "out.jsonl")
    assert (result.code, result.out) == (code, "")
    assert words in result.err
    assert result.err.count("error: ") == 1
    assert sorted(folder.iterdir()) == before


def test_outputs_that_are_refused(convo, folder):
    (folder / "old.jsonl").write_text("old")
    (folder / "link.jsonl").symlink_to("old.jsonl")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    ada = ("--assistant", "Ada")
    for out in ("old.jsonl", "link.jsonl", "folder", "pipe", "chat.txt", "no/where.jsonl", "-"):
        assert convo("chat.txt", *ada, "-o", out).code == 2, out
    assert convo("chat.txt", *ada, "-o", "link.jsonl", "--force").code == 2
    assert convo("chat.txt", *ada).code == 2
    assert (folder / "old.jsonl").read_text() == "old"
    assert convo("chat.txt", *ada, "-o", "old.jsonl", "--force").code == 0
    for source in ("nope.txt", "pipe", "-"):
        assert convo(source, *ada, "-o", "new.jsonl").code == 2


ADA = ("--assistant", "Ada", "-o", "out.jsonl")


def test_the_zip_of_a_phone_is_read_without_unpacking_it(convo, folder):
    with zipfile.ZipFile(folder / "chat.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("WhatsApp Chat with Ben.txt", CHAT)
        archive.writestr("IMG-1.jpg", os.urandom(1000))
    assert convo("chat.zip", *ADA).code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["chat.txt", "chat.zip", "out.jsonl"]


def _member(archive, name, *, attributes=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = attributes << 16
    archive.writestr(info, CHAT)


def _overlapping(path):
    """Two entries of the directory for one member."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_chat.txt", CHAT)
        twin = zipfile.ZipInfo("b.txt")
        first = archive.infolist()[0]
        for name in ("CRC", "compress_size", "file_size", "header_offset"):
            setattr(twin, name, getattr(first, name))
        archive.filelist.append(twin)


def _bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_chat.txt", TWO + ("x" * 1000 + "\n") * 2**15)


def _encrypted(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_chat.txt", CHAT)
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)


def _many(path):
    """A directory of 200,000 members that do not exist."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_chat.txt", CHAT)
    data = path.read_bytes()
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    directory = data[at:end] * 200_000
    tail = bytearray(data[end:])
    tail[12:16] = len(directory).to_bytes(4, "little")
    path.write_bytes(data[:at] + directory + bytes(tail))


def _named(name, attributes=0):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            _member(archive, name, attributes=attributes)

    return write


ATTACKS = {
    "a bomb": (_bomb, "more than 200 times"),
    "overlapping members": (_overlapping, "overlap"),
    "an encrypted member": (_encrypted, "encrypted"),
    "a name that leads out": (_named("../../.bashrc"), "leads out"),
    "an absolute name": (_named("/etc/passwd"), "leads out"),
    "a link": (_named("_chat.txt", stat.S_IFLNK | 0o777), "a link"),
    "very many members": (_many, "its directory has more than"),
    "a truncated archive": (lambda path: path.write_bytes(b"PK\3\4" + b"\0" * 50), "damaged"),
    "an empty archive": (lambda path: zipfile.ZipFile(path, "w").close(), "no files"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_archive_is_refused(convo, folder, attack):
    write, words = ATTACKS[attack]
    write(folder / "chat.zip")
    before = sorted(folder.iterdir())
    result = convo("chat.zip", *ADA)
    assert (result.code, result.out) == (3, "")
    assert words in result.err
    assert sorted(folder.iterdir()) == before


def test_links_in_a_folder_are_not_followed(convo, folder):
    export = folder / "export"
    export.mkdir()
    (export / "2024-01-02.json").symlink_to(folder / "chat.txt")
    (export / "up").symlink_to(folder)
    assert "there are no files in it" in convo("export", *ADA).err


def test_a_line_without_a_colon_is_refused_in_bounded_memory(folder):
    with (folder / "long.txt").open("w") as file:
        file.write(TWO)
        for _ in range(64):
            file.write("x" * 2**20)
    result = run_process(folder, "import", "long.txt", *ADA)
    assert result.code == 3
    assert "line 3: the line is longer than 1,048,576 characters" in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_ctrl_c_leaves_nothing(folder):
    with (folder / "long.txt").open("w") as file:
        for _ in range(100_000):
            file.write(TWO)
    process = start(folder, "import", "long.txt", *ADA)
    deadline = time.monotonic() + 60
    while not list(folder.glob(".tmp-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert sorted(path.name for path in folder.iterdir()) == ["chat.txt", "long.txt"]


def test_a_damaged_archive_never_shows_a_traceback(tmp_path):
    path = tmp_path / "chat.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_chat.txt", TWO)
    whole = path.read_bytes()
    for place in range(4, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(ConvoError):
            import_source(path, lambda line: None, ImportOptions(("Ada",)))
