"""Sessions on the disk: saved, reopened, private, and lines of training data."""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from convo_cli.chat.saved_sessions import SessionFile, newest_for, recent_sessions, reopen
from convo_cli.chat.session import ChatSession
from convo_cli.chat.session_folder import sessions_folder, write_session
from convo_cli.config.schema import DataConfig, GenerationSettings
from convo_cli.data.reader import read_dialogues
from convo_cli.errors import ChangedError, ConvoError, DataError, DiskError, UsageError
from tests.commands import run_here
from tests.unit.chat.fakes import Scripted, ignore

SETTINGS = GenerationSettings(temperature=0.25)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A state directory that does not exist yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder()


@pytest.fixture
def talk(encoder):
    """A maker of sessions: the model gives these replies to messages 1, 2, …"""

    def make(*replies, system=None):
        model: Any = Scripted(encoder, *replies)
        session = ChatSession(model, SETTINGS, system=system)
        for number, _ in enumerate(replies, 1):
            session.say(f"message {number}", ignore)
        return session

    return make


def saved(session):
    file = SessionFile.new(session.contract)
    assert file.save(session) is None
    return file


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_saved_session_continues_where_it_ended(home, talk):
    session = talk("one", "", "three", system="Be kind.")
    session.judge(is_good=False)
    file = saved(session)
    assert file.path.parent == home / "convo/sessions"
    file.close()
    again, held, note = reopen(file.path, session.generator)
    assert again.exchanges == session.exchanges
    assert again.turns == session.turns
    assert again.num_characters == session.num_characters
    assert (again.settings, again.system, note) == (SETTINGS, "Be kind.", None)
    assert held.path == file.path
    again.say("message 4", ignore)
    assert held.save(again) is None
    held.close()
    assert reopen(file.path, session.generator).session.turns == again.turns


def test_a_session_with_any_text_is_saved_in_one_line(home, talk):
    hostile = 'a\u2028b\u2029c\x85d\r\ne\x0bf\x00g\ud800h\U0001f600 \\ " </script>\tend'
    session = talk(hostile)
    session.say(hostile, ignore)
    raw = saved(session).path.read_bytes()
    assert raw.endswith(b"\n")
    assert len(raw.decode("utf-8").splitlines()) == 1
    contents = [message["content"] for message in json.loads(raw)["messages"]]
    assert contents[2] == 'a\u2028b\u2029c\x85d\nefgh\U0001f600 \\ " </script>\tend'
    assert [turn.text for turn in session.turns] == contents


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_other_users_see_no_session_whatever_the_umask_is(home, talk, umask):
    before = os.umask(umask)
    try:
        file = saved(talk("one"))
        file.save(talk("one", "two"))
    finally:
        os.umask(before)
    assert mode_of(file.path) == 0o600
    lock = file.path.with_name(f"{file.path.name}.lock")
    assert mode_of(lock) == 0o600
    assert [mode_of(folder) for folder in (file.path.parent, home / "convo", home)] == [0o700] * 3
    assert len(json.loads(file.path.read_bytes())["messages"]) == 4


def test_the_folder_of_an_older_umask_becomes_private(home, talk):
    (home / "convo/sessions").mkdir(parents=True)
    (home / "convo/sessions").chmod(0o755)
    file = saved(talk("one"))
    assert mode_of(file.path.parent) == 0o700


def test_an_empty_session_is_not_saved_and_an_undone_one_is_removed(home, talk):
    session = talk(system="Be kind.")
    file = saved(session)
    assert not home.exists()
    session.say("one", ignore)
    file.save(session)
    assert file.path.exists()
    session.undo()
    assert file.save(session) is None
    assert not file.path.exists()


def test_a_session_is_open_in_one_chat_at_a_time(home, talk):
    session = talk("one")
    file = saved(session)
    with pytest.raises(UsageError, match="the session is open in another chat"):
        reopen(file.path, session.generator)
    assert file.save(session) is None
    file.close()
    other = reopen(file.path, session.generator).file
    with pytest.raises(UsageError, match="the session is open in another chat"):
        reopen(file.path, session.generator)
    other.close()
    assert list(file.path.parent.iterdir()) == [file.path]


def test_the_newest_session_is_the_last_saved_one_of_the_same_contract(home, talk, make_encoder):
    session, other = talk("one"), ChatSession(Scripted(make_encoder("chatml")), SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there is no saved session with this model"):
        newest_for(session.contract)
    first, second = saved(session), saved(session)
    os.utime(first.path, ns=(2**40, 2**40))
    os.utime(second.path, ns=(2**41, 2**41))
    assert newest_for(session.contract) == second.path
    first.save(session)
    assert recent_sessions(session.contract) == [first.path, second.path]
    assert recent_sessions(other.contract) == []


def test_another_contract_is_refused_and_both_are_named(home, talk, make_encoder):
    file = saved(talk("one"))
    file.close()
    other: Any = Scripted(make_encoder("chatml"))
    with pytest.raises(ChangedError) as caught:
        reopen(file.path, other)
    ours = ChatSession(other, SETTINGS).contract
    theirs = talk().contract
    assert f"(contract {theirs[:12]})" in str(caught.value)
    assert f"(contract {ours[:12]})" in str(caught.value)
    assert str(file.path) in str(caught.value)


def test_another_model_of_the_same_contract_is_a_note(home, talk):
    session = talk("one")
    file = saved(session)
    file.close()
    session.generator.folder = Path("exports/other")
    assert reopen(file.path, session.generator).note == (
        "the session was saved with another model: a model without a folder"
    )


def test_a_file_elsewhere_is_copied_and_stays_as_it_is(home, talk, tmp_path):
    session = talk("one")
    path = tmp_path / "given.jsonl"
    write_session(path, session)
    assert mode_of(path) == 0o600
    before = path.read_bytes()
    again, file, _ = reopen(path, session.generator)
    again.say("two", ignore)
    file.save(again)
    assert path.read_bytes() == before
    assert file.path.parent == home / "convo/sessions"


GOOD = {"role": "user", "content": "Hello!"}


def damaged(line, **changes):
    whole = json.loads(line)
    return json.dumps({**whole, **changes}).encode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: b"", r"\$: Invalid JSON"),
        (lambda line: line[: len(line) // 2], r"\$: Invalid JSON"),
        (lambda line: line + line, "more than one line"),
        (lambda line: b"\xff" + line, r"\$: Invalid JSON"),
        (lambda line: b"[]", "valid dictionary|object"),
        (lambda line: b"[" * 100_000, r"\$: Invalid JSON"),
        (lambda line: b'["Hello!", "Hi!"]', "object"),
        (lambda line: json.dumps({"messages": [GOOD]}).encode(), r"\$.convo_session"),
        (lambda line: damaged(line, messages=[]), r"\$.messages"),
        (lambda line: damaged(line, messages=[{**GOOD, "content": ""}]), r"\[0\].content"),
        (lambda line: damaged(line, messages=[{**GOOD, "role": "tool"}]), r"\$.messages\[0\].role"),
        (lambda line: damaged(line, messages=[GOOD, {**GOOD, "role": "system"}]), r"\[1\]: un"),
        (lambda line: damaged(line, messages=[{**GOOD, "role": "assistant"}]), r"\[0\]: un"),
        (lambda line: damaged(line, messages=[{**GOOD, "train": 1}]), r"\$.messages\[0\].train"),
        (lambda line: damaged(line, other=1), r"\$.other"),
        (lambda line: line.replace(b'"version": 1', b'"version": 2'), r"\$.convo_session.version"),
        (lambda line: line.replace(b'"temperature": 0.25', b'"temperature": 99'), "temperature"),
        (lambda line: line.replace(b'"contract": "', b'"contract": "Z'), "contract"),
        (lambda line: line.replace(b'"bad": []', b'"bad": ["x"]'), "bad"),
    ],
)  # fmt: skip
def test_a_damaged_session_is_refused_by_name_and_place(home, talk, tmp_path, damage, message):
    session = talk("one")
    path = tmp_path / "given.jsonl"
    write_session(path, session)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        reopen(path, session.generator)
    assert str(path) in str(caught.value)


def test_only_a_regular_file_of_bounded_size_is_read(home, talk, tmp_path, never_waits):
    session = talk("one")
    pipe, link, large = (tmp_path / name for name in ("pipe", "link", "large"))
    os.mkfifo(pipe)
    link.symlink_to(saved(session).path)
    with large.open("wb") as file:
        file.truncate(2**30)
    for path, kind in (
        (pipe, "a pipe"),
        (link, "link"),
        (large, "larger than"),
        (tmp_path, "director"),
    ):
        with pytest.raises(ConvoError, match=kind) as caught:
            reopen(path, session.generator)
        assert str(path) in str(caught.value)
    with pytest.raises(UsageError, match="no such file"):
        reopen(tmp_path / "none", session.generator)


def test_saved_sessions_are_training_data_without_a_warning(home, talk, tmp_path):
    sessions = [talk(*(f"reply {n} of {k}" for n in range(k % 4 + 1))) for k in range(12)]
    sessions[3].edit(2, "another text")
    sessions[4].judge(is_good=False)
    sessions[6].judge(is_good=True)
    sessions.append(talk("", "said", "", system="Be kind."))
    for session in sessions:
        session.generator.folder = Path("exports/a model with a long name in words that is text")
    paths = [saved(session).path for session in sessions]
    both = tmp_path / "all.jsonl"
    both.write_bytes(b"".join(path.read_bytes() for path in paths))
    without_target = paths.pop(4)
    assert run_here(tmp_path, "validate-data", without_target).code == 3
    for files in (paths, [both]):
        report = run_here(tmp_path, "validate-data", *files, "--json")
        assert report.code == 0
        assert [file["problem_groups"] for file in report.json["files"]] == [[]] * len(files)
        assert all(file["unread_keys"] == {} for file in report.json["files"])
    found = read_dialogues([str(both)], DataConfig(train=(str(both),)))
    read = {(one.line, turn.text) for one in found for turn in one.turns if turn.is_trained}
    assert {(4, "another text"), (7, "reply 2 of 6"), (13, "said")} <= read
    assert not {(4, "reply 0 of 3"), (5, "reply 0 of 4"), (7, "reply 0 of 6")} & read


# A home that cannot hold sessions


def warnings_of(session):
    """Save three times in a new file, and return the warnings."""
    file = SessionFile.new(session.contract)
    return [file.save(session) for _ in range(3)]


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_home_that_is_a_file_is_one_warning(home, talk):
    home.write_text("")
    first, *others = warnings_of(talk("one"))
    assert first == f"the session is not saved: {home}/convo/sessions: Not a directory"
    assert others == [None, None]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_is_one_warning(home, talk):
    home.mkdir(mode=0o500)
    first, *others = warnings_of(talk("one"))
    assert first == f"the session is not saved: {home}/convo/sessions: Permission denied"
    assert others == [None, None]


def test_a_full_disk_is_one_warning_and_keeps_what_was_saved(home, talk, monkeypatch):
    session = talk("one")
    file = saved(session)
    before = file.path.read_bytes()
    session.say("two", ignore)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        warnings = [file.save(session), file.save(session)]
    assert warnings == [
        f"the session is not saved: {file.path}: No space left on device", None
    ]  # fmt: skip
    assert file.path.read_bytes() == before
    assert file.save(session) is None
    assert len(json.loads(file.path.read_bytes())["messages"]) == 4


def test_a_file_system_without_locks_is_one_warning(home, talk, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    first, *others = warnings_of(talk("one"))
    assert "No locks available" in first
    assert others == [None, None]


@pytest.mark.parametrize("answer", [RuntimeError("no home"), "~/.local/state/convo"])
def test_without_any_home_there_is_one_warning(talk, monkeypatch, answer):
    monkeypatch.setattr("platformdirs.user_state_dir", Mock(side_effect=[answer] * 9))
    session = talk("one")
    assert SessionFile.new(session.contract).path is None
    assert warnings_of(session) == [
        "the session is not saved: there is no home directory with an absolute path", None, None
    ]  # fmt: skip
    assert recent_sessions(session.contract) == []


def test_a_relative_state_directory_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "relative/state")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with suppress(DiskError):  # older platformdirs
        assert sessions_folder() == tmp_path / ".local/state/convo/sessions"


def test_without_the_variable_home_the_system_names_it(talk, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    assert sessions_folder().is_absolute()


def test_a_folder_that_others_can_change_is_refused(home, talk, tmp_path):
    (home / "convo").mkdir(parents=True)
    (home / "convo").chmod(0o777)
    first, *_ = warnings_of(talk("one"))
    assert "other users may rename it" in first
    (home / "convo").chmod(0o700)
    (home / "convo/sessions").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (home / "convo/sessions").symlink_to(tmp_path / "elsewhere")
    first, *_ = warnings_of(talk("one"))
    assert "it is a symbolic link" in first
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_a_killed_save_left_is_removed_when_the_session_is_reopened(home, talk):
    file = saved(talk("one"))
    file.close()
    left = [file.path.with_name(f".tmp-{file.path.name}-{number}") for number in (1, 99999)]
    other = file.path.with_name(f".tmp-x{file.path.name}-1")  # of a save of another chat
    for path in (*left, other):
        path.write_text("{")
    session, held, _ = reopen(file.path, talk().generator)
    assert len(session.exchanges) == 1
    assert [path.exists() for path in (*left, other)] == [False, False, True]
    held.close()


def test_each_failure_after_a_success_is_a_warning(home, talk):
    session = talk("one")
    file = saved(session)
    folder = file.path.parent
    for _ in range(2):
        folder.chmod(0o777)
        assert "other users may write to it" in (file.save(session) or "")
        assert file.save(session) is None
        assert "other users may write to it" in (file.save(session, warns_again=True) or "")
        folder.chmod(0o700)
        assert file.save(session) is None
    file.close()
