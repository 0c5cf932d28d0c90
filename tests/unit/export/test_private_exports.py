"""No file of an export holds the name of its user, host or folders."""

from __future__ import annotations

import getpass
import importlib.util
import json
import platform
from pathlib import Path

import pytest

from convo_cli.export.exporting import export_checkpoint
from convo_cli.export.formats import FORMATS
from tests.commands import make_workplace, run_here, settings
from tests.foreign import byte_pairs, fast, save_foreign

USER, HOST = "zqmiller", "zqlaptop"
PLACE = "zqsecretproject"
FAST = {"huggingface"}
"""Formats whose export takes little; all others are written by the slow tests."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a name of its own, of a user and on a host with such names."""
    folder = tmp_path / "home" / USER / PLACE
    folder.mkdir(parents=True)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder.parent))
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, USER)
    for name in ("HOSTNAME", "COMPUTERNAME"):
        monkeypatch.setenv(name, HOST)
    monkeypatch.setattr(platform, "node", lambda: HOST)
    monkeypatch.setattr("socket.gethostname", lambda: HOST)
    monkeypatch.chdir(folder)
    assert getpass.getuser() == USER
    return folder


def _adapter(folder: Path) -> Path:
    pytest.importorskip("peft", reason='needs pip install "convo-cli[adapters]"')
    make_workplace(folder)
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128}
    end = "<|endoftext|>"
    save_foreign(folder / "base", "gpt2", fast(byte_pairs(), bos_token=end, eos_token=end), size)
    changes = settings(
        "model.scratch=null", "model.pretrained=base", "model.lora.rank=2", "data.validation=[]",
        "training.max_steps=1", "name=adapted",
    )  # fmt: skip
    trained = run_here(folder, "train", "config.yaml", *changes)
    assert trained.code == 0, trained.err
    return folder / "runs/adapted"


def _require(about):
    for module in about.writes_with:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the format needs {module}")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FORMATS],
)
def test_no_file_of_an_export_names_a_user_a_host_or_a_folder(name, place, make_checkpoint, ignore):
    about = FORMATS[name].about()
    _require(about)
    source = make_checkpoint(place / "run") if about.merges else _adapter(place)
    out = place / "exports" / "talker"
    export_checkpoint(source, out, name, force=False, emit=ignore)
    _require_private(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.about().merges])
def test_a_merged_export_does_not_name_the_place_of_its_base(name, place, ignore):
    _require(FORMATS[name].about())
    source = _adapter(place)
    export_checkpoint(source, place / "talker", name, force=False, emit=ignore)
    _require_private(place / "talker")


def _require_private(out: Path) -> None:
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) > 5
    for file in files:
        content = file.read_bytes()
        for secret in (USER, HOST, PLACE, str(Path(__file__).parents[3])):
            for form in (secret, json.dumps(secret)[1:-1]):
                assert form.encode() not in content, f"{file.name} names {secret}"
                assert form.encode("utf-16-le") not in content, f"{file.name} names {secret}"


def test_a_file_that_names_the_place_would_be_found(place):
    for number in range(6):
        (place / f"{number}").write_bytes(b"\x00" * 9)
    (place / "config.json").write_text(json.dumps({"_name_or_path": str(place / "run")}))
    with pytest.raises(AssertionError, match=r"config\.json names"):
        _require_private(place)
