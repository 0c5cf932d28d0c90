"""The dialogues that get a reply: the same from the data and the cache, and no needless reading."""

from __future__ import annotations

import shutil

import pytest

from convo_cli.data.held_out.references import choose_dialogues
from convo_cli.data.held_out.training_facts import TrainingFacts
from convo_cli.data.reader import read_dialogues
from convo_cli.errors import FileChangedError
from convo_cli.prepare import inputs as module
from convo_cli.prepare.cache import NAME, Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.reply_dialogues import find_reply_dialogues, find_training_facts
from convo_cli.runs.provenance.data_files import read_data_files
from tests.conftest import SAMPLE_DATA

VALIDATION = SAMPLE_DATA / "train.jsonl"


@pytest.fixture
def make_inputs(tiny_config, tmp_path, ignore):
    def make(path=VALIDATION, **settings):
        data = {"validation": (str(path),), **settings.pop("data", {})}
        config = tiny_config(
            data=data,
            evaluation={"reply_dialogues": 5, **settings.pop("evaluation", {})},
            **settings,
        )
        return Inputs(
            config, read_data_files(config.data), Cache(tmp_path / "runs", ignore), ignore
        )

    return make


@pytest.fixture
def passes(monkeypatch):
    """The files of every pass over data."""
    made, read = [], module.read_unchanged

    def counted(files, *options):
        made.append([file.path for file in files])
        return read(files, *options)

    monkeypatch.setattr(module, "read_unchanged", counted)
    return made


def find(inputs):
    return find_reply_dialogues(inputs, "validation")


def chosen_of(inputs):
    """The choice without a cache."""
    config = inputs.config
    dialogues = read_dialogues(config.data.validation, config.data)
    return tuple(choose_dialogues(dialogues, config.evaluation.reply_dialogues, config.seed))


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (5, 42), (5, 7), (10_000, 3)])
def test_the_choice_is_that_of_the_data_and_is_made_once(make_inputs, passes, count, seed):
    inputs = make_inputs(seed=seed, evaluation={"reply_dialogues": count})
    assert find(inputs) == chosen_of(inputs)
    assert find(make_inputs(seed=seed, evaluation={"reply_dialogues": count})) == chosen_of(inputs)
    assert len(passes) == 1


def test_each_thing_that_decides_the_choice_makes_another_one(make_inputs, passes, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"".join(VALIDATION.read_bytes().splitlines(keepends=True)[:9]))
    variants = [
        make_inputs(),
        make_inputs(seed=1),
        make_inputs(evaluation={"reply_dialogues": 6}),
        make_inputs(other),
        make_inputs(data={"first_speaker": "assistant"}),
        make_inputs(data={"reasoning": "drop"}),
        make_inputs(
            data={"speakers": {"assistant": ("assistant", "gpt", "bot", "model", "chatbot", "x")}}
        ),
    ]
    for inputs in variants:
        assert find(inputs) == chosen_of(inputs)
    assert len(passes) == len(variants)


def test_equal_data_under_another_path_is_not_read_again(make_inputs, passes, tmp_path):
    shutil.copyfile(VALIDATION, tmp_path / "copy.jsonl")
    first, again = (find(make_inputs(path)) for path in (VALIDATION, tmp_path / "copy.jsonl"))
    assert first == again
    assert {dialogue.file for dialogue in (*first, *again)} == {""}
    assert len(passes) == 1


@pytest.mark.parametrize(
    "change", [{"evaluation": {"reply_dialogues": 0}}, {"data": {"validation": ()}}]
)
def test_where_no_dialogue_gets_a_reply_nothing_is_read_or_kept(
    make_inputs, passes, tmp_path, change
):
    assert find(make_inputs(**change)) == ()
    assert passes == []
    assert not (tmp_path / "runs" / NAME).exists()


def test_a_file_that_changed_since_it_was_hashed_is_refused_and_nothing_is_kept(
    make_inputs, tmp_path
):
    path = tmp_path / "valid.jsonl"
    shutil.copyfile(VALIDATION, path)
    inputs = make_inputs(path)
    with path.open("ab") as file:
        file.write(b'["and", "one more"]\n')
    with pytest.raises(FileChangedError, match="changed while it was read"):
        find(inputs)
    assert not list((tmp_path / "runs").rglob("dialogues.json"))


def test_the_training_data_is_read_once_for_its_facts(make_inputs, passes, tmp_path):
    facts = find_training_facts(make_inputs())
    assert find_training_facts(make_inputs()) == facts
    assert len(passes) == 1
    assert (facts.num_dialogues, facts.num_copies, facts.num_opened_by_assistant) == (25, 0, 0)
    assert facts.replies is not None
    assert facts.replies.source == "the run's training data"


def test_without_validation_data_no_facts_are_read(make_inputs, passes):
    assert find_training_facts(make_inputs(data={"validation": ()})) == TrainingFacts()
    assert passes == []
