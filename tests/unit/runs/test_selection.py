"""Which checkpoint last, loss and metric select, which stay on disk, and reports of damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.schema import RunConfig
from convo_cli.errors import CheckpointError, DiskError
from convo_cli.events import EvaluationDone
from convo_cli.runs.checkpoints import Progress, SavedState, list_checkpoints, read_state
from convo_cli.runs.directory import RunDirectory, require_own_checkpoints
from convo_cli.runs.logs.evaluations import read_evaluations, weights_of
from convo_cli.runs.logs.event_log import MetricsLog
from convo_cli.runs.selection import SavedPointer, find_checkpoint, point_and_prune
from convo_cli.storage.atomic import publish_directory
from convo_cli.storage.sealed import MANIFEST_FILE, verify_directory
from tests.cases import num_examples

METRIC = "bleu-4"


def save(run, step, loss=None, metric=None, *, weights=None, **progress):
    """A checkpoint, and with a loss the record of its evaluation."""
    state = SavedState(progress=Progress(step=step, **progress), scaler={})

    def fill(folder):
        (folder / "state.json").write_text(state.model_dump_json())
        (folder / "model.safetensors").write_text(weights or f"weights of {step}")

    publish_directory(run.checkpoint(step), fill)
    if loss is not None:
        evaluate(run, step, loss, metric)


def evaluate(run, step, loss, metric):
    """The record of an evaluation in the log, which is cut back to the step."""
    log = MetricsLog(run.metrics, run.samples, after_step=step)
    metrics = {} if metric is None else {METRIC: metric}
    weights = weights_of(run.checkpoint(step))
    log(EvaluationDone(step, loss, 1.0, 9, 0.5, metrics, weights=weights))
    log.close()


def find(run, which):
    return find_checkpoint(run, which, METRIC)


def tidy(run, newest, keep=9, keep_best=1, monitor="loss"):
    config = RunConfig.model_validate(
        {
            "data": {"train": "train.jsonl"},
            "model": {"scratch": {}},
            "training": {"max_steps": 9},
            "evaluation": {"metric": METRIC, "early_stopping": {"monitor": monitor}},
            "checkpoints": {"keep": keep, "keep_best": keep_best},
        }
    )
    return point_and_prune(run, run.checkpoint(newest), config, read_evaluations(run).by_step)


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "convo")
    run.checkpoints.mkdir(parents=True)
    run.config.write_text("{}")
    return run


@pytest.fixture
def scored(run):
    """Best by loss at 20, best by metric at 10."""
    for step, loss, metric in (
        (0, None, None),
        (10, 3.0, 9.0),
        (20, 2.0, 5.0),
        (30, 2.5, 1.0),
        (40, None, None),
    ):
        save(run, step, loss, metric)
    return run


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# Which one


@pytest.mark.parametrize(
    ("which", "step", "later"),
    [("last", 40, ()), ("loss", 20, (30, 40)), ("metric", 10, (20, 30, 40))],
)
def test_each_name_means_the_checkpoint_whose_own_weights_have_that_score(
    scored, which, step, later
):
    found = find(scored, which)
    assert (found.path, found.step, found.damaged, found.later) == (
        scored.checkpoint(step),
        step,
        (),
        later,
    )


@pytest.mark.parametrize("which", ["loss", "metric"])
def test_of_equal_scores_the_earlier_checkpoint_is_the_best(run, which):
    for step in (5, 6, 7):
        save(run, step, 2.0, 3.0)
    assert find(run, which).step == 5


@pytest.mark.parametrize("which", ["loss", "metric"])
def test_a_score_that_no_checkpoint_has_is_an_error_with_a_way_on(run, which):
    save(run, 5)
    with pytest.raises(CheckpointError, match=f"no checkpoint has a validation {which}") as caught:
        find(run, which)
    assert "--load last" in str(caught.value.hint)


def test_a_loss_without_a_metric_counts_for_loss_only(run):
    save(run, 5, 2.0)
    save(run, 6, 3.0, 1.0)
    assert find(run, "loss").step == 5
    assert find(run, "metric").step == 6


def test_a_run_that_generates_no_replies_has_a_best_loss_but_no_metric(run):
    save(run, 5, 2.0)
    with pytest.raises(CheckpointError, match="no checkpoint has a validation metric") as caught:
        find(run, "metric")
    assert caught.value.hint == "use --load loss; a metric needs evaluation.reply_dialogues above 0"


def test_another_metric_has_a_best_checkpoint_of_its_own(run):
    save(run, 5, 2.0, 3.0, best_metrics={METRIC: 9.0})
    with pytest.raises(CheckpointError, match="no checkpoint has a validation metric"):
        find_checkpoint(run, "metric", "nist-2")


def save_ratios(run, ratios, **progress):
    """Checkpoints whose replies have these lengths, as shares of those of the real replies."""
    for step, ratio in ratios.items():
        save(run, step)
        log = MetricsLog(run.metrics, run.samples, after_step=step)
        weights = weights_of(run.checkpoint(step))
        scores = {"length-ratio": ratio}
        real = {"length-ratio": 1.0}
        log(EvaluationDone(step, 2.0, 1.0, 9, 0.5, scores, weights=weights, real_scores=real))
        log.close()


def test_of_a_metric_whose_best_value_is_that_of_the_real_replies_the_closest_is_the_best(run):
    save_ratios(run, {10: 0.2, 20: 1.1, 30: 1.4, 40: 0.8})
    found = find_checkpoint(run, "metric", "length-ratio")
    assert (found.step, found.later) == (20, (30, 40))


def test_a_lost_checkpoint_with_a_closer_value_is_noticed(run):
    save_ratios(run, {10: 0.2, 20: 1.1})
    save(run, 30, best_metrics={"length-ratio": 1.1})
    shutil.rmtree(run.checkpoint(20))
    with pytest.raises(CheckpointError, match=r"the best validation metric, 1\.1, is missing"):
        find_checkpoint(run, "metric", "length-ratio")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_damaged_newest_checkpoint_is_passed_over_and_nothing_is_changed(scored):
    (scored.checkpoint(40) / "model.safetensors").unlink()
    (scored.checkpoint(30) / "state.json").write_text("{}")
    before = contents(scored.path)
    found = find(scored, "last")
    assert (found.step, found.later) == (20, ())
    assert [path for path, _ in found.damaged] == [scored.checkpoint(40), scored.checkpoint(30)]
    assert "step-00000040/model.safetensors: missing" in found.damaged[0][1].message
    assert "step-00000030/state.json: damaged" in found.damaged[1][1].message
    assert contents(scored.path) == before


def test_a_damaged_checkpoint_that_is_not_the_newest_is_not_looked_at(scored):
    (scored.checkpoint(20) / "model.safetensors").unlink()
    assert (find(scored, "last").step, find(scored, "last").damaged) == (40, ())


@pytest.mark.parametrize("which", ["last", "loss", "metric"])
def test_what_one_may_not_read_is_not_damaged(scored, monkeypatch, which):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("convo_cli.storage.sealed.file_sha256", refuse)
    with pytest.raises(DiskError, match="Permission denied"):
        find(scored, which)


@pytest.mark.parametrize("which", ["last", "loss", "metric"])
def test_checkpoints_that_swapped_their_names_are_refused(scored, which):
    scored.checkpoint(20).rename(scored.path / "between")
    scored.checkpoint(40).rename(scored.checkpoint(20))
    (scored.path / "between").rename(scored.checkpoint(40))
    if which == "last":
        found = find(scored, which)
        assert found.step == 30
        assert (
            "step-00000040/state.json: this is the state of step 20, not of step 40"
            in found.damaged[0][1].message
        )
    else:
        with pytest.raises(CheckpointError, match="this is the state of step 40, not of step"):
            find(scored, which)


def test_a_run_without_a_whole_checkpoint_is_an_error(run):
    with pytest.raises(CheckpointError, match="no checkpoint is intact"):
        find(run, "last")
    save(run, 3)
    (run.checkpoint(3) / MANIFEST_FILE).unlink()
    with pytest.raises(
        CheckpointError,
        match=r"no checkpoint is intact; .*step-00000003/MANIFEST\.json",
    ):
        find(run, "last")


@pytest.mark.parametrize(("which", "step"), [("loss", 20), ("metric", 10)])
def test_a_damaged_best_checkpoint_is_an_error_never_another_one(scored, which, step):
    (scored.checkpoint(step) / "model.safetensors").write_text("weights of 99")
    with pytest.raises(CheckpointError, match=rf"step-000000{step}/model\.safetensors: damaged"):
        find(scored, which)


@pytest.mark.parametrize("which", ["loss", "metric"])
@pytest.mark.parametrize("damage", ["delete", "break", "forge"])
def test_a_damaged_state_cannot_make_another_checkpoint_the_best(scored, which, damage):
    state = scored.checkpoint({"loss": 20, "metric": 10}[which]) / "state.json"
    if damage == "delete":
        state.unlink()
    elif damage == "break":
        change(state, "{", "")
    else:
        change(state, '"best_loss":null', '"best_loss":9.0')
    with pytest.raises(CheckpointError, match=r"state\.json: (missing|damaged)") as caught:
        find(scored, which)
    assert "--load last" in str(caught.value.hint)


@pytest.mark.parametrize(("which", "step", "left"), [("loss", 20, "1.5"), ("metric", 10, "3")])
def test_a_best_checkpoint_that_is_gone_is_an_error_never_the_next_best(run, which, step, left):
    save(run, 10, 1.5, 9.0)
    save(run, 20, 1.0, 3.0, best_loss=1.5, best_metrics={METRIC: 9.0})
    save(run, 30, 2.0, 1.0, best_loss=1.0, best_metrics={METRIC: 9.0})
    assert find(run, which).step == step
    shutil.rmtree(run.checkpoint(step))
    with pytest.raises(
        CheckpointError,
        match=rf"the best validation {which}, \d, is missing; the best of the others is .*, "
        rf"{left}$",
    ):
        find(run, which)


@pytest.mark.parametrize("which", ["loss", "metric"])
def test_the_newest_checkpoint_that_was_the_best_and_is_gone_is_missed(run, which):
    save(run, 10, 1.5, 3.0)
    save(run, 20, 1.0, 9.0, best_loss=1.5, best_metrics={METRIC: 3.0})
    shutil.rmtree(run.checkpoint(20))
    with pytest.raises(CheckpointError, match=rf"best validation {which}, \d, is missing"):
        find(run, which)
    assert find(run, "last").step == 10


def test_the_newest_checkpoint_that_is_gone_and_was_not_the_best_is_not_missed(run):
    save(run, 10, 1.0, 9.0)
    save(run, 20, 1.5, 3.0, best_loss=1.0, best_metrics={METRIC: 9.0})
    shutil.rmtree(run.checkpoint(20))
    assert find(run, "loss").step == find(run, "metric").step == 10


def test_damaged_weights_of_another_checkpoint_do_not_keep_the_best_from_loading(scored):
    (scored.checkpoint(40) / "model.safetensors").unlink()
    assert find(scored, "loss").step == 20


# Scores that are lost or of other weights


@pytest.fixture
def evaluated(run):
    """Best by loss at 20 and by metric at 10, and every later state.json knows it."""
    save(run, 10, 1.5, 9.0)
    save(run, 20, 1.0, 3.0, best_loss=1.5, best_metrics={METRIC: 9.0})
    save(run, 30, 2.0, 1.0, best_loss=1.0, best_metrics={METRIC: 9.0})
    return run


def damage_line(run, number, old, new):
    lines = run.metrics.read_bytes().split(b"\n")
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    run.metrics.write_bytes(b"\n".join(lines))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"loss": 1.0', b'"loss": 7.0'),
        (b"{", b"["),
        (b'"step": 20', b'"step": 60'),
        (b"evaluation", b"evaluatioN"),
        (b"checksum", b"checksun"),
    ],
)
def test_a_damaged_record_of_the_best_is_named_by_its_line(evaluated, old, new):
    damage_line(evaluated, 2, old, new)
    with pytest.raises(
        CheckpointError, match=r"metrics\.jsonl:2: damaged, so it is not certain"
    ) as caught:
        find(evaluated, "loss")
    assert "--load last" in str(caught.value.hint)
    assert find(evaluated, "metric").step == 10
    assert find(evaluated, "last").step == 30


def test_a_damaged_record_of_the_newest_might_have_been_the_best(evaluated):
    damage_line(evaluated, 3, b'"loss": 2.0', b'"loss": 2.5')
    for which in ("loss", "metric"):
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl:3: damaged"):
            find(evaluated, which)


def test_a_last_line_that_was_never_finished_is_no_damage(evaluated):
    with evaluated.metrics.open("ab") as file:
        file.write(b'{"event": "step", "ti')
    save(evaluated, 40, best_loss=1.0, best_metrics={METRIC: 9.0})
    assert find(evaluated, "loss").step == 20


def test_without_the_log_the_pointers_know_the_best_and_without_both_it_is_an_error(evaluated):
    tidy(evaluated, 30)
    evaluated.metrics.unlink()
    assert (find(evaluated, "loss").step, find(evaluated, "metric").step) == (20, 10)
    for label in ("best-loss", "best-metric"):
        change(evaluated.pointer(label), '"num_targets": 9', '"num_targets": 8')
    for which in ("loss", "metric"):
        with pytest.raises(
            CheckpointError,
            match=f"the best validation {which}, .*, is missing; no other has a score",
        ):
            find(evaluated, which)
    assert find(evaluated, "last").step == 30


def test_scores_of_other_weights_are_not_those_of_the_checkpoint(evaluated, tmp_path):
    other = RunDirectory(tmp_path / "other")
    other.checkpoints.mkdir(parents=True)
    shutil.copytree(evaluated.checkpoint(10), other.checkpoint(10))
    (other.checkpoint(10) / "model.safetensors").write_text("other weights")
    publish_directory(evaluated.checkpoint(10), lambda folder: shutil.copytree(
        other.checkpoint(10), folder, dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(MANIFEST_FILE)
    ))  # fmt: skip
    with pytest.raises(
        CheckpointError, match=r"step-00000010: its weights are not those that .* has scores for"
    ):
        find(evaluated, "metric")
    assert tidy(evaluated, 30)["best-metric"] == evaluated.checkpoint(20), (
        "of those whose own scores are known"
    )


def test_a_pointer_to_a_checkpoint_that_was_discarded_says_nothing_about_the_next_of_that_step(
    evaluated,
):
    tidy(evaluated, 30)
    for step in (20, 30):
        shutil.rmtree(evaluated.checkpoint(step))
    evaluated.metrics.write_bytes(evaluated.metrics.read_bytes().partition(b"\n")[0] + b"\n")
    state = SavedState(progress=Progress(step=20), scaler={})

    def fill(folder: Path) -> None:
        (folder / "model.safetensors").write_text("other weights")
        (folder / "state.json").write_text(state.model_dump_json())

    publish_directory(evaluated.checkpoint(20), fill)
    assert find(evaluated, "loss").step == 10


# Pointers and pruning


def test_pointers_name_relative_paths_and_the_progress_there(scored):
    labels = tidy(scored, 40, 9)
    assert labels == {
        "last": scored.checkpoint(40),
        "best-loss": scored.checkpoint(20),
        "best-metric": scored.checkpoint(10),
    }
    for label, path in labels.items():
        pointer = SavedPointer.model_validate_json(scored.pointer(label).read_bytes())
        assert scored.path / pointer.checkpoint == path
        assert pointer.step == read_state(path).progress.step
    best = json.loads(scored.pointer("best-loss").read_text())["evaluation"]
    assert (best["loss"], best["metrics"]) == (2.0, {METRIC: 5.0})


def test_a_pointer_is_written_again_only_where_it_would_change(scored):
    tidy(scored, 40, 9)
    save(scored, 50, 2.5, 9.5)
    scored.pointer("best-loss").unlink()
    scored.pointer("best-loss").mkdir()
    with pytest.raises(DiskError, match=r"best-loss\.json: not a regular file, but a directory"):
        tidy(scored, 50, 9)
    scored.pointer("best-loss").rmdir()
    tidy(scored, 50, 9)
    pointers = [scored.pointer(label) for label in ("last", "best-loss", "best-metric")]
    assert [json.loads(pointer.read_text())["step"] for pointer in pointers] == [50, 20, 50]
    before = [pointer.stat().st_ino for pointer in pointers]
    tidy(scored, 50, 9)
    assert [pointer.stat().st_ino for pointer in pointers] == before


def test_a_pointer_whose_score_is_gone_goes_too_and_wrong_ones_are_rewritten(scored):
    tidy(scored, 40, 9)
    for step in (10, 20, 30):
        shutil.rmtree(scored.checkpoint(step))
    scored.pointer("last").write_text("nonsense")
    assert tidy(scored, 40, 9) == {"last": scored.checkpoint(40)}
    assert json.loads(scored.pointer("last").read_text())["step"] == 40
    assert not scored.pointer("best-loss").exists()
    assert not scored.pointer("best-metric").exists()


@pytest.mark.parametrize("damage", ["state", "cut", "gone", "manifest"])
def test_a_damaged_checkpoint_is_neither_counted_nor_deleted(scored, damage):
    folder = scored.checkpoint(30)
    if damage == "state":
        (folder / "state.json").write_text("{")
    elif damage == "cut":
        (folder / "model.safetensors").write_text("w")
    else:
        (folder / ("model.safetensors" if damage == "gone" else MANIFEST_FILE)).unlink()
    save(scored, 35)
    tidy(scored, 40, 2)
    assert scored.checkpoint_steps() == [10, 20, 30, 35, 40]


def test_what_was_just_sealed_stays_whatever_else_lies_there(run):
    """A whole checkpoint is left even if all others are damaged in ways that only reading shows."""
    for step in (10, 20, 30):
        save(run, step)
        if step != 20:
            (run.checkpoint(step) / "model.safetensors").write_text("weights of 99")
    tidy(run, 20, 1)
    assert run.checkpoint_steps() == [20, 30]
    verify_directory(run.checkpoint(20))


def test_a_link_among_the_checkpoints_is_pruned_without_what_it_leads_to(scored, tmp_path):
    elsewhere = scored.checkpoint(0).rename(tmp_path / "elsewhere")
    scored.checkpoint(0).symlink_to(elsewhere, target_is_directory=True)
    tidy(scored, 40, 1)
    assert scored.checkpoint_steps() == [10, 20, 40]
    verify_directory(elsewhere)


def test_checkpoints_that_are_a_link_out_of_the_run_are_refused(scored, tmp_path):
    require_own_checkpoints(scored)
    scored.checkpoints.rename(tmp_path / "elsewhere")
    scored.checkpoints.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(CheckpointError, match="checkpoints: a symbolic link"):
        require_own_checkpoints(scored)


def test_the_pointer_of_the_monitored_score_names_the_others_that_are_kept(scored):
    save(scored, 50, 2.2, 0.5)
    tidy(scored, 50, 1, keep_best=3)
    assert scored.checkpoint_steps() == [10, 20, 30, 50]
    best = SavedPointer.model_validate_json(scored.pointer("best-loss").read_bytes())
    assert [one.step for one in best.next_best] == [50, 30]
    assert [one.evaluation["loss"] for one in best.next_best] == [2.2, 2.5]
    for label in ("last", "best-metric"):
        assert json.loads(scored.pointer(label).read_bytes())["next_best"] == []


@pytest.fixture
def falling(run):
    """Six checkpoints, each with a worse loss than the one before; the last has no score."""
    for step in range(6):
        save(run, step, *((step + 1.0, 9.0 - step) if step < 5 else ()))
    return run


def test_a_damaged_best_checkpoint_stays_and_another_is_kept_in_its_place(falling):
    (falling.checkpoint(1) / "model.safetensors").write_text("cut")
    tidy(falling, 5, 1, keep_best=3)
    assert falling.checkpoint_steps() == [0, 1, 2, 3, 5]


@pytest.mark.parametrize("monitor", ["loss", "metric"])
def test_without_the_log_the_pointer_knows_the_scores_of_all_that_are_kept(falling, monitor):
    tidy(falling, 5, 1, keep_best=3, monitor=monitor)
    falling.metrics.unlink()
    for step in (6, 7):
        save(falling, step)
        tidy(falling, step, 1, keep_best=3, monitor=monitor)
        assert falling.checkpoint_steps() == [0, 1, 2, step]


def test_another_monitored_score_keeps_the_best_of_those_that_are_left(run):
    for step, (loss, metric) in enumerate([(1, 1), (2, 3), (3, 2), (4, 4)]):
        save(run, step, loss, metric)
    tidy(run, 3, 1, keep_best=2)
    assert run.checkpoint_steps() == [0, 1, 3]
    tidy(run, 3, 1, keep_best=2, monitor="metric")
    assert run.checkpoint_steps() == [0, 1, 3]
    tidy(run, 3, 1, keep_best=1, monitor="metric")
    assert run.checkpoint_steps() == [0, 3]


def test_pointers_of_earlier_versions_which_name_one_checkpoint_are_read(scored):
    tidy(scored, 40)
    for label in ("last", "best-loss", "best-metric"):
        pointer = json.loads(scored.pointer(label).read_bytes())
        del pointer["next_best"]
        scored.pointer(label).write_text(json.dumps(pointer))
    scored.metrics.unlink()
    assert sorted(read_evaluations(scored).by_step) == [10, 20]
    tidy(scored, 40, 1, keep_best=2)
    assert scored.checkpoint_steps() == [10, 20, 40]


SCORE = st.none() | st.tuples(st.integers(1, 4), st.none() | st.integers(1, 4))
SAVE = st.tuples(st.just("save"), SCORE)
FAULT = st.tuples(st.sampled_from(["cut", "discard", "lose"]), st.integers(0, 9))


def ranked(scores, which):
    """The scored steps, the best first; of equals the earlier one."""
    own = {step: score[which] for step, score in scores.items() if score}
    return sorted(
        (step for step in own if own[step] is not None),
        key=lambda step: (own[step] if which == 0 else -own[step], step),
    )


@settings(max_examples=num_examples(20), deadline=None)
@given(
    scores=st.lists(SCORE, min_size=1, max_size=7),
    keep=st.integers(1, 3),
    keep_best=st.integers(1, 3),
    monitor=st.sampled_from(["loss", "metric"]),
)
def test_the_newest_and_the_best_of_the_whole_run_stay_and_all_others_go(
    tmp_path_factory, scores, keep, keep_best, monitor
):
    """Although at each save only the checkpoints that are left can be compared."""
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    for step, score in enumerate(scores):
        save(run, step)
        tidy(run, step, keep, keep_best, monitor)
        if score:
            evaluate(run, step, *score)
            tidy(run, step, keep, keep_best, monitor)
    by_step = dict(enumerate(scores))
    expected = set(range(len(scores))[-keep:])
    expected.update(ranked(by_step, ["loss", "metric"].index(monitor))[:keep_best])
    expected.update(ranked(by_step, 0)[:1], ranked(by_step, 1)[:1])
    assert set(run.checkpoint_steps()) == expected
    assert [checkpoint.progress.step for checkpoint in list_checkpoints(run)] == sorted(expected)
    for step in expected:
        verify_directory(run.checkpoint(step))
    assert {path.name for path in run.checkpoints.iterdir()} == {
        run.checkpoint(step).name for step in expected
    }


@settings(max_examples=num_examples(25), deadline=None)
@given(
    changes=st.lists(SAVE | SAVE | FAULT, min_size=1, max_size=9),
    keep=st.integers(1, 2),
    keep_best=st.integers(1, 3),
    monitor=st.sampled_from(["loss", "metric"]),
)
def test_the_newest_and_the_best_stay_after_damage_lost_scores_and_discarded_steps(
    tmp_path_factory, changes, keep, keep_best, monitor
):
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    which = ["loss", "metric"].index(monitor)
    scores, is_cut, pointed = {}, set(), set()

    def prune(newest):
        nonlocal scores, pointed
        tidy(run, newest, keep, keep_best, monitor)
        whole = {step: score for step, score in scores.items() if step not in is_cut}
        pointed = {*ranked(scores, 0)[:1], *ranked(scores, 1)[:1]}
        pointed.update(ranked(whole, which)[:keep_best])
        stay = {newest, *pointed, *is_cut, *sorted(whole)[-keep:]}
        scores = {step: score for step, score in scores.items() if step in stay}
        assert run.checkpoint_steps() == sorted(scores)

    for number, (what, value) in enumerate(changes):
        whole = sorted(scores.keys() - is_cut)
        if what == "save":
            step = max(scores, default=-1) + 1
            save(run, step, weights=f"weights {number}")
            scores[step] = None
            prune(step)
            if value:
                evaluate(run, step, *value)
                scores[step] = value
                prune(step)
        elif what == "cut" and whole:
            step = whole[value % len(whole)]
            (run.checkpoint(step) / "model.safetensors").write_text("cut")
            is_cut.add(step)
        elif what == "discard" and whole:
            step = whole[value % len(whole)]
            for later in [other for other in scores if other > step]:
                shutil.rmtree(run.checkpoint(later))
                del scores[later]
                is_cut.discard(later)
        elif what == "lose":
            run.metrics.unlink(missing_ok=True)
            scores = {step: score if step in pointed else None for step, score in scores.items()}
