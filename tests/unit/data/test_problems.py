"""A problem names its place, as far as it is known."""

from __future__ import annotations

import pytest

from convo_cli.data.problems import Problem


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ("train.jsonl", "train.jsonl:9:4 $[1] the text is empty"),
        ("", "line 9 $[1] the text is empty"),
    ],
)
def test_a_problem_without_a_file_is_named_by_its_line(file: str, shown: str) -> None:
    problem = Problem("empty-utterance", "the text is empty", "$[1]", column=4, line=9, file=file)
    assert str(problem) == shown
