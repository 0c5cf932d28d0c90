"""Requests that join and leave a batch at any time get the replies that they would get alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.schema import GenerationSettings
from convo_cli.model.decoding.continuous import continuous_batch, kept_prefixes, request_rows
from convo_cli.model.decoding.continuous.batch_requests import NewToken, Request, RequestFailed
from convo_cli.model.decoding.continuous.continuous_batch import ContinuousBatch
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.queries import Query
from tests.random_models import FAMILIES, build

GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=12)
PENALISED = GREEDY.model_copy(update={"repetition_penalty": 1.3})
SAMPLED = GenerationSettings(temperature=1.1, top_k=300, top_p=0.95, max_new_tokens=12)
WARM = GenerationSettings(temperature=0.7, min_p=0.05, repetition_penalty=1.2, max_new_tokens=12)
TIE = 1e-3
"""Logits that are closer are a tie: rounding may choose either token."""
KINDS = ["GPT-2", "Llama", "Llama by transformers", "Gemma 2"]
"""Two fast networks, rows that join in transformers' cache, and one request at a time."""


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder(max_length=96)


@pytest.fixture(scope="module", params=KINDS)
def generator(request, encoder):
    family = request.param.removesuffix(" by transformers")
    model = build(*FAMILIES[family], len(encoder.tokenizer))
    if family != request.param:
        model = model.double()  # too wide for a fast network
    made = Generator(model, encoder)
    made.family = request.param
    return made


@pytest.fixture(scope="module")
def fast(encoder):
    return Generator(build(*FAMILIES["GPT-2"], len(encoder.tokenizer)), encoder)


def ids_of(generator, draws, length):
    if "words" not in generator.__dict__:
        every = range(len(generator.encoder.tokenizer))
        generator.words = [token for token in every if not generator.encoder.is_special(token)]
    return draws.choices(generator.words, k=length)


def query_of(generator, draws, longest=60, most=12):
    ids = ids_of(generator, draws, draws.randint(1, longest))
    return Query(tuple(ids), draws.randint(1, most), 0)


def alone(generator, query, settings, seed=0):
    """The reply of `Generator.answer`, cached by its prompt."""
    known = generator.__dict__.setdefault("known", {})
    key = query.ids, query.max_new_tokens, settings, seed
    if key not in known:
        (reply,) = generator.answer([query], settings, seed=seed)
        known[key] = list(reply.ids)
    return known[key]


def is_tie(generator, query, expected, place):
    """Whether the two best logits before the token at a place are almost equal."""
    row = torch.tensor([[*query.ids, *expected[:place]]])
    with torch.inference_mode():
        logits = generator.model(row, use_cache=False).logits[0, -1]
    best = logits.topk(2).values
    return float(best[0] - best[1]) < TIE


@dataclass
class Run:
    """A batch driven by a schedule of joins, leaves and steps."""

    generator: Generator
    max_rows: int = 4
    ids: dict = field(default_factory=dict)
    ended: set = field(default_factory=set)
    failed: dict = field(default_factory=dict)

    def __enter__(self):
        self._inference = torch.inference_mode()
        self._inference.__enter__()
        self._answering = self.generator.answering()
        forward = self._answering.__enter__()
        stop_ids = frozenset(self.generator.encoder.stop_ids)
        model = self.generator.model
        self.batch = ContinuousBatch(model, forward, stop_ids, max_rows=self.max_rows)
        return self

    def __exit__(self, *error):
        self._answering.__exit__(None, None, None)
        self._inference.__exit__(None, None, None)

    def add(self, query, settings=GREEDY, seed=0, key=None):
        request = Request(query, settings, seed, key)
        self.ids[request] = []
        self.batch.add(request)
        return request

    def step(self):
        for outcome in self.batch.step():
            request = outcome.request
            assert request not in self.ended, "nothing follows the last token"
            if isinstance(outcome, RequestFailed):
                self.failed[request] = outcome.error
                self.ended.add(request)
                continue
            assert isinstance(outcome, NewToken)
            self.ids[request].append(outcome.token)
            if outcome.is_last:
                self.ended.add(request)

    def cancel(self, request):
        self.batch.remove(request)
        self.ended.add(request)

    def finish(self):
        steps = 0
        while not self.batch.is_idle:
            self.step()
            steps += 1
            assert steps < 5000, "the batch never ends"


def require_alone(generator, request, actual, *, is_whole=True):
    expected = alone(generator, request.query, request.settings)
    for place, (one, other) in enumerate(zip(actual, expected, strict=False)):
        if one != other:
            assert is_tie(generator, request.query, expected, place), (actual, expected)
            return
    assert len(actual) == len(expected) if is_whole else len(actual) <= len(expected)


def play(generator, seed, num_actions, settings_of):
    """Requests join, leave and grow in a random order; return the run, and those cancelled."""
    draws, cancelled = random.Random(seed), set()
    with Run(generator) as run:
        for _ in range(num_actions):
            action = draws.random()
            live = [request for request in run.ids if request not in run.ended]
            if action < 0.3:
                key = draws.choice([None, None, "a", "b"])
                run.add(query_of(generator, draws), settings_of(draws), 0, key)
            elif action < 0.36 and live:
                chosen = draws.choice(live)
                run.cancel(chosen)
                cancelled.add(chosen)
            else:
                run.step()
        run.finish()
        assert not run.failed
    return run, cancelled


@settings(max_examples=3)
@given(seed=st.integers(0, 2**32), chunk=st.integers(1, 80))
def test_greedy_replies_in_any_schedule_are_those_given_alone(generator, seed, chunk):
    chunks = continuous_batch.CHUNK, request_rows.SeparateRows.chunk_beside
    continuous_batch.CHUNK, request_rows.SeparateRows.chunk_beside = 2 * chunk, chunk
    try:
        run, cancelled = play(
            generator, seed, 25, lambda draws: draws.choice([GREEDY, GREEDY, PENALISED])
        )
    finally:
        continuous_batch.CHUNK, request_rows.SeparateRows.chunk_beside = chunks
    assert run.ended == set(run.ids), "a request was lost"
    for request, ids in run.ids.items():
        if request.settings is GREEDY:
            require_alone(generator, request, ids, is_whole=request not in cancelled)


def test_families_whose_rows_can_be_computed_together_are(generator):
    with Run(generator) as run:
        assert (run.batch.max_rows > 1) == (generator.family != "Gemma 2")
        is_fast = generator.family in ("GPT-2", "Llama")
        assert isinstance(run.batch._rows, request_rows.SeparateRows) == is_fast


@pytest.mark.parametrize("sampling", [SAMPLED, WARM], ids=["nucleus", "penalised"])
def test_a_sampled_reply_depends_only_on_its_seed(generator, sampling):
    draws = random.Random(3)
    queries = [query_of(generator, draws) for _ in range(4)]
    with Run(generator) as run:
        requests = [run.add(query, sampling, seed) for seed, query in enumerate(queries)]
        run.add(query_of(generator, draws), GREEDY)
        run.step()
        requests += [run.add(query, sampling, seed) for seed, query in enumerate(queries)]
        run.finish()
    for number, request in enumerate(requests):
        seed = number % 4
        assert run.ids[request] == alone(generator, queries[seed], sampling, seed)


def test_settings_differ_by_row(fast):
    draws = random.Random(4)
    query = Query(tuple(ids_of(fast, draws, 20)), 12, 0)
    kinds = [GREEDY, PENALISED, SAMPLED, WARM]
    with Run(fast) as run:
        requests = [run.add(query, kind, 5) for kind in kinds]
        run.finish()
    for request, kind in zip(requests, kinds, strict=True):
        assert run.ids[request] == alone(fast, query, kind, 5)
    assert len({tuple(ids) for ids in run.ids.values()}) >= 3


# Reuse of prefixes


def test_a_reply_after_a_reused_prefix_is_the_one_given_alone(generator):
    """Several conversations continue after each reply, each with its own key; one is changed."""
    draws = random.Random(5)
    histories = {key: ids_of(generator, draws, 12) for key in "abc"}
    can_reuse = generator.family != "Gemma 2"
    with Run(generator) as run:
        for turn in range(4):
            requests = {}
            for key, ids in histories.items():
                if key == "c" and turn == 2:
                    ids[6:] = ids_of(generator, draws, 9)  # an edited turn
                requests[key] = run.add(Query(tuple(ids), 6, 0), GREEDY, 0, key)
            run.finish()
            for key, request in requests.items():
                require_alone(generator, request, run.ids[request])
                if can_reuse and turn:
                    edited = key == "c" and turn == 2
                    expected = 6 if edited else len(request.query.ids) - 4
                    assert request.num_reused == expected
                histories[key] += [*run.ids[request], *ids_of(generator, draws, 3)]


def test_nothing_is_reused_without_a_key_or_with_another_one(fast):
    query = Query(tuple(ids_of(fast, random.Random(6), 40)), 5, 0)
    with Run(fast) as run:
        requests = []
        for key in (None, None, "a", "b", "", "a"):
            requests.append(run.add(query, GREEDY, 0, key))
            run.finish()
    assert [request.num_reused for request in requests] == [0, 0, 0, 0, 0, 39]
    assert len({tuple(run.ids[request]) for request in requests}) == 1


def test_kept_prefixes_are_bounded_by_number_and_bytes(fast, monkeypatch):
    draws = random.Random(7)
    with Run(fast) as run:
        prefixes = run.batch._prefixes
        for number in range(40):
            run.add(query_of(fast, draws), GREEDY, 0, str(number))
            run.finish()
        assert len(prefixes) == kept_prefixes.MAX_PREFIXES
        most = prefixes.num_bytes // 2
        monkeypatch.setattr(prefixes, "_max_bytes", most)
        run.add(query_of(fast, draws), GREEDY, 0, "last")
        run.finish()
        assert 0 < prefixes.num_bytes <= most
        run.batch.clear()
        assert (len(prefixes), prefixes.num_bytes) == (0, 0)


# Failures


def test_only_the_request_at_fault_fails(generator, monkeypatch):
    """A pass that reads one of its ids fails, with others in the same pass."""
    draws = random.Random(8)
    queries = [query_of(generator, draws) for _ in range(4)]
    expected = [alone(generator, query, GREEDY) for query in queries]
    used = {token for ids in (*expected, *(query.ids for query in queries)) for token in ids}
    poison = next(token for token in ids_of(generator, draws, 200) if token not in used)
    beginning = [token for token in ids_of(generator, draws, 30) if token != poison]
    bad = Query((*beginning, poison), 5, 0)
    with Run(generator) as run:
        rows, plain = run.batch._rows, run.batch._rows.read

        def read(parts):
            if any(poison in ids for _, ids in parts):
                raise MemoryError
            return plain(parts)

        monkeypatch.setattr(rows, "read", read)
        first = [run.add(query) for query in queries[:2]]
        run.step()
        run.step()
        failing = run.add(bad)
        requests = [*first, *(run.add(query) for query in queries[2:])]
        run.finish()
    assert list(run.failed) == [failing]
    for request in requests:
        require_alone(generator, request, run.ids[request])


def test_scores_that_are_not_finite_fail_only_their_row(fast, monkeypatch):
    draws = random.Random(9)
    queries = [Query(tuple(ids_of(fast, draws, 20)), 10, 0) for _ in range(3)]
    with Run(fast) as run:
        rows, plain = run.batch._rows, run.batch._rows.read

        def read(parts):
            logits = plain(parts).clone()
            for place, (request, _) in enumerate(parts):
                if request is requests[1] and len(request.ids) >= at:
                    logits[place] = float("nan")
            return logits

        monkeypatch.setattr(rows, "read", read)
        for at in (0, 3):
            requests = [run.add(query, SAMPLED, 2) for query in queries]
            run.finish()
            assert list(run.failed) == [requests[1]]
            assert len(run.ids[requests[1]]) == at
            for number in (0, 2):
                assert run.ids[requests[number]] == alone(fast, queries[number], SAMPLED, 2)
            run.failed.clear()


# Bounds


@pytest.mark.parametrize("kind", [request_rows.SeparateRows, request_rows.JoinedRows])
@pytest.mark.parametrize("count", [100, pytest.param(3000, marks=pytest.mark.slow)])
def test_memory_stays_bounded_over_thousands_of_joins_and_leaves(fast, monkeypatch, kind, count):
    monkeypatch.setattr(continuous_batch, "rows_for", lambda forward: kind(forward.passes))
    draws = random.Random(10)
    most_slots = 0
    with Run(fast) as run:
        for _ in range(count):
            query = query_of(fast, draws, 20, 4)
            request = run.add(query, GREEDY, 0, draws.choice(["a", "b", None, None]))
            for _ in range(draws.randint(0, 3)):
                run.step()
            if draws.random() < 0.2 and request not in run.ended:
                run.cancel(request)
            most_slots = max(most_slots, held_slots(run.batch._rows))
        run.finish()
        assert run.ended == set(run.ids)
        assert held_slots(run.batch._rows) == 0
        # A row has 24 tokens; slots that became too few grew by 64 at least.
        assert 0 < most_slots <= 4 * (24 + 64)


def held_slots(rows):
    """Slots of keys and values in use."""
    if isinstance(rows, request_rows.SeparateRows):
        return sum(row.slots[0].shape[3] for row in rows._rows.values())
    apart = [sum(row.num_tokens) for row in rows._apart.values()]
    together = rows._batch.num_tokens if rows._batch is not None else []
    return sum(apart) + len(together) * max(together, default=0)


def test_rows_and_slots_limit_the_requests_that_are_read(fast, monkeypatch):
    draws = random.Random(11)
    with Run(fast, max_rows=3) as run:
        monkeypatch.setattr("convo_cli.model.decoding.continuous.slot_limit.MAX_SLOTS", 100)
        requests = [run.add(Query(tuple(ids_of(fast, draws, 30)), 10, 0)) for _ in range(5)]
        run.step()
        assert run.batch.num_waiting == 3  # two of 40 slots fit into 100
        monkeypatch.setattr("convo_cli.model.decoding.continuous.slot_limit.MAX_SLOTS", 1000)
        run.step()
        assert run.batch.num_waiting == 2  # three rows
        monkeypatch.setattr(
            "convo_cli.model.decoding.continuous.slot_limit.free_bytes", lambda device: 0
        )
        run.finish()  # without free memory, one after the other
        assert run.ended == set(requests)
