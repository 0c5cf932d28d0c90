"""Damage to any file of a run directory is refused by name, or the run ends the same."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from tests.commands import PICTURES, settings
from tests.faults.harness import (
    RUN,
    STEPS,
    Ended,
    Outcome,
    Zygote,
    assert_refused,
    copy_of,
    outcome,
    prepare,
    report_on,
)

NEWEST = STEPS - 1


def flip(file: Path, other: Path, place: float) -> None:
    """Flip one bit of the byte at ``place``, a fraction of the file."""
    data = bytearray(file.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    file.write_bytes(data)


def swap(file: Path, other: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(content)


Damage = Callable[[Path, Path], object]
DAMAGES: dict[str, Damage] = {
    "a bit flipped at the start": lambda file, other: flip(file, other, 0.0),
    "a bit flipped in the first quarter": lambda file, other: flip(file, other, 0.2),
    "a bit flipped in the middle": lambda file, other: flip(file, other, 0.5),
    "a bit flipped at the end": lambda file, other: flip(file, other, 1.0),
    "half of it gone": lambda file, other: file.write_bytes(
        file.read_bytes()[: file.stat().st_size // 2]
    ),
    "empty": lambda file, other: file.write_bytes(b""),
    "deleted": lambda file, other: file.unlink(),
    "a byte too many": lambda file, other: file.write_bytes(file.read_bytes() + b"}"),
    "swapped": swap,
}


class Case(NamedTuple):
    """A file, relative to the run directory, and the file to swap it with."""

    file: str
    other: str
    damage: str


def cases(run: Path) -> Iterator[Case]:
    """Yield every damage to every file that a resume reads, writes or finds."""
    first, *_, newest = (
        RunDirectory(run).checkpoint(step) for step in RunDirectory(run).checkpoint_steps()
    )
    pairs = [
        *(
            (f"checkpoints/{newest.name}/{file.name}", f"checkpoints/{first.name}/{file.name}")
            for file in files(newest)
        ),
        *(
            (f"checkpoints/{first.name}/{file.name}", f"checkpoints/{newest.name}/{file.name}")
            for file in files(first)
        ),
        *((name, "run.json") for name in ("config.yaml", "metrics.jsonl", "samples.jsonl")),
        ("training-dialogues.hashes", "last.json"),
        ("run.json", "last.json"),
        ("last.json", "best-loss.json"),
        ("best-loss.json", "last.json"),
        ("best-metric.json", "last.json"),
    ]
    for file, other in pairs:
        for damage in DAMAGES:
            yield Case(file, other, damage)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def check(ended: Ended, case: Case, run: Path, expected: Outcome) -> None:
    """Assert that the damage is refused by name, or warned about and the end is the same."""
    assert "Traceback" not in ended.err, ended.err
    if ended.code != 0:
        assert_refused(ended, 2, 5, 6)
        assert any(name in ended.err for name in names(case)), ended.err
        return
    actual = outcome(run)
    assert (actual.weights, actual.optimizer) == (expected.weights, expected.optimizer), (
        f"other weights: {ended}"
    )
    if not case.file.endswith(".jsonl"):
        assert actual.log == expected.log
    if case.file.startswith("checkpoints/") and f"{NEWEST:08}" in case.file:
        assert any(
            re.search(rf"warning: .*{re.escape(name)}", ended.err) for name in names(case)
        ), ended


def names(case: Case) -> list[str]:
    """Return the names that a message about the damage may contain."""
    if case.file.endswith("MANIFEST.json"):
        # A changed file and a changed hash look the same.
        return [str(Path(case.file).parent)]
    if case.file == "run.json":
        # So do changed data and its changed hash.
        return [case.file, "not the data that the run began with"]
    if case.file == "config.yaml":
        return [case.file, "does not exist"]  # a changed letter makes another path
    return [case.file, case.other] if case.damage == "swapped" else [case.file]


def damage_each(
    convo: Zygote,
    half: Path,
    expected: Outcome,
    tmp_path: Path,
    chosen: Callable[[list[Case]], list[Case]],
) -> None:
    failures: dict[str, str] = {}
    num_cases = 0
    for case in chosen(list(cases(half / RUN))):
        folder = copy_of(half, tmp_path / "work")
        run = folder / RUN
        file, other = run / case.file, run / case.other
        before = file.read_bytes()
        DAMAGES[case.damage](file, other)
        try:
            # A swap of equal files is no damage.
            if not file.exists() or file.read_bytes() != before:
                num_cases += 1
                check(convo(folder, "resume", RUN, "-q"), case, run, expected)
        except AssertionError as error:
            failures[f"{case.file} {case.damage}"] = str(error)
        shutil.rmtree(folder)
    report_on(failures, num_cases)


def test_a_damaged_file_is_refused_by_name_or_the_run_ends_the_same(
    convo, half, expected, tmp_path
):
    """Every fourth file gets one damage; the damages alternate."""
    num = len(DAMAGES)
    damage_each(convo, half, expected, tmp_path, lambda found: found[:: 4 * num + 1])


@pytest.mark.slow
def test_every_damage_to_every_file_is_refused_by_name_or_the_run_ends_the_same(
    convo, half, expected, tmp_path
):
    damage_each(convo, half, expected, tmp_path, lambda found: found)


@pytest.mark.parametrize(
    ("old", "new"),
    [("seed: 42", "seed: 43"), ("learning_rate: 0.001", "learning_rate: 0.003"), ("0.95", "0.94")],
)
def test_a_config_that_was_changed_by_hand_is_refused(convo, half, expected, tmp_path, old, new):
    """One flipped bit makes another valid number; only `--set` changes a run."""
    folder = copy_of(half, tmp_path / "work")
    config = folder / RUN / "config.yaml"
    text = config.read_text(encoding="utf-8")
    assert old in text
    config.write_text(text.replace(old, new, 1), encoding="utf-8")
    ended = convo(folder, "resume", RUN, "-q")
    assert_refused(ended, 5, 6)
    assert "config.yaml" in ended.err


def test_what_only_people_read_may_be_damaged_or_gone(convo, tmp_path, expected):
    folder = prepare(tmp_path / "work")
    assert convo(folder, "train", "config.yaml", "-q", *PICTURES).code == 0
    run = folder / RUN
    readable = [
        *run.glob("plots/*"),
        *run.glob("tensorboard/*"),
        *run.glob("*.lock"),
        *run.glob(".lock"),
    ]
    assert len(readable) >= 3
    for file in readable:
        file.write_bytes(b"\0")
    for pointer in ("last.json", "best-loss.json", "best-metric.json"):
        (run / pointer).unlink()
    before = outcome(run)
    ended = convo(folder, "resume", RUN, "-q")
    assert ended.code == 0, ended
    assert outcome(run) == before
    assert (run / "last.json").exists()


@pytest.mark.parametrize("which", ["loss", "metric"])
def test_a_damaged_best_checkpoint_is_never_replaced_by_another(convo, half, tmp_path, which):
    folder = copy_of(half, tmp_path / "work")
    best = folder / RUN / "checkpoints/step-00000002"
    flip(best / "model.safetensors", best, 0.5)
    ended = convo(folder, "resume", RUN, "-q", "--load", which)
    assert_refused(ended, 5)
    assert "step-00000002" in ended.err
    assert "model.safetensors" in ended.err


def test_a_damaged_score_never_makes_another_checkpoint_the_best(convo, finished, tmp_path):
    """One digit of the best loss in the log, with best-loss.json damaged as well."""
    folder = copy_of(finished, tmp_path / "work")
    run = RunDirectory(folder / RUN)
    record = next(
        one for one in reversed(list(read_metrics(run.metrics))) if one["event"] == "evaluation"
    )
    log = run.metrics.read_text(encoding="utf-8")
    line = log[: log.index(f'"loss": {record["loss"]}')].count("\n") + 1
    run.metrics.write_text(
        log.replace(f'"loss": {record["loss"]}', '"loss": 99.0'), encoding="utf-8"
    )
    run.pointer("best-loss").unlink()
    longer = settings(f"training.max_steps={STEPS + 1}")
    ended = convo(folder, "resume", RUN, "-q", "--load", "loss", *longer)
    assert_refused(ended, 5)
    assert f"metrics.jsonl:{line}: damaged" in ended.err
    assert "--load last" in ended.err
    repeated = convo(folder, "resume", RUN, "-q", *longer)
    assert repeated.code == 0
    assert f"warning: {RUN}/metrics.jsonl:{line}: damaged" in repeated.err
    known = [one["loss"] for one in read_metrics(run.metrics) if one["event"] == "evaluation"]
    assert record["loss"] in known, "the evaluation is repeated"
    assert 99.0 not in known


COMMANDS = {
    "chat": lambda model, *load: ["chat", model, *load],
    "evaluate": lambda model, *load: ["evaluate", model, "valid.jsonl", "-q", *load],
    "export": lambda model, *load: ["export", model, "out", "-q", *load],
}
LOADED = [(2, ()), (NEWEST, ("--load", "last"))]
"""The best checkpoint, which is loaded by default, and the newest one."""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("stride", "num_damages"),
    [
        pytest.param(5, 1, id="some files, one damage each"),
        pytest.param(1, len(DAMAGES), id="every damage to every file", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_checkpoint_is_not_opened_by_other_commands(
    convo, half, tmp_path, command, stride, num_damages
):
    """A damaged checkpoint is refused; of its run, another one is opened with a warning."""
    failures: dict[str, str] = {}
    num_cases = 0
    for index, file in enumerate(files(RunDirectory(half / RUN).checkpoint(NEWEST))[::stride]):
        for damage in [*DAMAGES, *DAMAGES][index % len(DAMAGES) :][:num_damages]:
            step, load = LOADED[num_cases % 2]
            folder = copy_of(half, tmp_path / "work")
            name = f"checkpoints/step-{step:08}"
            damaged = name if file.name == "MANIFEST.json" else f"{name}/{file.name}"
            path = folder / RUN / name / file.name
            before = path.read_bytes()
            other = RunDirectory(folder / RUN).checkpoint(2 if step == NEWEST else NEWEST)
            DAMAGES[damage](path, other / file.name)
            if not path.exists() or path.read_bytes() != before:
                num_cases += 1
                try:
                    refused = convo(folder, *COMMANDS[command](f"{RUN}/{name}"))
                    assert_refused(refused, 2, 5)
                    assert damaged in refused.err, refused
                    warned = convo(folder, *COMMANDS[command](RUN, *load))
                    assert "Traceback" not in warned.err, warned
                    assert warned.code in (0, 5), warned
                    assert damaged in warned.err, warned
                except AssertionError as error:
                    failures[f"{command}: {file.name} {damage}"] = str(error)
            shutil.rmtree(folder)
    report_on(failures, num_cases)
