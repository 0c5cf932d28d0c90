"""A cached folder is whole, created once, and created again if its content changed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from convo_cli.errors import ChangedError, CheckpointError, DataError
from convo_cli.events import Notice
from convo_cli.prepare.cache import NAME, Cache
from tests.umask import umask


class Maker:
    """Fills a folder with one file, and counts how often it was asked to."""

    def __init__(self, content="text"):
        self.content = content
        self.times = 0

    def __call__(self, folder):
        self.times += 1
        (folder / "data").write_text(self.content)


def read(folder):
    return (folder / "data").read_text()


@pytest.fixture
def cache(tmp_path, ignore):
    return Cache(tmp_path, ignore)


def folders(tmp_path):
    return [path for path in (tmp_path / NAME).iterdir() if path.is_dir()]


def test_the_same_key_is_made_once(cache):
    make = Maker()
    assert cache.get("tokens", {"a": 1, "b": 2}, make, read) == ("text", False)
    assert cache.get("tokens", {"b": 2, "a": 1}, make, read) == ("text", True)
    assert make.times == 1


@pytest.mark.parametrize(
    ("kind", "key"), [("tokens", {"a": 2}), ("tokens", {"b": 1}), ("tokenizer", {"a": 1})]
)
def test_another_key_or_kind_is_made_anew(cache, kind, key):
    cache.get("tokens", {"a": 1}, Maker("old"), read)
    assert cache.get(kind, key, Maker("new"), read) == ("new", False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_text("texT"),
        lambda file: file.write_text(""),
        lambda file: file.unlink(),
        lambda file: (file.parent / "more").write_text("x"),
        lambda file: (file.parent / "MANIFEST.json").unlink(),
        lambda file: (file.parent / "MANIFEST.json").write_text("{"),
    ],
)
def test_a_damaged_folder_is_made_again_and_that_is_told(tmp_path, damage):
    events = []
    cache = Cache(tmp_path, events.append)
    cache.get("tokens", {}, Maker(), read)
    damage(folders(tmp_path)[0] / "data")
    assert cache.get("tokens", {}, Maker(), read) == ("text", False)
    assert [event.is_warning for event in events if isinstance(event, Notice)] == [True]
    assert cache.get("tokens", {}, Maker(), read) == ("text", True)


def test_what_could_not_be_made_leaves_nothing_behind(tmp_path, ignore):
    def refuse(folder):
        (folder / "half").write_text("half")
        raise DataError("no")

    with pytest.raises(DataError):
        Cache(tmp_path / "runs", ignore).get("tokens", {}, refuse, read)
    assert list(tmp_path.iterdir()) == []


def test_the_least_used_folders_go(tmp_path, cache):
    for number in range(12):
        cache.get("tokens", {"n": number}, Maker(str(number)), read)
        for folder in folders(tmp_path):  # time stamps as if a minute had passed
            os.utime(folder, (folder.stat().st_mtime - 60,) * 2)
        assert cache.get("tokens", {"n": 0}, Maker("again"), read) == ("0", True), (
            "it is used all the time"
        )
    assert len(folders(tmp_path)) == 8
    assert len(list((tmp_path / NAME).glob("*.lock"))) == 8


def test_the_reply_dialogues_of_many_seeds_displace_no_tokens(tmp_path, cache):
    cache.get("tokens", {"of": "another run"}, Maker(), read)
    for seed in range(12):
        for folder in folders(tmp_path):
            os.utime(folder, (folder.stat().st_mtime - 60,) * 2)
        cache.get("replies", {"seed": seed}, Maker(str(seed)), read)
    assert cache.get("tokens", {"of": "another run"}, Maker(), read) == ("text", True)
    assert len(folders(tmp_path)) == 1 + 8
    assert cache.get("replies", {"seed": 11}, Maker(), read) == ("11", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_where_one_may_not_write_the_cache_is_of_this_process_only(tmp_path, ignore):
    tmp_path.chmod(0o500)
    cache = Cache(tmp_path / "runs", ignore)
    assert cache.get("tokens", {}, Maker(), read) == ("text", False)
    assert cache.get("tokens", {}, Maker(), read) == ("text", True)
    tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_nothing_is_written_beside_the_data(tmp_path, ignore, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = Cache(None, ignore)
    assert cache.get("tokens", {}, Maker(), read) == ("text", False)
    assert cache.get("tokens", {}, Maker(), read) == ("text", True)
    assert list(tmp_path.iterdir()) == []


# Variants of a key


def _refused(cache, variant, content):
    def make(folder):
        (folder / "data").write_text(content)
        cache.keep("refused", {"a": 1}, variant, folder)
        raise DataError("no")

    with pytest.raises(DataError):
        cache.get("tokens", {"a": 1}, make, read, variant)


def test_the_variants_of_a_key_are_found_with_those_that_were_refused_and_no_other_key(cache):
    cache.get("tokens", {"a": 1}, Maker("made"), read, {"length": 8})
    cache.get("tokens", {"a": 2}, Maker("of another key"), read, {"length": 8})
    _refused(cache, {"length": 4}, "refused")
    found = cache.related(("tokens", "refused"), {"a": 1}, read)
    assert found == [({"length": 8}, "made"), ({"length": 4}, "refused")]
    assert cache.related(("tokens",), {"a": 3}, read) == []


def test_what_was_refused_is_never_taken_for_what_was_made(cache):
    _refused(cache, {"length": 4}, "refused")
    assert cache.get("tokens", {"a": 1}, Maker("made"), read, {"length": 4}) == ("made", False)


def test_what_is_refused_again_takes_the_place_of_what_was_refused_before(tmp_path, cache):
    for content in ("first", "second"):
        _refused(cache, {"length": 4}, content)
    assert [content for _, content in cache.related(("refused",), {"a": 1}, read)] == ["second"]
    assert len(folders(tmp_path)) == 1


def test_a_damaged_variant_and_one_that_is_being_made_are_not_used(tmp_path, cache):
    cache.get("tokens", {"a": 1}, Maker("damaged"), read, {"length": 8})
    (folders(tmp_path)[0] / "data").write_text("changed")
    cache.get("tokens", {"a": 1}, Maker("whole"), read, {"length": 4})

    def make(folder):
        assert [content for _, content in cache.related(("tokens",), {"a": 1}, read)] == ["whole"]
        (folder / "data").write_text("made again")

    assert cache.get("tokens", {"a": 1}, make, read, {"length": 8}) == ("made again", False)


# Two processes, and one that is killed


def _make_slowly(root, started, result):
    def make(folder):
        (folder / "data").write_text("slow")
        started.set()
        time.sleep(1.0)

    result.put(Cache(Path(root), lambda event: None).get("tokens", {}, make, read))


def notices(events):
    return [event.message for event in events if isinstance(event, Notice)]


def _start(root):
    context = multiprocessing.get_context("spawn")
    started, result = context.Event(), context.Queue()
    process = context.Process(target=_make_slowly, args=(str(root), started, result))
    process.start()
    assert started.wait(60)
    return process, result


def test_a_second_process_waits_and_uses_what_the_first_one_made(tmp_path):
    process, result = _start(tmp_path)
    events = []
    make = Maker("fast")
    assert Cache(tmp_path, events.append).get("tokens", {}, make, read) == ("slow", True)
    assert make.times == 0
    assert notices(events) == ["another convo process is preparing the same data; waiting for it"]
    assert result.get(timeout=60) == ("slow", False)
    process.join(60)


def test_a_killed_process_leaves_the_next_one_free_to_make_it(tmp_path, cache):
    process, _ = _start(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert len(list((tmp_path / NAME).glob(".tmp-*"))) == 1
    assert cache.get("tokens", {"another": "key"}, Maker(), read) == ("text", False)
    assert list((tmp_path / NAME).glob(".tmp-*")) == []


def test_what_is_not_the_caches_own_is_never_removed(tmp_path, cache):
    for number in range(12):
        (tmp_path / NAME / f"app{number}" / "data").mkdir(parents=True)
        (tmp_path / NAME / f".tmp-app{number}").mkdir()
        cache.get("tokens", {"n": number}, Maker(), read)
    assert (
        len(list((tmp_path / NAME).glob("app*")))
        == len(list((tmp_path / NAME).glob(".tmp-app*")))
        == 12
    )
    assert len(list((tmp_path / NAME).glob("tokens-*[0-9a-f]"))) == 8


def test_a_folder_that_changes_after_it_was_verified_is_not_used(tmp_path, cache):
    cache.get("tokens", {}, Maker(), read)

    def change_and_read(folder):
        (folder / "data").write_text("TEXT")
        return read(folder)

    with pytest.raises(ChangedError, match=r"/data: changed while .* was read"):
        cache.get("tokens", {}, Maker(), change_and_read)


# A folder that others can write to

needs_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root can give files away"
)
needs_modes = pytest.mark.skipif(os.name != "posix", reason="owners and modes of POSIX")
STRANGER = 65534


@pytest.fixture
def told():
    return []


def warnings(told):
    return [event.message for event in told if isinstance(event, Notice) and event.is_warning]


def replaced_by_a_link(root):
    elsewhere = root.with_name("elsewhere")
    root.rename(elsewhere)
    root.symlink_to(elsewhere)


@needs_modes
@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda root: root.chmod(0o775), "other users may write to it"),
        (lambda root: root.chmod(0o703), "other users may write to it"),
        (replaced_by_a_link, "it is a symbolic link"),
        pytest.param(
            lambda root: os.chown(root, STRANGER, 0), "belongs to another user", marks=needs_root
        ),
    ],
)
def test_a_cache_that_others_may_have_written_is_not_used_with_one_warning(
    tmp_path, told, forge, reason
):
    Cache(tmp_path, told.append).get("tokens", {}, Maker("forged"), read)
    forge(tmp_path / NAME)
    before = sorted(path.name for path in (tmp_path / NAME).iterdir())
    cache = Cache(tmp_path, told.append)
    assert cache.get("tokens", {}, Maker("made"), read) == ("made", False)
    assert cache.get("tokens", {}, Maker("again"), read) == ("made", True), (
        "for this process there is another one"
    )
    (warning,) = warnings(told)
    assert f"{tmp_path / NAME}: not used, because " in warning
    assert reason in warning
    assert f"rm -r {tmp_path / NAME}" in warning
    assert sorted(path.name for path in (tmp_path / NAME).iterdir()) == before


@needs_modes
@pytest.mark.parametrize(
    "forge",
    [
        lambda folder: folder.chmod(0o722),
        lambda folder: (folder / "data").chmod(0o620),
        lambda folder: (
            folder.rename(folder.with_name("x")),
            folder.symlink_to(folder.with_name("x")),
        ),
        lambda folder: (
            (folder / "data").rename(folder.parent / "y"),
            (folder / "data").symlink_to(folder.parent / "y"),
        ),
        pytest.param(lambda folder: os.chown(folder, STRANGER, 0), marks=needs_root),
        pytest.param(lambda folder: os.chown(folder / "data", STRANGER, 0), marks=needs_root),
        pytest.param(
            lambda folder: os.chown(folder / "MANIFEST.json", STRANGER, 0), marks=needs_root
        ),
    ],
)
def test_a_folder_of_the_cache_that_others_may_have_written_is_made_again(tmp_path, told, forge):
    cache = Cache(tmp_path, told.append)
    cache.get("tokens", {"a": 1}, Maker("forged"), read, {"length": 8})
    forge(folders(tmp_path)[0])
    cache.get(
        "tokens", {"a": 1}, lambda folder: assert_unrelated(cache, folder), read, {"length": 4}
    )
    assert cache.get("tokens", {"a": 1}, Maker("made"), read, {"length": 8}) == ("made", False)
    assert "preparing the data again" in warnings(told)[0]
    assert cache.get("tokens", {"a": 1}, Maker("again"), read, {"length": 8}) == ("made", True)
    assert len(warnings(told)) == 1


def assert_unrelated(cache, folder):
    (folder / "data").write_text("of another variant")
    assert cache.related(("tokens",), {"a": 1}, read) == []


@needs_modes
@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_a_cache_is_its_users_alone_and_is_trusted_by_the_next_run(tmp_path, told, mask):
    with umask(mask):
        assert Cache(tmp_path / "runs", told.append).get("tokens", {}, Maker(), read) == (
            "text",
            False,
        )
        assert Cache(tmp_path / "runs", told.append).get("tokens", {}, Maker(), read) == (
            "text",
            True,
        )
    made = [tmp_path / "runs" / NAME, *(tmp_path / "runs" / NAME).rglob("*")]
    assert [path for path in made if path.stat().st_mode & 0o077] == []
    assert (tmp_path / "runs").stat().st_mode & 0o777 == 0o777 & ~mask, (
        "output_dir is the user's own"
    )
    assert notices(told) == []


@needs_modes
def test_a_cache_that_others_can_read_is_used_and_closed(tmp_path, told):
    """As older versions of convo made it."""
    Cache(tmp_path, told.append).get("tokens", {}, Maker(), read)
    for path in [tmp_path / NAME, *(tmp_path / NAME).rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert Cache(tmp_path, told.append).get("tokens", {}, Maker(), read) == ("text", True)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o700
    assert notices(told) == []


@needs_modes
def test_where_owners_are_not_kept_a_run_prepares_its_own_data(tmp_path, told, monkeypatch):
    """As on a network share, for output_dir and temporary files alike."""
    monkeypatch.setattr("convo_cli.storage.access.os.geteuid", lambda: 1234)
    monkeypatch.setattr(
        "convo_cli.storage.access.reason_to_distrust",
        lambda status: "it belongs to another user (uid 4321)",
    )
    monkeypatch.setattr(
        "convo_cli.storage.access.only_own", lambda path, flags: pytest.fail("asked for the owner")
    )
    cache = Cache(tmp_path / "runs", told.append)

    def read_by_the_cache(folder):
        with open(folder / "data", opener=cache.opener) as file:
            return file.read()

    assert cache.get("tokens", {}, Maker(), read_by_the_cache) == ("text", False)
    assert cache.get("tokens", {}, Maker(), read_by_the_cache) == ("text", True)
    assert len(warnings(told)) == 1


def test_a_folder_that_cannot_be_opened_as_its_content_is_created_again(tmp_path, told):
    def require_good(folder):
        if (content := read(folder)) != "good":
            raise CheckpointError(f"{folder}: {content}")
        return content

    cache = Cache(tmp_path, told.append)
    cache.get("tokens", {}, Maker("forged"), read)
    assert cache.get("tokens", {}, Maker("good"), require_good) == ("good", False)
    assert "forged; preparing the data again" in warnings(told)[0]
    with pytest.raises(CheckpointError, match="bad"):
        cache.get("tokens", {"another": "key"}, Maker("bad"), require_good)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"variant": 1}', b'{"variant": {"length": 9}}', b"[" * 10**5]
)
def test_a_variant_that_is_not_the_folders_own_is_not_found(tmp_path, cache, content):
    def write_key(folder):
        (folder / "data").write_text("forged")

    cache.get("tokens", {"a": 1}, write_key, read, {"length": 8})
    (folder,) = folders(tmp_path)
    (folder / "key.json").write_bytes(content)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"]["key.json"] = {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    cache.get(
        "tokens", {"a": 1}, lambda folder: assert_unrelated(cache, folder), read, {"length": 4}
    )
