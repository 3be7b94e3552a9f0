"""kcenter against all distances, in float64."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolscore.engine.selection.caps import Caps
from poolscore.engine.selection.groups import Room
from poolscore.engine.selection.kcenter import Centres, kcenter


def room_of(N: int) -> Room:
    return Caps().room(pa.table({"place": np.arange(N)}))


def distances(x_NF: NDArray[np.float32], y_MF: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.linalg.norm(x_NF[:, None].astype(np.float64) - y_MF[None].astype(np.float64), axis=2)


def greedily(
    features: NDArray[np.float32], labelled: NDArray[np.float32], order: NDArray[np.int64], k: int, first: int
) -> tuple[list[int], list[float]]:
    places: list[int] = []
    gains: list[float] = []
    while len(places) < min(k, len(features)):
        centres = np.concatenate([labelled, features[places]])
        if not len(centres):
            place, gain = first, np.nan
        else:
            nearest = distances(features, centres).min(axis=1)
            rest = [x for x in range(len(features)) if x not in places]
            gain = max(nearest[x] for x in rest)
            place = min((x for x in rest if nearest[x] >= gain * (1 - 1e-9)), key=lambda x: order[x])
        places.append(place)
        gains.append(gain)
    return places, gains


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], int]:
    """Features on a grid: many are equal or equally far."""
    N, M, F = draw(st.integers(1, 40)), draw(st.integers(0, 5)), draw(st.integers(1, 3))
    numbers = np.array(draw(st.lists(st.integers(-3, 3), min_size=(N + M) * F, max_size=(N + M) * F)), np.float32)
    both = numbers.reshape(N + M, F) * np.float32(draw(st.sampled_from([1.0, 2.0**-20, 2.0**20])))
    return both[:N], both[N:], np.array(draw(st.permutations(range(N)))), draw(st.integers(0, 45))


@settings(max_examples=80, deadline=None)
@given(cases())
def test_it_is_the_greedy_algorithm_over_all_distances(
    case: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], int],
) -> None:
    features, labelled, order, k = case
    first = len(features) // 2
    found = kcenter(
        features, features.mean(axis=0, dtype=np.float64), labelled, order, k, room_of(len(features)), [first]
    )
    places, gains = greedily(features, labelled, order, k, first)
    assert found.places.tolist() == places
    assert found.gains == pytest.approx(gains, rel=1e-6, abs=1e-5 * float(np.abs(features).max()), nan_ok=True)


def test_few_distances_are_computed_and_the_batch_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (3000, 4)).astype(np.float32)
    looked: list[int] = []
    look = Centres.look

    def counted(centres: Centres, places: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        looked.append(len(places))
        return look(centres, places)

    monkeypatch.setattr(Centres, "look", counted)
    found = kcenter(features, np.zeros(4), features[:0], np.arange(3000), 40, room_of(3000), [7])
    places, gains = greedily(features, features[:0], np.arange(3000), 40, 7)
    assert found.places.tolist() == places
    assert found.gains == pytest.approx(gains, rel=1e-6, nan_ok=True)
    assert sum(looked) < 3000 + 39 * 600


def test_far_from_the_origin_distances_keep_their_digits() -> None:
    random = np.random.default_rng(1)
    features = (2**23 + random.integers(0, 4, (60, 500))).astype(np.float32)
    middle = features.mean(axis=0, dtype=np.float64)
    found = kcenter(features, middle, features[:2], np.arange(60), 10, room_of(60), [])
    assert found.places.tolist() == greedily(features, features[:2], np.arange(60), 10, 0)[0]


def test_many_labelled_rows_are_compared_with_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolscore.engine.selection.kcenter.CENTRES", 7)
    random = np.random.default_rng(2)
    features, labelled = (random.normal(0, 1, (n, 3)).astype(np.float32) for n in (50, 30))
    found = kcenter(features, np.zeros(3), labelled, np.arange(50), 12, room_of(50), [0])
    assert found.places.tolist() == greedily(features, labelled, np.arange(50), 12, 0)[0]


def test_the_order_of_candidates_is_of_no_account() -> None:
    random = np.random.default_rng(3)
    features = np.repeat(random.normal(0, 1, (30, 5)), 2, axis=0).astype(np.float32)
    order, shuffled = random.permutation(60), random.permutation(60)
    one = kcenter(features, np.zeros(5), features[:0], order, 35, room_of(60), [0])
    first = int(np.flatnonzero(shuffled == 0)[0])
    other = kcenter(features[shuffled], np.zeros(5), features[:0], order[shuffled], 35, room_of(60), [first])
    assert order[shuffled][other.places].tolist() == order[one.places].tolist()


def test_caps_are_kept_and_what_is_no_number_is_left() -> None:
    features = np.arange(10, dtype=np.float32)[:, None] ** 2
    features[9] = np.nan
    groups = pa.table({"camera": ["a", "b"] * 5})
    found = kcenter(features, np.zeros(1), features[:1], np.arange(10), 5, Caps({"camera": 1}).room(groups), [])
    assert found.places.tolist() == [8, 5]
    assert found.gains.tolist() == [64, 25]
    assert len(kcenter(features, np.zeros(1), features[:1], np.arange(10), 20, room_of(10), []).places) == 9


@pytest.mark.parametrize(("best", "expected"), [([0, 2], 2), ([], 1)])
def test_what_is_no_number_does_not_begin(best: list[int], expected: int) -> None:
    features = np.array([[np.nan], [0], [1], [5], [np.inf]], np.float32)
    found = kcenter(features, np.zeros(1), features[:0], np.arange(5), 5, room_of(5), best)
    assert found.places[0] == expected
    assert sorted(found.places.tolist()) == [1, 2, 3]
    labelled = kcenter(features, np.zeros(1), features[:2], np.arange(5), 1, room_of(5), best)
    assert labelled.places.tolist() == [3]
