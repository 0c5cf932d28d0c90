"""The largest size that fits is found with few passes, none of which could be far too large."""

from __future__ import annotations

import pytest

from convo_cli.training.fitting.largest_size import Fit, Measurements, Size, largest_that_fits


def sizes(*numbers, tokens=300, quick_below=10**9):
    return [Size(size, size * tokens, size * tokens < quick_below) for size in numbers]


class Memory:
    """A machine with ``free`` bytes, on which a pass needs ``constant`` and ``each`` an example."""

    def __init__(self, free, *, each=100, constant=0, fails_above=10**9):
        self.free, self._each, self._constant = free, each, constant
        self._fails_above, self.measured = fails_above, []

    def needs(self, size):
        return self._constant + self._each * size

    def measure(self, size):
        number = size.size / 2 if size.is_halved else size.size
        self.measured.append(number)
        return self.needs(number) if self.needs(number) <= self._fails_above else None

    def fits(self, used):
        return used <= self.free

    def find(self, sizes, may_be_tried=None):
        known = Measurements(self.measure)
        return largest_that_fits(sizes, known, self.fits, may_be_tried or self.fits)


ALL = (16, 8, 4, 2, 1)


@pytest.mark.parametrize("constant", [0, 50, 1000])
@pytest.mark.parametrize("room", [*range(0, 1700, 50)])
def test_it_is_the_largest_that_fits_and_no_pass_needs_more_than_there_is(constant, room):
    memory = Memory(constant + room, constant=constant)
    fit = memory.find(sizes(*ALL))
    assert fit.size == max((size for size in ALL if memory.fits(memory.needs(size))), default=1)
    assert all(memory.fits(memory.needs(size)) or size == 1 for size in memory.measured)
    assert fit.needed == memory.needs(fit.size)


def test_each_pass_is_at_most_four_times_the_one_before():
    memory = Memory(10**9, constant=1000)
    assert memory.find(sizes(128, 64, 32, *ALL)) == Fit(128, 13_800)
    assert memory.measured == [1, 4, 16, 64, 128]


def test_a_pass_that_might_not_fit_is_not_tried():
    memory = Memory(900, constant=50)
    assert memory.find(sizes(*ALL), may_be_tried=lambda used: used <= 500) == Fit(8, 850, 1650)
    assert memory.measured == [1, 2, 4]


def test_a_step_of_few_tokens_is_measured_whole():
    memory = Memory(10**9)
    assert memory.find(sizes(4, 2, 1, tokens=20)).size == 4
    assert memory.measured == [4]


def test_a_slow_pass_is_not_tried():
    memory = Memory(900, constant=50)
    found = memory.find(sizes(*ALL, quick_below=700))
    assert found == Fit(8, 850, 1650)
    assert memory.measured == [1, 2]


@pytest.mark.parametrize("fails_above", [99, 150, 350, 799, 1599])
def test_out_of_memory_halves_the_size(fails_above):
    memory = Memory(10**9, fails_above=fails_above)
    fit = memory.find(sizes(*ALL))
    most = max((size for size in ALL if memory.needs(size) <= fails_above), default=1)
    assert fit.size == most
    assert fit.needed == (None if fails_above < 100 else 100 * most)


def test_a_first_pass_that_does_not_fit_is_followed_by_smaller_ones():
    memory = Memory(250)
    fit = memory.find(sizes(*ALL, tokens=70))
    assert (fit, memory.measured) == (Fit(2, 200, 400), [4, 2])


def test_the_only_size_is_measured_once():
    memory = Memory(0)
    assert memory.find(sizes(1)) == Fit(1, 100)
    assert memory.measured == [1]
