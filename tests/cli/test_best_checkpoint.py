"""A run whose last checkpoint is not its best: what `--load` and its default load, and the report.

The learning rate makes the run worse from step 3 on.
"""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest

from tests.commands import make_workplace, run_here, settings

BEST, LAST = "runs/worse/checkpoints/step-00000003", "runs/worse/checkpoints/step-00000006"
COMMANDS = {
    "chat": ["chat", "runs/worse"],
    "export": ["export", "runs/worse", "out", "--force"],
    "evaluate": ["evaluate", "runs/worse", "valid.jsonl", "--replies", "0"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("worse"))


@pytest.fixture(scope="module")
def trained(folder):
    """The output of a training that gets worse from step 3 on."""
    worse = settings("name=worse", "training.learning_rate=1.0", "training.warmup_steps=3")
    return run_here(folder, "train", "config.yaml", *worse).err


@pytest.fixture
def convo(folder, trained):
    return partial(run_here, folder, stdin=b"hi\n")


@pytest.fixture
def scores(folder, trained):
    """Validation loss of each evaluated step, from the log."""
    records = map(json.loads, (folder / "runs/worse/metrics.jsonl").read_text().splitlines())
    return {one["step"]: one["loss"] for one in records if one["event"] == "evaluation"}


def the_line(result):
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if line.startswith("loaded ")]
    return line


def test_the_end_of_a_training_names_the_checkpoint_that_the_next_commands_load(trained):
    lines = trained.splitlines()
    (best,) = [number for number, line in enumerate(lines) if line.startswith("the best valid")]
    assert ", at step 3 (last step: " in lines[best]
    assert lines[best].endswith("; chat, evaluate and export load that checkpoint; to load the "
                                "last one:")  # fmt: skip
    assert lines[best + 1] == "  convo chat runs/worse --load last"
    assert "  convo chat runs/worse" in lines[:best]


def test_the_exported_weights_are_those_of_the_best_checkpoint(folder, scores, trained):
    """The last checkpoint of this run has a worse loss than its best one."""
    assert scores[6] > scores[3] + 1
    result = run_here(folder, "export", "runs/worse", "exported")
    line = the_line(result)
    assert line.startswith(
        f"loaded {BEST}: step 3 (best by loss, best by metric), validation loss {scores[3]:.3f}"
    )
    last = f"; last checkpoint (--load last): step 6, validation loss {scores[6]:.3f}"
    assert last in line
    exported = (folder / "exported/model.safetensors").read_bytes()
    assert exported == (folder / BEST / "model.safetensors").read_bytes()
    assert exported != (folder / LAST / "model.safetensors").read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("load", "path", "step"),
    [(None, BEST, 3), ("loss", BEST, 3), ("metric", BEST, 3), ("last", LAST, 6)],
)
def test_load_selects_the_checkpoint_and_one_line_names_it(
    convo, scores, command, load, path, step
):
    options = [] if load is None else ["--load", load]
    result = convo(*COMMANDS[command], *options, "--json")
    line = the_line(result)
    assert line.startswith(f"loaded {path}: step {step} (")
    for one in (3, 6):
        assert f"validation loss {scores[one]:.3f}" in line
    found = result.json["checkpoint"]
    assert (found["path"], found["step"], found["loss"]) == (path, step, scores[step])
    assert (found["last"]["step"], found["last"]["loss"]) == (6, scores[6])
    assert found["selected_by"] == (["last"] if step == 6 else ["loss", "metric"])
    if command == "evaluate":
        assert result.json["step"] == step
    if command == "export":
        assert result.json["source"] == path


def test_evaluate_names_the_checkpoint_beside_the_model(convo):
    model = convo(*COMMANDS["evaluate"], "-q").out.splitlines()[0]
    assert model == "model       runs/worse, step 3 (best by loss, best by metric)"
    model = convo(*COMMANDS["evaluate"], "-q", "--load", "last").out.splitlines()[0]
    assert model == "model       runs/worse, step 6 (last checkpoint)"


def test_the_last_checkpoint_is_loaded_with_a_word_about_the_better_one(convo, scores):
    line = the_line(convo("chat", "runs/worse", "--load", "last"))
    assert line.startswith(f"loaded {LAST}: step 6 (last checkpoint), validation loss ")
    assert f"; best by loss (--load loss): step 3, validation loss {scores[3]:.3f}" in line


def test_a_named_checkpoint_is_loaded_as_it_is(convo, scores):
    line = the_line(convo("chat", LAST))
    assert line.startswith(f"loaded {LAST}: step 6 (last checkpoint), validation loss ")
    assert f"; best by loss: step 3, validation loss {scores[3]:.3f}" in line
    assert "--load" not in line


def test_quiet_prints_no_line_about_the_checkpoint(convo):
    assert convo("chat", "runs/worse", "-q").err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_load_needs_a_run_directory(convo, folder, command):
    if not (folder / "exported").exists():
        convo("export", "runs/worse", "exported")
    verb, _, *others = COMMANDS[command]
    for source, said, hint in [
        (BEST, f"{BEST} is a checkpoint already", "runs/worse --load loss selects one of its run"),
        ("exported", "exported is not a run directory", "leave out --load"),
    ]:
        result = convo(verb, source, *others, "--load", "loss")
        assert result.code == 2
        assert f"--load loss selects a checkpoint of a run directory, but {said}" in result.err
        assert hint in result.err
        assert "loading PyTorch" not in result.err


def test_load_does_not_fit_a_hub_id(convo):
    for command in ("chat", "evaluate"):
        result = convo(command, "owner/model", *COMMANDS[command][2:], "--load", "last")
        assert result.code == 2
        assert "but owner/model is not a run directory\nhint: leave out --load" in result.err


@pytest.fixture
def copied(folder, trained):
    shutil.copytree(folder / "runs/worse", folder / "runs/copied")
    yield folder / "runs/copied"
    shutil.rmtree(folder / "runs/copied")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", ["damaged", "missing", "uncertain"])
def test_a_best_checkpoint_that_cannot_be_loaded_is_never_replaced_in_silence(
    convo, copied, command, fault
):
    best = copied / "checkpoints/step-00000003"
    if fault == "damaged":
        weights = bytearray((best / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (best / "model.safetensors").write_bytes(weights)
        said = "step-00000003/model.safetensors: damaged"
    elif fault == "missing":
        shutil.rmtree(best)
        said = "the checkpoint with the best validation loss, "
    else:
        log = (copied / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        number = max(n for n, line in enumerate(log) if b'"event": "evaluation"' in line)
        log[number] = log[number].replace(b'"loss": ', b'"loss": 1')
        (copied / "metrics.jsonl").write_bytes(b"".join(log))
        for pointer in ("best-loss.json", "best-metric.json"):
            (copied / pointer).unlink(missing_ok=True)
        said = f"metrics.jsonl:{number + 1}: damaged, so it is not certain"
    verb, _, *others = COMMANDS[command]
    refused = convo(verb, "runs/copied", *others, "--load", "loss")
    assert refused.code == 5
    assert said in refused.err
    assert "hint: use --load last" in refused.err
    result = convo(verb, "runs/copied", *others, "-q")
    assert result.code == 0
    assert "loaded" not in result.err
    (warning,) = [line for line in result.err.splitlines() if said in line]
    assert warning.startswith("warning: ")
    assert warning.endswith("; loading step-00000006 instead, the newest intact checkpoint")


def test_a_run_that_was_not_evaluated_loads_its_last_checkpoint(convo, folder):
    convo("train", "config.yaml", *settings("name=unseen", "data.validation=[]"))
    result = convo("chat", "runs/unseen", "--json")
    line = the_line(result)
    assert line == (
        "loaded runs/unseen/checkpoints/step-00000006: step 6 (last checkpoint), no validation loss"
    )
    assert result.json["checkpoint"]["loss"] is None
    refused = convo("chat", "runs/unseen", "--load", "metric")
    assert refused.code == 5
    assert "no checkpoint has a validation metric" in refused.err
