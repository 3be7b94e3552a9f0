"""badge against gradients that are written out, and the probabilities of k-means++."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from poolscore.engine.keys import keys_of
from poolscore.engine.selection.badge import STREAM, badge, of_classes, of_labels
from poolscore.engine.selection.caps import Caps
from poolscore.engine.selection.groups import Room
from poolscore.kernels.gumbel import gumbel_of


def room_of(N: int) -> Room:
    return Caps().room(pa.table({"place": np.arange(N)}))


def some(N: int, C: int, F: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return random.dirichlet(np.ones(C), N), random.normal(0, 1, (N, F)).astype(np.float32)


def embedded(factors: NDArray[np.float64], features: NDArray[np.float32]) -> NDArray[np.float64]:
    """The gradients, in full."""
    return np.einsum("nc,nf->ncf", factors, features.astype(np.float64)).reshape(len(factors), -1)


def keys(N: int) -> NDArray[np.uint64]:
    return keys_of([str(i) for i in range(N)])


def test_factors_are_p_without_the_predicted_class() -> None:
    probs = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]])
    assert of_classes(probs) == pytest.approx(np.array([[0.2, -0.5, 0.3], [-0.6, 0.2, 0.4]]))
    assert of_labels(np.array([[0.9, 0.1], [0.3, 0.7]])) == pytest.approx(np.array([[-0.1, 0.1], [0.3, -0.3]]))


def test_gains_are_distances_of_the_gradients() -> None:
    probs, features = some(200, 5, 7)
    factors = of_classes(probs)
    found = badge(factors, features, keys(200), np.arange(200), 30, room_of(200), seed=1)
    gradients = embedded(factors, features)
    lengths = np.linalg.norm(gradients, axis=1)
    assert found.places[0] == lengths.argmax()
    assert found.gains[0] == pytest.approx(lengths.max())
    for step in range(1, 30):
        before = gradients[found.places[:step]]
        nearest = np.linalg.norm(before - gradients[found.places[step]], axis=1).min()
        assert found.gains[step] == pytest.approx(nearest, rel=1e-9)
    assert len(set(found.places.tolist())) == 30


def test_each_row_is_the_one_that_its_noise_and_distance_make_the_first() -> None:
    probs, features = some(300, 5, 7, seed=6)
    features *= np.exp(np.random.default_rng(7).normal(0, 3, (300, 1))).astype(np.float32)
    factors = of_classes(probs)
    found = badge(factors, features, keys(300), np.arange(300), 40, room_of(300), seed=1)
    gradients = embedded(factors, features)
    seeds = np.random.Philox(key=1 | STREAM << 64).random_raw(40).tolist()
    for step in range(1, 40):
        before = found.places[:step]
        squares = ((gradients[:, None] - gradients[before]) ** 2).sum(axis=2).min(axis=1)
        squares[before] = 1e-300
        assert (np.log(squares) + gumbel_of(keys(300), seeds[step])).argmax() == found.places[step]


def test_rows_are_drawn_as_by_k_means_plus_plus() -> None:
    probs, features = some(6, 3, 2, seed=4)
    factors = of_classes(probs)
    gradients, draws = embedded(factors, features), 4000
    squares = ((gradients[:, None] - gradients) ** 2).sum(axis=2)
    first = int((gradients**2).sum(axis=1).argmax())
    expected: dict[tuple[int, int], float] = {}
    second_weights = squares[:, first]
    for second in range(6):
        nearest = np.minimum(squares[:, first], squares[:, second])
        for third in range(6):
            if len({first, second, third}) == 3:
                p = second_weights[second] / second_weights.sum() * nearest[third] / nearest.sum()
                expected[second, third] = draws * p
    found: Counter[tuple[int, int]] = Counter()
    for seed in range(draws):
        batch = badge(factors, features, keys(6), np.arange(6), 3, room_of(6), seed=seed)
        assert batch.places[0] == first
        found[int(batch.places[1]), int(batch.places[2])] += 1
    rare = [pair for pair, count in expected.items() if count < 5]
    often = [pair for pair in expected if pair not in rare]
    chi_square = sum((found[pair] - expected[pair]) ** 2 / expected[pair] for pair in often)
    assert len(often) == 20 - len(rare) >= 12
    assert chi_square < 43.8  # of 19 degrees of freedom: once in 1,000 times; the seeds are fixed


def test_neither_the_order_of_candidates_nor_the_others_count() -> None:
    probs, features = some(100, 4, 6, seed=2)
    factors, order = of_classes(probs), np.random.default_rng(3).permutation(100)
    one = badge(factors, features, keys(100), order, 20, room_of(100), seed=9)
    shuffled = np.random.default_rng(4).permutation(100)
    other = badge(factors[shuffled], features[shuffled], keys(100)[shuffled], order[shuffled], 20, room_of(100), seed=9)
    assert shuffled[other.places].tolist() == one.places.tolist()
    assert badge(factors, features, keys(100), order, 20, room_of(100), seed=8).places.tolist() != one.places.tolist()


def test_copies_are_taken_last() -> None:
    probs, features = some(5, 30, 700)
    factors, features = np.repeat(of_classes(probs), 3, axis=0), np.repeat(features, 3, axis=0)
    order = np.arange(15)[::-1].copy()
    found = badge(factors, features, keys(15), order, 15, room_of(15), seed=0)
    assert sorted((found.places[:5] // 3).tolist()) == [0, 1, 2, 3, 4]
    assert not found.gains[5:].any()
    assert found.places[5:].tolist() == sorted(set(range(15)) - set(found.places[:5].tolist()), reverse=True)


def test_caps_are_kept_and_what_is_no_number_is_left() -> None:
    probs, features = some(12, 3, 4)
    features[3, 1] = np.nan
    groups = pa.table({"camera": [i % 4 for i in range(12)]})
    capped = badge(of_classes(probs), features, keys(12), np.arange(12), 12, Caps({"camera": 1}).room(groups), seed=0)
    assert sorted((capped.places % 4).tolist()) == [0, 1, 2, 3]
    free = badge(of_classes(probs), features, keys(12), np.arange(12), 12, room_of(12), seed=0)
    assert len(free.places) == 11
    assert 3 not in free.places
