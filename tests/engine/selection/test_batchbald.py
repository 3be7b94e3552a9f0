"""batchbald against joint entropies that are added up over all labels of all rows, in float64."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolscore.engine.selection import batchbald as module
from poolscore.engine.selection.batchbald import (
    ENOUGH,
    TIE,
    Outcomes,
    all_outcomes,
    batchbald,
    drawn_outcomes,
    gains_of,
    probs_of,
    with_drawn_label,
)
from poolscore.engine.selection.caps import Caps
from poolscore.engine.selection.groups import Room


def room_of(N: int) -> Room:
    return Caps().room(pa.table({"place": np.arange(N)}))


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def some_log_probs(N: int, T: int, C: int, seed: int = 0, spread: float = 1.5) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    strength = random.uniform(0.1, 1, (N, 1, 1))
    return log_softmax(random.normal(0, 1.5, (N, 1, C)) + spread * strength * random.normal(0, 1, (N, T, C)))


def information(probs_mTC: NDArray[np.float64]) -> float:
    """I(y_1..y_m; w) from the definition."""
    m, T, C = probs_mTC.shape
    joint = 0.0
    for labels in product(range(C), repeat=m):
        p = math.fsum(math.prod(probs_mTC[i, t, label] for i, label in enumerate(labels)) for t in range(T)) / T
        joint -= p * math.log(p) if p > 0 else 0.0
    conditional = -math.fsum(p * math.log(p) for p in probs_mTC.ravel().tolist() if p > 0) / T
    return joint - conditional


def greedily(probs_NTC: NDArray[np.float64], order_N: NDArray[np.int64], k: int) -> tuple[list[int], list[float]]:
    """Every candidate is looked at in every step."""
    T = probs_NTC.shape[1]
    places: list[int] = []
    gains: list[float] = []
    while len(places) < min(k, len(probs_NTC)) and sum(gains) < ENOUGH * math.log(T):
        rest = [x for x in range(len(probs_NTC)) if x not in places]
        told = {x: information(probs_NTC[[*places, x]]) - sum(gains) for x in rest}
        best = max(told.values())
        if best <= TIE:
            break
        place = min((x for x in rest if told[x] >= best - TIE), key=lambda x: order_N[x])
        places.append(place)
        gains.append(told[place])
    return places, gains


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Candidates, many of them alike or certain, in any order of keys."""
    C, T = draw(st.integers(2, 3)), draw(st.integers(2, 5))
    kinds, N = draw(st.integers(1, 6)), draw(st.integers(1, 22))
    logits = np.array(draw(st.lists(st.integers(-3, 3), min_size=kinds * T * C, max_size=kinds * T * C)), float)
    log_probs = log_softmax(logits.reshape(kinds, T, C) * draw(st.sampled_from([0.3, 1.0, 400.0])))
    which = draw(st.lists(st.integers(0, kinds - 1), min_size=N, max_size=N))
    order = np.array(draw(st.permutations(range(N))))
    return log_probs[which], order, draw(st.integers(0, 4))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_it_is_the_full_greedy_algorithm_with_exact_entropies(
    case: tuple[NDArray[np.float64], NDArray[np.int64], int],
) -> None:
    log_probs, order, k = case
    found = batchbald(log_probs, order, k, room_of(len(log_probs)), samples=10, seed=0)
    places, gains = greedily(probs_of(log_probs), order, k)
    assert found.places.tolist() == places
    assert found.gains == pytest.approx(gains, abs=1e-9)
    assert found.exact == len(places)


def test_few_candidates_are_looked_at_and_the_batch_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs = some_log_probs(600, 8, 3)
    order = np.arange(600)
    looked = []

    def counted(outcomes: Outcomes, probs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        looked.append(len(probs))
        return gains_of(outcomes, probs)

    monkeypatch.setattr(module, "gains_of", counted)
    lazy = batchbald(log_probs, order, 6, room_of(600), samples=10, seed=0)
    assert sum(looked) < 600 + 5 * 300

    outcomes, places = Outcomes(np.ones(1), np.full((1, 8), 1 / 8)), []
    for gain in lazy.gains:
        all_gains, errors = gains_of(outcomes, probs_of(log_probs))
        all_gains[places] = -1
        assert not errors.any()
        assert all_gains.max() == pytest.approx(gain, abs=1e-12)
        places.append(int(all_gains.argmax()))
        outcomes = all_outcomes(outcomes, probs_of(log_probs[places[-1:]])[0])
    assert lazy.places.tolist() == places


def test_gains_add_up_to_the_information_of_the_batch() -> None:
    log_probs = some_log_probs(12, 6, 3)
    found = batchbald(log_probs, np.arange(12), 4, room_of(12), samples=10, seed=0)
    assert found.gains.sum() == pytest.approx(information(probs_of(log_probs[found.places])), abs=1e-12)
    assert (np.diff(found.gains) <= 1e-12).all()


def test_float32_is_enough() -> None:
    log_probs = some_log_probs(40, 10, 4)
    exact = batchbald(log_probs, np.arange(40), 4, room_of(40), samples=10, seed=0)
    single = batchbald(log_probs.astype(np.float32), np.arange(40), 4, room_of(40), samples=10, seed=0)
    assert single.places.tolist() == exact.places.tolist()
    assert single.gains == pytest.approx(exact.gains, abs=1e-6)


def test_labels_are_drawn_from_their_joint_distribution() -> None:
    probs = probs_of(some_log_probs(3, 4, 2, seed=3))
    drawn = drawn_outcomes(probs, samples=40_000, seed=5)
    assert drawn.weights.sum() == pytest.approx(1)
    exact = Outcomes(np.ones(1), np.full((1, 4), 1 / 4))
    for each in probs:
        exact = all_outcomes(exact, each)
    # Which outcome was drawn can be told by what it says of the passes.
    distance = np.abs(drawn.posterior[:, None] - exact.posterior).max(axis=2)
    assert distance.min(axis=1).max() < 1e-12
    counts = np.bincount(distance.argmin(axis=1), minlength=8)
    expected = 40_000 * exact.weights
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # of 7 degrees of freedom: once in 1,000 times


def test_drawn_gains_are_the_exact_ones_within_their_errors() -> None:
    log_probs = some_log_probs(30, 10, 3, seed=1)
    exact = Outcomes(np.ones(1), np.full((1, 10), 1 / 10))
    for place in range(4):
        exact = all_outcomes(exact, probs_of(log_probs[place : place + 1])[0])
    truth, _ = gains_of(exact, probs_of(log_probs))
    deviations = []
    for seed in range(20):
        drawn = drawn_outcomes(probs_of(log_probs[:4]), samples=1000, seed=seed)
        gains, errors = gains_of(drawn, probs_of(log_probs))
        deviations.append((gains - truth) / errors)
        assert np.abs(deviations[-1]).max() < 5
        assert gains.min() >= -1e-12
    assert np.abs(np.mean(deviations, axis=0)).max() < 5 / math.sqrt(20)  # no bias
    assert 0.4 < np.std(deviations) < 1.2  # as many under each pass is better than at random


def test_bounds_of_drawn_gains_hold_for_later_steps() -> None:
    log_probs = some_log_probs(30, 10, 3, seed=1)
    drawn = drawn_outcomes(probs_of(log_probs[:3]), samples=500, seed=0)
    gains, bounds = module._look(drawn, log_probs, np.arange(30))
    _, errors = gains_of(drawn, probs_of(log_probs))
    assert errors.min() > 0
    assert bounds == pytest.approx(gains + 5 * errors)


def test_a_label_is_added_to_the_outcomes_drawn_before() -> None:
    probs = probs_of(some_log_probs(4, 5, 3))
    longer = with_drawn_label(drawn_outcomes(probs[:3], 100, seed=9), probs[3], step=3, seed=9)
    assert longer.posterior.tolist() == drawn_outcomes(probs, 100, seed=9).posterior.tolist()
    assert longer.posterior.tolist() != drawn_outcomes(probs, 100, seed=8).posterior.tolist()


def test_hundreds_of_labels_do_not_underflow() -> None:
    outcomes = drawn_outcomes(probs_of(some_log_probs(800, 4, 5, spread=1)), samples=40, seed=0)
    assert outcomes.posterior.sum(axis=1) == pytest.approx(1)
    assert outcomes.posterior.argmax(axis=1).tolist() == np.repeat(range(4), 10).tolist()  # that they were drawn under


def test_a_large_batch_draws_one_label_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs = some_log_probs(2000, 20, 10, spread=0.1)
    drawn = []

    def counted(outcomes: Outcomes, probs_TC: NDArray[np.float64], step: int, seed: int) -> Outcomes:
        drawn.append(step)
        return with_drawn_label(outcomes, probs_TC, step, seed)

    monkeypatch.setattr(module, "with_drawn_label", counted)
    found = batchbald(log_probs, np.arange(2000), 200, room_of(2000), samples=1000, seed=0)
    assert (len(found.places), found.exact) == (200, 5)
    assert drawn == list(range(200))

    # The gains are judged by outcomes that had no part in the choice of the rows.
    probs, told, deviations = probs_of(log_probs[found.places]), 0.0, []
    judge = drawn_outcomes(probs[:5], samples=4000, seed=1)
    for step in range(5, 200):
        gains, errors = gains_of(judge, probs[step : step + 1])
        told += gains[0]
        # A fourth of the outcomes has twice the error.
        deviations.append((found.gains[step] - gains[0]) / (errors[0] * math.sqrt(1 + 4)))
        judge = with_drawn_label(judge, probs[step], step, seed=1)
    assert np.abs(deviations).max() < 5
    assert found.gains[5:].sum() == pytest.approx(told, rel=0.02)


def test_no_noise_is_added_where_nothing_is_left_to_learn() -> None:
    certain = np.log(np.array([[[1 - 1e-15, 1e-15], [1e-15, 1 - 1e-15]]]))  # its label tells which pass is right
    gains, errors = gains_of(drawn_outcomes(probs_of(certain), 100, 0), probs_of(some_log_probs(20, 2, 2)))
    assert np.abs(gains).max() < 1e-12
    assert errors.max() < 1e-9


def test_the_batch_by_drawn_outcomes_is_worth_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs = some_log_probs(100, 30, 3, seed=2)
    exact = batchbald(log_probs, np.arange(100), 5, room_of(100), samples=10, seed=0)
    monkeypatch.setattr(module, "EXACT_BYTES", 0)
    drawn = batchbald(log_probs, np.arange(100), 5, room_of(100), samples=3000, seed=0)
    assert (exact.exact, drawn.exact) == (5, 1)
    assert drawn.gains.sum() == pytest.approx(information(probs_of(log_probs[drawn.places])), abs=0.03)
    assert information(probs_of(log_probs[drawn.places])) > 0.99 * exact.gains.sum()
    again = batchbald(log_probs, np.arange(100), 5, room_of(100), samples=3000, seed=0)
    other = batchbald(log_probs, np.arange(100), 5, room_of(100), samples=3000, seed=1)
    assert again.gains.tolist() == drawn.gains.tolist()
    assert other.gains.tolist() != drawn.gains.tolist()


@pytest.mark.parametrize("exact_bytes", [0, 1 << 20])
def test_the_order_of_candidates_is_of_no_account(monkeypatch: pytest.MonkeyPatch, exact_bytes: int) -> None:
    monkeypatch.setattr(module, "EXACT_BYTES", exact_bytes)
    log_probs = np.repeat(some_log_probs(20, 8, 3), 3, axis=0)  # each three times
    order = np.random.default_rng(0).permutation(60)
    straight = batchbald(log_probs, order, 6, room_of(60), samples=500, seed=0)
    shuffled = np.random.default_rng(1).permutation(60)
    other = batchbald(log_probs[shuffled], order[shuffled], 6, room_of(60), samples=500, seed=0)
    assert order[shuffled][other.places].tolist() == order[straight.places].tolist()
    assert other.gains == pytest.approx(straight.gains, abs=1e-12)


def test_it_stops_where_little_is_left_to_learn() -> None:
    log_probs = some_log_probs(200, 3, 4, spread=4)
    found = batchbald(log_probs, np.arange(200), 50, room_of(200), samples=1000, seed=0)
    assert found.full
    assert len(found.places) < 20
    assert ENOUGH * math.log(3) <= found.gains.sum() < math.log(3) + 0.01
    assert found.gains[:-1].sum() < ENOUGH * math.log(3)


def test_nothing_is_taken_that_tells_nothing() -> None:
    log_probs = np.repeat(some_log_probs(5, 1, 3), 4, axis=1)  # passes that agree
    found = batchbald(log_probs, np.arange(5), 3, room_of(5), samples=10, seed=0)
    assert (found.places.tolist(), found.full) == ([], True)


def test_one_that_is_no_number_is_never_taken() -> None:
    log_probs = some_log_probs(5, 4, 3)
    log_probs[2, 1, 0] = np.nan
    found = batchbald(log_probs, np.arange(5), 5, room_of(5), samples=10, seed=0)
    assert sorted(found.places.tolist()) == [0, 1, 3, 4]
    assert np.isfinite(found.gains).all()
    assert not found.full


def test_caps_are_kept_at_every_step() -> None:
    log_probs = some_log_probs(30, 12, 3)
    groups = pa.table({"camera": [i % 3 for i in range(30)]})
    found = batchbald(log_probs, np.arange(30), 5, Caps({"camera": 1}).room(groups), samples=10, seed=0)
    assert sorted((found.places % 3).tolist()) == [0, 1, 2]
    assert not found.full
    free = batchbald(log_probs, np.arange(30), 3, room_of(30), samples=10, seed=0)
    assert found.places[0] == free.places[0]


def test_many_outcomes_are_looked_at_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs = some_log_probs(25, 6, 3)
    whole = batchbald(log_probs, np.arange(25), 4, room_of(25), samples=10, seed=0)
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    monkeypatch.setattr(module, "PROBS_BYTES", 1)
    assert batchbald(log_probs, np.arange(25), 4, room_of(25), samples=10, seed=0).places.tolist() == (
        whole.places.tolist()
    )
