"""The turn that a reply is scored against, and the choice of dialogues that have one."""

from __future__ import annotations

from collections import Counter

import pytest

from convo_cli.data.dialogue import Dialogue, Role, Turn
from convo_cli.data.held_out.references import choose_dialogues, reference_index
from tests.memory import with_peak


def talk(*texts, line=0):
    roles: tuple[Role, Role] = ("user", "assistant")
    return Dialogue(tuple(Turn(roles[index % 2], text) for index, text in enumerate(texts)), line)


def test_the_choice_is_the_same_every_time_in_order_and_another_for_another_seed():
    dialogues = [talk("q", f"a{number}", line=number) for number in range(200)]
    chosen = choose_dialogues(iter(dialogues), 10, seed=3)
    assert chosen == choose_dialogues(iter(dialogues), 10, seed=3)
    assert [dialogue.line for dialogue in chosen] == sorted({dialogue.line for dialogue in chosen})
    assert len(chosen) == 10
    assert chosen != choose_dialogues(iter(dialogues), 10, seed=4)


@pytest.mark.parametrize(
    ("available", "count", "expected"), [(3, 10, 3), (10, 3, 3), (5, 0, 0), (0, 5, 0)]
)
def test_at_most_count_dialogues_are_chosen(available, count, expected):
    dialogues = (talk("q", "a") for _ in range(available))
    assert len(choose_dialogues(dialogues, count, seed=0)) == expected


def test_every_dialogue_is_as_likely_as_any_other():
    dialogues = [talk("q", "a", line=number) for number in range(20)]
    counts = Counter(d.line for seed in range(600) for d in choose_dialogues(dialogues, 5, seed))
    assert set(counts) == set(range(20))
    # 150 is expected, with a standard deviation of 10.6.
    assert max(abs(count - 150) for count in counts.values()) < 50


def test_only_chosen_dialogues_are_in_memory():
    dialogues = (talk("q" * 50_000, f"a{n}") for n in range(1000))
    chosen, peak = with_peak(lambda: choose_dialogues(dialogues, 4, seed=0))
    assert len(chosen) == 4
    assert peak < 1_000_000  # the whole would be 50 MB


@pytest.mark.parametrize(
    "turns",
    [
        (),
        (Turn("user", "q"),),
        (Turn("assistant", "a"),),
        (Turn("assistant", "a"), Turn("user", "q")),
        (Turn("system", "s"), Turn("assistant", "a")),
        (Turn("user", "q"), Turn("user", "q")),
    ],
)
def test_a_dialogue_without_an_answer_is_not_chosen(turns):
    assert choose_dialogues([Dialogue(turns), talk("q", "a")], 5, seed=0) == [talk("q", "a")]


def test_a_turn_that_the_data_excludes_is_no_reference():
    excluded = Dialogue((Turn("user", "q"), Turn("assistant", "rude", is_trained=False)))
    earlier = Dialogue((*talk("q", "a", "r").turns, Turn("assistant", "rude", is_trained=False)))
    assert choose_dialogues([excluded, earlier], 5, seed=0) == [earlier]
    assert reference_index(earlier.turns) == 1


def test_a_count_of_0_reads_no_dialogue():
    def fail():
        raise AssertionError
        yield

    assert choose_dialogues(fail(), 0, seed=0) == []
