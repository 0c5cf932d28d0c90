"""Validation finds exactly the problems of many faulty files, and none in as many innocent ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.problem_kinds import KINDS
from convo_cli.data.problems import Problem, ProblemError
from convo_cli.data.reader import read_dialogues
from tests.faulty_files import CASES, Case, Finding, write

CONFIG = DataConfig(train=("unused",))
BY_NAME = {case.name: case for case in CASES}
ONLY_VALIDATED = {"no-target", "nothing-to-train"}
"""Errors of meaning, not of reading: `train` finds them when it encodes."""


def problems_of(case: Case, folder: Path) -> list[Problem]:
    path = folder / case.file_name
    path.write_bytes(case.content)
    (file,) = validate_files([str(path)], CONFIG, max_problems=10_000).files
    return [problem for group in file.problem_groups for problem in group.problems]


def unmatched(case: Case, problems: list[Problem]) -> tuple[list[Finding], list[Problem]]:
    """The expected problems that were not found, and the unexpected ones that were."""
    missed, left = [], list(problems)
    for finding in case.findings:
        match = next((problem for problem in left if _is(finding, problem)), None)
        if match is None:
            missed.append(finding)
        else:
            left.remove(match)
    return missed, left


def _is(finding: Finding, problem: Problem) -> bool:
    return (
        (finding.code, finding.line) == (problem.code, problem.line)
        and finding.column in (0, problem.column)
        and finding.path in ("", problem.path)
    )


@pytest.mark.parametrize("name", list(BY_NAME))
def test_exactly_the_expected_problems_are_found_at_their_places(tmp_path: Path, name: str) -> None:
    problems = problems_of(BY_NAME[name], tmp_path)
    assert unmatched(BY_NAME[name], problems) == ([], [])
    assert all(problem.column > 0 for problem in problems)


def test_precision_and_recall_over_all_files_are_one(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for case in CASES:
        problems = problems_of(case, tmp_path)
        missed, false = unmatched(case, problems)
        counts.update(
            expected=len(case.findings), found=len(problems), missed=len(missed), false=len(false)
        )
    precision = 1 - counts["false"] / counts["found"]
    recall = 1 - counts["missed"] / counts["expected"]
    faulty = sum(bool(case.findings) for case in CASES)
    print(
        f"{len(CASES)} files, {faulty} of them faulty, {counts}: precision {precision:.3f}, recall "
        f"{recall:.3f}"
    )
    assert (precision, recall) == (1, 1)
    assert faulty >= 120
    assert len(CASES) - faulty >= 100


def test_every_case_has_its_own_name_and_every_kind_that_one_small_file_can_show_is_among_them(
    tmp_path: Path,
) -> None:
    assert len(BY_NAME) == len({case.file_name for case in CASES}) == len(CASES)
    shown = {finding.code for case in CASES for finding in case.findings}
    assert shown <= set(KINDS)
    needs_more = {"leakage", "line-too-long"}
    assert {"label-row", "mojibake", "duplicate-key"} <= shown
    assert not needs_more & shown
    write(tmp_path / "all")
    assert len(list((tmp_path / "all").iterdir())) == len(CASES) + 1


@pytest.mark.parametrize("name", list(BY_NAME))
def test_training_refuses_a_file_at_its_first_error_and_reads_any_other_to_its_end(
    tmp_path: Path, name: str
) -> None:
    case = BY_NAME[name]
    path = tmp_path / case.file_name
    path.write_bytes(case.content)
    errors = [
        finding.line
        for finding in case.findings
        if KINDS[finding.code].severity == "error" and finding.code not in ONLY_VALIDATED
    ]
    if errors:
        with pytest.raises(ProblemError, match=f":{min(errors)}:") as caught:
            list(read_dialogues([str(path)], CONFIG))
        assert caught.value.problem.line == min(errors)
    else:
        (file,) = validate_files([str(path)], CONFIG).files
        dialogues = list(read_dialogues([str(path)], CONFIG))
        assert len(dialogues) == file.num_dialogues == file.num_lines > 0
