"""Poison rows are found, whichever they are and whatever else goes wrong; clean rows are never blamed."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from poolscore.engine.pool.plan import Piece, Shard
from poolscore.engine.run.bisect import MOST_DEATHS, MOST_ROWS, READING, Bisection, Bisections, Verdict
from poolscore.engine.run.leases import GAP, HUNG_UNKNOWN, Leases
from poolscore.engine.run.task import ScoreShard, TryReading, TryRows

ATTEMPTS = 3
SHARD = Shard(7, 1000, 50, (Piece("a", 0, 0, 0, 20, 1000), Piece("b", 0, 5, 5, 30, 1040)))  # with a gap of 20 row_ids


@st.composite
def shards(draw: st.DrawFn) -> tuple[int, set[int]]:
    """Rows, and which of them are poison."""
    rows = draw(st.integers(1, 5000))
    return rows, draw(st.sets(st.integers(0, rows - 1), max_size=MOST_ROWS))


def search(rows: int, poison: set[int], seed: int, chance: float = 0.0, most: int = MOST_ROWS) -> tuple[Bisection, int]:
    """Bisect, with the trials done in any order, put back at times, and failing by chance; how many did fail?"""
    luck = random.Random(seed)
    bisection = Bisection(rows, ATTEMPTS, most)
    at_work: list[range] = []
    by_chance: Counter[range] = Counter()
    failed = 0
    while not bisection.done:
        while bisection.waiting and (not at_work or luck.random() < 0.7):
            at_work.append(bisection.next())
        tried = at_work.pop(luck.randrange(len(at_work)))
        if luck.random() < 0.1:
            bisection.put_back(tried)
        elif poison.intersection(tried):
            failed += 1
            bisection.failed(tried, "boom", died=luck.random() < 0.2)
        elif by_chance[tried] < ATTEMPTS - 1 and luck.random() < chance:
            by_chance[tried] += 1
            bisection.failed(tried, "preempted", died=False)
        else:
            bisection.lived(tried)
    return bisection, failed


@given(shards(), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_any_set_of_poison_rows_is_found_and_no_other(shard: tuple[int, set[int]], seed: int) -> None:
    rows, poison = shard
    bisection, failed = search(rows, poison, seed)
    assert bisection.given_up is None
    assert bisection.poison.keys() == poison
    assert {why for _, why in bisection.poison.values()} <= {"boom"}
    assert failed <= len(poison) * (4 + ATTEMPTS)  # 16 ** 4 rows and more


@given(shards(), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_trials_that_fail_by_chance_cost_no_row(shard: tuple[int, set[int]], seed: int) -> None:
    rows, poison = shard
    bisection, _ = search(rows, set(list(poison)[:4]), seed, chance=0.02)
    assert bisection.given_up is None
    assert bisection.poison.keys() == set(list(poison)[:4])


@given(st.integers(MOST_ROWS + 1, 5000), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_too_many_poison_rows_are_given_up_soon(rows: int, seed: int) -> None:
    bisection, failed = search(rows, set(range(rows)), seed)
    assert bisection.given_up == "more than 32 of its rows do that"
    assert failed <= 4 * MOST_ROWS
    assert not bisection.waiting
    few, _ = search(rows, set(range(5)), seed, most=4)
    assert few.given_up is not None


def test_a_shard_that_cannot_even_be_read_is_given_up_at_once() -> None:
    bisection = Bisection(1000, ATTEMPTS)
    for _ in range(ATTEMPTS):
        assert not bisection.done
        assert bisection.next() == READING
        bisection.failed(READING, "boom", died=True)
    assert bisection.given_up == "the same happens where it is only read, and no row of it decoded"


def test_reading_that_failed_by_chance_is_tried_again() -> None:
    bisection = Bisection(1, ATTEMPTS)
    bisection.next()
    bisection.failed(READING, "preempted", died=True)
    bisection.lived(bisection.next())
    assert bisection.next() == range(1)
    bisection.lived(range(1))
    assert bisection.done
    assert (bisection.poison, bisection.given_up) == ({}, None)


def test_rows_that_live_in_the_end_do_not_count() -> None:
    bisection = Bisection(16, ATTEMPTS, most=1)
    bisection.lived(bisection.next())
    failures: Counter[range] = Counter()
    while not bisection.done:
        tried = bisection.next()
        while failures[tried] < ATTEMPTS - 1:  # one row after another
            failures[tried] += 1
            bisection.failed(tried, "preempted", died=True)
            bisection.waiting.remove(tried)
            bisection.in_flight += 1
        bisection.lived(tried)
    assert (bisection.poison, bisection.given_up) == ({}, None)


def test_a_search_may_cost_so_many_workers_and_no_more() -> None:
    bisection = Bisection(16**5, ATTEMPTS)
    bisection.lived(bisection.next())
    deaths = 0
    poison = {i * 40_000 for i in range(25)}
    while not bisection.done:
        tried = bisection.next()
        if poison.intersection(tried):
            deaths += 1
            bisection.failed(tried, "boom", died=True)
        else:
            bisection.lived(tried)
    assert deaths == MOST_DEATHS + 1
    assert bisection.given_up == "looking for the rows that do that cost 101 workers"


def test_parts_of_a_shard_hold_its_rows() -> None:
    assert SHARD.part(0, 50).pieces == SHARD.pieces
    assert SHARD.part(18, 23) == Shard(7, 1018, 5, (Piece("a", 0, 18, 18, 2, 1018), Piece("b", 0, 5, 5, 3, 1040)))
    assert SHARD.part(20, 21).row_id == 1040


def find(bisections: Bisections, poison: set[int]) -> Verdict | None:
    """Try all that waits."""
    verdict = None
    while task := bisections.next(beside_others=False):
        assert verdict is None
        bad = isinstance(task, TryRows) and poison.intersection(range(task.start, task.stop))
        verdict = bisections.failed(task, "boom", died=True) if bad else bisections.lived(task)
    return verdict


def test_a_shard_is_scored_again_without_the_poison_that_was_found() -> None:
    bisections = Bisections(ATTEMPTS)
    assert bisections.scoring(SHARD) == ScoreShard(SHARD)
    bisections.begin(SHARD)
    assert 7 in bisections
    assert find(bisections, {3, 20, 49}) == Verdict(SHARD, None)
    assert 7 not in bisections
    why = ("worker", "boom")
    assert bisections.scoring(SHARD) == ScoreShard(SHARD, {1003: why, 1040: why, 1069: why})
    bisections.begin(SHARD)  # it fails still
    assert isinstance(bisections.next(beside_others=True), TryReading)
    bisections.put_back(TryReading(SHARD))
    assert find(bisections, {4}) == Verdict(SHARD, None)
    assert bisections.scoring(SHARD).blank.keys() == {1003, 1004, 1040, 1069}


def test_a_shard_in_which_no_poison_is_found_has_a_second_chance_and_no_third() -> None:
    bisections = Bisections(ATTEMPTS)
    bisections.begin(SHARD)
    assert find(bisections, set()) == Verdict(SHARD, None)
    bisections.begin(SHARD)
    assert find(bisections, set()) == Verdict(SHARD, "no row of it does that by itself")


def test_trials_beside_shards_that_wait_come_one_at_a_time() -> None:
    bisections = Bisections(ATTEMPTS)
    other = Shard(8, 2000, 50, (Piece("c", 0, 0, 0, 50, 2000),))
    bisections.begin(SHARD)
    bisections.begin(other)
    first = bisections.next(beside_others=True)
    assert first == TryReading(SHARD)
    assert bisections.next(beside_others=True) is None
    assert bisections.waiting
    assert bisections.next(beside_others=False) == TryReading(other)
    assert bisections.lived(first) is None
    bisections.drop(8)
    assert bisections.lived(TryReading(other)) is None  # late
    assert len([bisections.next(beside_others=False) for _ in range(16)]) == 16
    assert bisections.next(beside_others=False) is None


def test_a_row_that_hangs_is_given_no_more_time_with_each_trial() -> None:
    now = 0.0
    leases = Leases(clock=lambda: now)
    waited = []
    for worker, task in enumerate([ScoreShard(SHARD), ScoreShard(SHARD), *[TryRows(SHARD, 3, 4) for _ in range(3)]]):
        began = now
        leases.give(worker, task)
        while not leases.hung():
            now += GAP
        waited.append((now - began) // HUNG_UNKNOWN)
        leases.lose(worker)
    assert waited == [1, 2, 1, 1, 1]
