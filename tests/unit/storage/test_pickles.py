"""Pickles are recognised by name, and each gets the command that converts it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from convo_cli.errors import ModelError
from convo_cli.storage.pickles import no_weights_on_hub, require_no_pickle

BEST = "model_epoch:3_step:99_loss_best.pt"


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"PK")
    return folder


def words_of(error):
    """The words of the command in the hint, after the program."""
    command = str(error.hint).splitlines()[-1]
    return shlex.split(command)[3:]


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt", "pytorch_model.bin", "log_data.pkl"])
def test_a_file_is_refused_by_its_name(tmp_path, name):
    make(tmp_path, name)
    with pytest.raises(ModelError, match=f"{name}: a pickle, which can run code") as caught:
        require_no_pickle(tmp_path / name)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["weights/" + BEST, "weights/model_last_best.pt", "log_data.pkl"], "weights/" + BEST),
        (["checkpoints/epoch=9-step=2.ckpt", "config.yaml"], "checkpoints/epoch=9-step=2.ckpt"),
        (["version_0/checkpoints/e.ckpt"], "version_0/checkpoints/e.ckpt"),
        (["lightning_logs/version_1/checkpoints/e.ckpt"],
         "lightning_logs/version_1/checkpoints/e.ckpt"),
        (["training_args.bin", "optimizer.pt", "pytorch_model.bin"], "pytorch_model.bin"),
        (["pytorch_model-00002-of-00002.bin", "pytorch_model-00001-of-00002.bin"],
         "pytorch_model-00001-of-00002.bin"),
    ],
)  # fmt: skip
def test_a_folder_is_refused_by_the_file_that_holds_its_weights(tmp_path, names, found):
    with pytest.raises(ModelError) as caught:
        require_no_pickle(make(tmp_path / "old", *names))
    assert f"old: its weights are in {found}, a pickle" in caught.value.message


@pytest.mark.parametrize(
    "names",
    [
        ["model.safetensors", "pytorch_model.bin"],
        ["model-00001-of-00002.safetensors", "training_args.bin"],
        ["config.yaml", "checkpoints/step-00000001/model.safetensors"],
        ["adapter_model.bin"],
        ["train.jsonl"],
        [],
    ],
)
def test_a_folder_with_safetensors_or_without_weights_is_left_to_others(tmp_path, names):
    require_no_pickle(make(tmp_path, *names))
    require_no_pickle(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    ("file", "text", "base"),
    [
        ("args.yaml", "seed: 0\npretrained_model: 'skt/kogpt2'\n", "skt/kogpt2"),
        ("config.yaml", "model:\n  pretrained_model_or_path: my base\n", "my base"),
        ("args.yaml", "pretrained_model: skt/kogpt2 # the base\n", "skt/kogpt2"),
        ("args.yaml", "pretrained_model:\n", "gpt2"),
        ("args.yaml", "pretrained_model: null\n", "gpt2"),
        ("args.yaml", f"pretrained_model: {'x' * 5000}\n", "gpt2"),
        ("other.yaml", "pretrained_model: x\n", "gpt2"),
    ],
)
def test_the_command_names_the_model_that_the_config_beside_the_weights_states(
    tmp_path, file, text, base
):
    make(tmp_path, "weights/" + BEST)
    (tmp_path / file).write_text(text)
    (tmp_path / "weights/model_epoch:3_step:99_loss_best-safetensors").mkdir()
    with pytest.raises(ModelError) as caught:
        require_no_pickle(tmp_path)
    old, stated, new = words_of(caught.value)
    assert (old, stated) == (str(tmp_path / "weights" / BEST), base)
    assert new == old.removesuffix(".pt") + "-safetensors-2"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX system")
def test_a_pipe_in_the_place_of_the_config_is_not_waited_for(tmp_path):
    make(tmp_path, "weights/" + BEST)
    os.mkfifo(tmp_path / "args.yaml")
    with pytest.raises(ModelError) as caught:
        require_no_pickle(tmp_path)
    assert words_of(caught.value)[1] == "gpt2"


def test_the_new_folder_of_a_file_with_a_long_name_has_a_name_that_fits(tmp_path):
    file = make(tmp_path, "한" * 80 + ".pt") / ("한" * 80 + ".pt")
    with pytest.raises(ModelError) as caught:
        require_no_pickle(file)
    Path(words_of(caught.value)[-1]).mkdir()


def test_the_command_imports_nothing_from_the_working_folder(tmp_path):
    make(tmp_path, "a.pt")
    for name in ("torch", "pathlib", "shutil", "transformers"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    with pytest.raises(ModelError) as caught:
        require_no_pickle(tmp_path / "a.pt")
    program = shlex.split(str(caught.value.hint).splitlines()[-1])[2]
    start = program.partition("; import sys, torch")[0]
    look = "; import importlib.util; print(importlib.util.find_spec('torch').origin)"
    found = subprocess.check_output([sys.executable, "-c", start + look], cwd=tmp_path, text=True)
    assert not Path(found.strip()).is_relative_to(tmp_path)


def test_an_export_of_format_legacy_is_named_as_such(tmp_path):
    make(tmp_path, "pytorch_model.bin", "config.json", "MANIFEST.json")
    with pytest.raises(
        ModelError, match="an export of --format legacy; its weights are in"
    ) as caught:
        require_no_pickle(tmp_path)
    assert "export the run again without --format legacy" in str(caught.value.hint)


def test_a_hub_model_without_safetensors_gets_a_command_too():
    error = no_weights_on_hub("owner/name")
    assert words_of(error) == ["owner/name", "name-safetensors"]
    assert "snapshot_download" in str(error.hint)
