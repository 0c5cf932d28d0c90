"""Arguments of all commands: which are paths, and where a new file may be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from convo_cli.cli.app import app
from convo_cli.cli.arguments import in_place, parse_devices, require_new_file
from convo_cli.cli.options import with_devices
from convo_cli.config.load import apply_overrides
from convo_cli.config.schema import RunConfig
from convo_cli.errors import ConvoError, DiskError


def test_a_home_is_expanded_in_every_argument_that_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    places = {
        name
        for command in app.registered_commands
        if command.callback is not None
        for name, hint in get_type_hints(command.callback).items()
        if Path in (hint, *get_args(hint))
    }
    assert {"samples", "output", "run_dir"} <= places
    given: dict[str, object] = {}
    in_place(lambda **arguments: given.update(arguments))(**dict.fromkeys(places, Path("~/x")))
    assert given == dict.fromkeys(places, tmp_path / "x")


def test_a_folder_without_write_permission_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: (place, mode) != (tmp_path, os.W_OK))
    with pytest.raises(DiskError, match=r"--samples .*new\.jsonl: files cannot be created in"):
        require_new_file(tmp_path / "new.jsonl", [], option="--samples", is_forced=False)


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("2", 2), (" 2", 2), ("auto", "auto"), ("0,2", (0, 2)), ("0, 2", (0, 2)),
        ("[0, 2]", (0, 2)), ("0,0", None), ("1e1", None), ("2.0", None), ("0", None), ("", None),
        ("-1", None), ("\u0662", None), ("9" * 5000, None), ("two", None), ("1;2", None),
    ],
)  # fmt: skip
def test_devices_mean_the_same_to_all_commands(
    text: str, devices: int | str | tuple[int, ...] | None
) -> None:
    config = RunConfig.model_validate(
        {"data": {"train": "t.jsonl"}, "model": {"scratch": {}}, "training": {"max_steps": 1}}
    )

    def of_train() -> object:
        return apply_overrides(config, with_devices(None, text)).training.devices

    for read in (of_train, lambda: parse_devices(text, "auto")):
        if devices is None:
            with pytest.raises(ConvoError) as caught:
                read()
            assert caught.value.exit_code == 2
        else:
            assert read() == devices
