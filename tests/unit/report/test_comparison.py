"""A comparison names what differs, and what therefore does not compare."""

from __future__ import annotations

import json

from convo_cli.report.comparing.comparison import compare
from convo_cli.report.comparing.comparison_page import comparison_charts
from convo_cli.report.comparing.comparison_tables import summary_table
from convo_cli.report.comparing.members import open_members
from convo_cli.runs.provenance.data_files import DataFile
from tests.written_runs import VALUES, healthy, run_info, sample, scored, write_run


def compared(folder, *names):
    return compare(open_members([str(folder / name) for name in names]))


def test_equal_runs_have_no_difference_and_no_caution(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, healthy(40, 20))
    found = compared(tmp_path, "a", "b")
    assert (found.differences, found.cautions) == ((), ())
    assert found.headline == f"All have the same validation loss, {found.members[0].loss:.3f}."
    assert len(found.dialogues) == 4


def test_keys_and_data_that_differ(tmp_path):
    other = {**VALUES, "name": "other", "seed": 7, "dialogue": {"train_on": "all"}}
    info = run_info(other).model_copy(
        update={"train": (DataFile(path="../more.jsonl", sha256="c" * 64, num_lines=3),)}
    )
    write_run(tmp_path / "a", healthy(40, 20))
    write_run(tmp_path / "b", healthy(40, 20), info)
    found = compared(tmp_path, "a", "b")
    assert dict(found.differences) == {
        "seed": (42, 7),
        "dialogue.train_on": ("assistant", "all"),
        "data.train": (["../train.jsonl"], ["../more.jsonl"]),
    }
    (caution,) = found.cautions
    assert caution == "dialogue.train_on differs, so the validation losses have different targets"


def test_other_weights_of_the_same_files_are_a_difference(tmp_path):
    heavy = {**VALUES, "data": {**VALUES["data"], "train": [{"path": "a.jsonl", "weight": 3}]}}
    write_run(tmp_path / "a", healthy(40, 20))
    write_run(tmp_path / "b", healthy(40, 20), run_info(heavy))
    assert dict(compared(tmp_path, "a", "b").differences) == {"weights of data.train": ([1], [3])}


def test_other_tokenizers_do_not_compare_by_token(tmp_path):
    for name in ("a", "b"):
        run = write_run(tmp_path / name, healthy(40, 20))
        run.dialogue.write_text(json.dumps({"tokenizer_sha256": name, "template": "turns"}))
    (caution,) = compared(tmp_path, "a", "b").cautions
    assert "the tokenizers differ, so losses per token cannot be compared" in caution


def test_replies_are_matched_by_their_dialogue_and_not_by_their_place(tmp_path):
    first = (sample(0, "a0"), sample(1, "a1"))
    write_run(tmp_path / "a", [scored(10, 2.0, samples=first)])
    write_run(tmp_path / "b", [scored(10, 2.0, samples=(sample(1, "b1"), sample(2, "b2")))])
    (dialogue,) = compared(tmp_path, "a", "b").dialogues
    assert dialogue.reference == "fine, thank you, 1"
    assert [one.reply for one in dialogue.replies] == ["a1", "b1"]


def test_curves_are_over_steps_and_over_tokens(tmp_path):
    write_run(tmp_path / "a", healthy(40, 20))
    write_run(tmp_path / "b", healthy(80, 20))
    charts = {chart.title: chart for chart in comparison_charts(compared(tmp_path, "a", "b"))}
    steps, tokens = (charts[f"Validation loss over {what}"] for what in ("steps", "tokens"))
    assert steps.x_ticks[-1][1] == "80"
    assert tokens.x_ticks[-1][1] == "40k"
    assert [label.name for label in sorted(steps.labels, key=lambda one: one.name)] == ["A", "B"]


def test_a_member_without_a_log_takes_part(tmp_path):
    write_run(tmp_path / "a", healthy(40, 20))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model/dialogue.json").symlink_to("config.json")
    found = compared(tmp_path, "a", "model")
    assert found.members[1].missing == ("no log of a run",)
    rows = {row[0]: row[1:] for row in summary_table(found).rows}
    assert rows["what"] == ("run, finished", "model")
    assert rows["steps"] == ("40", "–")


def test_empty_runs_can_be_compared(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, [])
    found = compared(tmp_path, "a", "b")
    assert found.headline == "Fewer than two models have a validation loss."
    assert list(comparison_charts(found)) == []
    assert found.members[0].missing == ("no evaluation", "no steps")
