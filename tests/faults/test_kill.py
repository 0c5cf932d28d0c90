"""After `kill -9` anywhere in training, a save or a resume, the run ends the same."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.runs.logs.final_scores import read_final_scores
from convo_cli.storage.sealed import verify_directory
from tests.commands import settings
from tests.faults.harness import (
    RUN,
    STEPS,
    Ended,
    Operation,
    Outcome,
    Zygote,
    copy_of,
    fault,
    finish,
    operations,
    outcome,
    report_on,
    sample,
)

Choose = Callable[[Sequence[Operation]], list[Operation]]
ALL = pytest.param(list, marks=pytest.mark.slow, id="at every operation")


def some(num: int) -> object:
    return pytest.param(lambda chosen: sample(chosen, num), id=f"at {num} operations")


def describe(operation: Operation, folder: Path) -> str:
    return f"{operation.number} {operation.kind} {operation.path.removeprefix(str(folder))}"


def killed(ended: Ended) -> bool:
    return ended.code == -signal.SIGKILL


def kill_at_each(
    convo: Zygote,
    base: Path,
    tmp_path: Path,
    arguments: Sequence[str],
    choose: Choose,
    check: Callable[[Path], None],
) -> None:
    """Run a command in copies of ``base``, kill it at an operation or within a write, and check."""
    whole = copy_of(base, tmp_path / "whole")
    assert convo(whole, *arguments, env=fault(whole / "runs")).code == 0
    found = operations(whole / "runs")
    writes = [operation for operation in found if operation.kind == "write"]
    cases = [("kill", one) for one in choose(found)] + [("tear", one) for one in choose(writes)]
    failures: dict[str, str] = {}
    for action, operation in cases:
        folder = copy_of(base, tmp_path / "work")
        try:
            ended = convo(folder, *arguments, env=fault(folder / "runs", action, operation.number))
            assert killed(ended), ended
            check(folder)
        except AssertionError as error:
            failures[f"{action} at {describe(operation, whole)}"] = str(error)
        shutil.rmtree(folder)
    report_on(failures, len(cases))


@pytest.fixture(scope="session")
def torn(convo: Zygote, fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in the save of its third step, with half of the checkpoint written."""
    whole = copy_of(fresh, tmp_path_factory.mktemp("torn") / "whole")
    assert convo(whole, "train", "config.yaml", "-q", env=fault(whole / "runs")).code == 0
    at = next(
        one
        for one in operations(whole / "runs")
        if ".tmp-step-00000003" in one.path and one.kind == "fsync"
    )
    folder = copy_of(fresh, whole.with_name("work"))
    assert killed(
        convo(folder, "train", "config.yaml", "-q", env=fault(folder / "runs", "kill", at.number))
    )
    assert list((folder / RUN / "checkpoints").glob(".tmp-step-00000003*")), "there are leftovers"
    return folder


@pytest.mark.parametrize("choose", [some(1), ALL])
def test_training_killed_at_a_file_operation_ends_the_same(
    convo, fresh, expected, tmp_path, choose
):
    def check(folder: Path) -> None:
        run = RunDirectory(folder / RUN)
        records = (
            [*read_metrics(run.metrics), *read_metrics(run.samples)] if run.samples.exists() else []
        )
        evaluated = [
            record["step"] for record in records if record["event"] in ("evaluation", "sample")
        ]
        assert {*evaluated[-1:]} <= {*run.checkpoint_steps()}, (
            "nothing is evaluated before it is saved"
        )
        ended = finish(convo, folder)
        assert ended.code == 0, ended
        assert outcome(folder / RUN) == expected

    kill_at_each(convo, fresh, tmp_path, ["train", "config.yaml", "-q"], choose, check)


@pytest.mark.parametrize("choose", [some(1), ALL])
def test_a_resume_after_a_kill_that_is_itself_killed_ends_the_same(
    convo, torn, expected, tmp_path, choose
):
    def check(folder: Path) -> None:
        ended = convo(folder, "resume", RUN, "-q")
        assert ended.code == 0, ended
        assert outcome(folder / RUN) == expected

    kill_at_each(convo, torn, tmp_path, ["resume", RUN, "-q"], choose, check)


@pytest.mark.parametrize("choose", [ALL])
def test_a_resume_killed_while_it_scores_the_test_data_loses_nothing(
    convo, finished, expected, tmp_path, choose
):
    """The scores of a finished run are whole, absent or made by the next resume; never torn."""
    base = copy_of(finished, tmp_path / "base")
    arguments = ["resume", RUN, "-q", "--allow-changed", *settings("data.test=train.jsonl")]
    straight = copy_of(base, tmp_path / "straight")
    assert convo(straight, *arguments).code == 0
    scores = read_final_scores(RunDirectory(straight / RUN))
    assert scores is not None

    def check(folder: Path) -> None:
        run = RunDirectory(folder / RUN)
        assert read_final_scores(run) is not None or not run.test.exists()
        assert convo(folder, *arguments).code == 0
        again = read_final_scores(run)
        assert again is not None
        assert again.is_of(scores.weights, scores.data)
        assert again.loss == scores.loss
        assert outcome(folder / RUN) == expected

    kill_at_each(convo, base, tmp_path, arguments, choose, check)


@pytest.fixture(scope="session")
def worsened(convo: Zygote, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose newest checkpoint is not its best: a high rate ruined the last two steps."""
    folder = copy_of(finished, tmp_path_factory.mktemp("worsened") / "work")
    longer = settings(f"training.max_steps={STEPS + 2}", "training.learning_rate=10")
    assert convo(folder, "resume", RUN, "-q", *longer).code == 0
    assert RunDirectory(folder / RUN).checkpoint_steps()[-1] == STEPS + 2
    assert f"step-{STEPS + 2:08}" not in (folder / RUN / "best-loss.json").read_text(
        encoding="utf-8"
    )
    return folder


BACK = ["resume", RUN, "-q", "--load", "loss", *settings("training.learning_rate=1e-3")]


@pytest.mark.parametrize("choose", [some(1), ALL])
def test_going_back_to_the_best_and_killed_in_it_ends_the_same(convo, worsened, tmp_path, choose):
    """`--discard-later` deletes later checkpoints: a kill leaves those or the best one, whole."""
    arguments = [*BACK, "--discard-later"]
    straight = copy_of(worsened, tmp_path / "straight")
    assert convo(straight, *arguments).code == 0

    def check(folder: Path) -> None:
        ended = convo(folder, *arguments)
        assert ended.code == 0, ended
        assert outcome(folder / RUN, STEPS + 2) == outcome(straight / RUN, STEPS + 2)

    kill_at_each(convo, worsened, tmp_path, arguments, choose, check)


@pytest.mark.parametrize("choose", [ALL])
def test_a_fork_that_is_killed_is_whole_or_absent_and_its_parent_is_as_it_was(
    convo, worsened, tmp_path, choose
):
    """It ends the same as a run that is continued in place."""
    straight = copy_of(worsened, tmp_path / "straight")
    assert convo(straight, *BACK, "--discard-later").code == 0
    parent = contents(worsened / RUN, worsened)

    def check(folder: Path) -> None:
        assert contents(folder / RUN, folder) == parent
        forks = list((folder / RUN).parent.glob("tiny-from-*"))
        ended = convo(folder, *(["resume", forks[0], "-q"] if forks else BACK))
        assert ended.code == 0, ended
        (fork,) = (folder / RUN).parent.glob("tiny-from-*")
        assert outcome(fork, STEPS + 2) == outcome(straight / RUN, STEPS + 2)
        assert contents(folder / RUN, folder) == parent

    kill_at_each(convo, worsened, tmp_path, BACK, choose, check)


def contents(run: Path, folder: Path) -> dict[str, bytes]:
    """Return every file of a run except its lock, without the folder that `copy_of` changes."""
    files = [file for file in run.rglob("*") if file.is_file() and file.name != ".lock"]
    found = {file.relative_to(run).as_posix(): file.read_bytes() for file in files}
    return {**found, "config.yaml": found["config.yaml"].replace(os.fsencode(folder), b"")}


@pytest.mark.parametrize("choose", [ALL])
def test_the_first_preparation_of_the_data_killed_leaves_nothing_in_the_way(
    convo, fresh, expected, tmp_path, choose
):
    cold = copy_of(fresh, tmp_path / "cold")
    shutil.rmtree(cold / "runs")

    def first_part(found: Sequence[Operation]) -> list[Operation]:
        return choose([one for one in found if f"/{RUN}" not in one.path])

    def check(folder: Path) -> None:
        assert finish(convo, folder).code == 0
        assert outcome(folder / RUN) == expected

    kill_at_each(convo, cold, tmp_path, ["train", "config.yaml", "-q"], first_part, check)


@pytest.mark.parametrize("choose", [ALL])
def test_an_export_killed_at_a_file_operation_can_be_made_again(convo, finished, tmp_path, choose):
    """The export is below runs/, which the layer watches. What a kill leaves is whole or hidden."""
    arguments = ["export", RUN, "runs/out", "-q"]

    def check(folder: Path) -> None:
        out = folder / "runs/out"
        if out.exists():
            verify_directory(out)
        again = convo(folder, *arguments, *(["--force"] if out.exists() else []))
        assert again.code == 0, again

    kill_at_each(convo, finished, tmp_path, arguments, choose, check)


@pytest.mark.slow
def test_killed_at_50_random_instants_up_to_three_times_in_a_row_the_run_ends_the_same(
    convo: Zygote, fresh: Path, expected: Outcome, tmp_path: Path
) -> None:
    chance = random.Random(5)
    failures: dict[str, str] = {}
    num_kills = 0
    for case in range(50):
        folder = copy_of(fresh, tmp_path / "work")
        instants = [chance.uniform(0.05, 0.6) for _ in range(1 + case % 3)]
        num_done = 0
        try:
            for instant in instants:
                has_begun = (folder / RUN).exists()
                command = ["resume", RUN, "-q"] if has_begun else ["train", "config.yaml", "-q"]
                num_done += killed(convo(folder, *command, kill_after=instant))
            ended = finish(convo, folder)
            assert ended.code == 0, ended
            assert outcome(folder / RUN) == expected
        except AssertionError as error:
            failures[f"killed after {instants} s"] = str(error)
        num_kills += num_done
        shutil.rmtree(folder)
    assert num_kills > 25, "most kills hit a running command"
    report_on(failures, 50)
