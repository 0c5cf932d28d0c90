from __future__ import annotations

import pytest

from convo_cli.config.keys import config_keys, in_words, keys_in
from convo_cli.config.schema import RunConfig
from convo_cli.config.synonyms import SYNONYMS


def test_the_table_has_every_key_of_the_schema_in_its_order() -> None:
    assert [key.name for key in keys_in("")] == list(RunConfig.model_fields)
    assert [key.path for key in keys_in("evaluation.early_stopping")] == [
        "evaluation.early_stopping.patience",
        "evaluation.early_stopping.monitor",
        "evaluation.early_stopping.min_delta",
    ]


def test_every_key_has_a_documentation_that_is_a_sentence() -> None:
    assert [key.path for key in config_keys().values() if not key.doc.endswith(".")] == []


def test_no_documentation_is_a_question() -> None:
    questions = ("How ", "What ", "When ", "Where ", "Whether ", "Which ", "Who ", "Whose ")
    assert [key.path for key in config_keys().values() if key.doc.startswith(questions)] == []


def test_a_key_that_may_be_null_says_what_null_does() -> None:
    keys = [key for key in config_keys().values() if "null" in key.types]
    assert [key.path for key in keys if "null: " not in key.doc] == []


def test_only_what_has_no_default_is_required() -> None:
    assert [key.path for key in config_keys().values() if key.is_required] == [
        "data",
        "data.train",
        "model",
        "training",
    ]


FILES = "text, or a list of texts and {path: FILE, weight: NUMBER}, not empty"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("seed", "a whole number, 0 to 9,223,372,036,854,775,807"),
        ("deterministic", "true or false"),
        ("data", "a section of keys"),
        ("data.train", FILES),
        ("data.validation", "text or a list of texts"),
        ("model.scratch", "a section of keys, or null"),
        ("model.pretrained", "text, not empty, or null"),
        ("tokenizer.character_coverage", "a number, 0.98 to 1"),
        ("training.max_steps", "a whole number, 1 to 1,000,000,000, or null"),
        ("training.betas", "a list of 2 numbers"),
        ("training.schedule", "constant, linear or cosine"),
        ("generation.min_p", "a number, at least 0, below 1"),
    ],
)
def test_what_may_stand_at_a_key_is_said_in_words(path: str, allowed: str) -> None:
    assert config_keys()[path].allowed == allowed


@pytest.mark.parametrize(
    ("items", "words"), [([], ""), (["a"], "a"), (["a", "b"], "a or b"), ("abc", "a, b or c")]
)
def test_alternatives_are_joined_in_words(items: list[str], words: str) -> None:
    assert in_words(items) == words


def test_every_synonym_means_a_key_and_is_none_itself() -> None:
    keys = config_keys()
    assert [
        other for other, path in SYNONYMS.items() if path not in keys or keys[path].is_section
    ] == []
    assert [other for other in SYNONYMS if other in {key.name for key in keys.values()}] == []


def test_no_name_is_a_synonym_twice() -> None:
    from convo_cli.config import synonyms

    others = [other for line in synonyms._OTHER_NAMES.values() for other in line.split()]
    assert sorted(others) == sorted(set(others))
