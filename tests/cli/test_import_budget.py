"""Help, versions and mistakes are answered before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.commands import environment, make_workplace

HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "matplotlib",
    "huggingface_hub",
)
PROGRAM = """\
import sys
from convo_cli.__main__ import main
sys.argv = ["convo", *sys.argv[1:]]
try:
    main()
    code = 0
except SystemExit as stop:
    code = stop.code
print("LOADED", *sorted(set({heavy}) & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""
CASES = {
    "help": ("--help", 0),
    "no command": ("", 2),
    "version": ("--version", 0),
    "help of a command": ("chat --help", 0),
    "an unknown command": ("trian", 2),
    "an unknown option": ("train --stes 3", 2),
    "init-config": ("init-config --preset gpt2", 0),
    "init-config --schema": ("init-config --schema", 0),
    "validate-data": ("validate-data train.jsonl", 0),
    "bad data": ("validate-data config.yaml", 3),
    "a wrong value": ("train config.yaml --set training.max_steps=x", 2),
    "a missing config": ("train nope.yaml", 2),
    "a missing run to report": ("report nope", 2),
    "missing data": ("train config.yaml --set data.train=nope.jsonl", 2),
    "a missing pretrained model": (
        "train config.yaml --set model.scratch=null --set model.pretrained=./nope",
        2,
    ),
    "a missing run": ("resume runs/nope", 2),
    "no run": ("resume .", 5),
    "a missing model to export": ("export runs/nope out", 2),
    "a missing model to chat with": ("chat ./nope", 2),
    "no model to chat with": ("chat .", 2),
    "a missing model to serve": ("serve ./nope", 2),
    "a key that is missing": ("serve . --host 0.0.0.0", 2),
    "a wrong device": ("chat . --device gpu", 2),
    "a missing model to evaluate": ("evaluate ./nope valid.jsonl", 2),
    "missing data to evaluate on": ("evaluate gpt2 nope.jsonl", 2),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_heavy_is_imported_for(case, tmp_path):
    make_workplace(tmp_path)
    arguments, code = CASES[case]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{heavy}", repr(HEAVY)), *arguments.split()],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr.splitlines()[-1]) == (code, "LOADED"), run.stderr


def test_the_probe_does_see_what_is_loaded(tmp_path):
    program = "import huggingface_hub\n" + PROGRAM.replace("{heavy}", repr(HEAVY))
    run = subprocess.run(
        [sys.executable, "-c", program, "--version"], capture_output=True, text=True, check=True
    )
    assert run.stderr.splitlines()[-1] == "LOADED huggingface_hub"
