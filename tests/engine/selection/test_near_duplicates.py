"""Clusters and rate of near-duplicates equal their definitions, in any number of blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from poolscore.engine.selection import near_duplicates
from poolscore.engine.selection.near_duplicates import ALIKE, clusters, cosines, near_duplicate_rate


def _cosine_NN(features_NF: NDArray[np.floating], centre_F: NDArray[np.floating]) -> NDArray[np.float64]:
    centred = features_NF.astype(np.float64) - centre_F
    lengths = np.linalg.norm(centred, axis=1)
    cosine = centred @ centred.T / np.maximum(np.outer(lengths, lengths), 1e-300)
    both: NDArray[np.bool_] = (lengths == 0)[:, None] & (lengths == 0)
    return np.where(both, 1.0, cosine)


def _clusters(cosine_NN: NDArray[np.float64], alike: float) -> list[int]:
    """The definition, row by row."""
    leaders: list[int] = []
    found = []
    for row in range(len(cosine_NN)):
        leader = next((leader for leader in leaders if cosine_NN[row, leader] >= alike), row)
        if leader == row:
            leaders.append(row)
        found.append(leader)
    return found


def _alike_rows(rows: int, features: int, of: int, seed: int) -> NDArray[np.float32]:
    """Rows about `of` directions, some nearer to them and some farther; a few at the centre."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(of, features))
    noise = rng.normal(size=(rows, features)) * rng.uniform(0, 0.5, size=(rows, 1))
    made = (middles[rng.integers(0, of, rows)] + noise) * rng.uniform(0.1, 10, size=(rows, 1)) + 5
    made[rng.choice(rows, 5, replace=False)] = 5
    return made.astype(np.float32)


@pytest.mark.parametrize("block", [5, 64, 2048])
def test_they_equal_their_definitions(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    for seed, of in enumerate((3, 40, 150)):
        features, centre = _alike_rows(300, 16, of, seed), np.full(16, 5.0)
        cosine = _cosine_NN(features, centre)
        expected = _clusters(cosine, ALIKE)
        assert clusters(features, centre).tolist() == expected
        assert 3 < len(set(expected)) < 300  # so there was something to tell apart
        assert near_duplicate_rate(features, centre) == np.tril(cosine >= ALIKE, k=-1).any(axis=1).mean()
        assert cosines(features, centre, 7) == pytest.approx(cosine[7], abs=1e-6)


def test_no_order_of_adding_up_decides() -> None:
    """Pairs whose cosine lies within a few roundings of the bound: the order of their features is moot."""
    rng = np.random.default_rng(0)
    angles = np.arccos(ALIKE) + np.linspace(-5e-7, 5e-7, 201)
    plane = np.linalg.qr(rng.normal(size=(512, 2)))[0].T  # the pairs lie in it
    found = []
    for angle in angles:
        pair = np.stack([plane[0], np.cos(angle) * plane[0] + np.sin(angle) * plane[1]])
        orders = [np.arange(512), *(rng.permutation(512) for _ in range(5))]
        answers = {int(clusters(pair[:, order], np.zeros(512))[1]) for order in orders}
        assert len(answers) == 1
        found += answers
    assert {0, 1} <= set(found)


def test_rows_without_a_direction() -> None:
    features = np.ones((6, 3), np.float32)
    features[1], features[4] = np.nan, np.inf
    assert clusters(features, np.ones(3)).tolist() == [0, 1, 0, 0, 4, 0]  # at the centre: alike; not finite: like none
    assert near_duplicate_rate(features, np.ones(3)) == 0.5
    assert clusters(features[:0], np.ones(3)).tolist() == []
    assert math.isnan(near_duplicate_rate(features[:1], np.ones(3)))


def test_leaders_are_no_near_duplicates() -> None:
    features, centre = _alike_rows(500, 8, 60, 3), np.full(8, 5.0)
    leaders = np.unique(clusters(features, centre))
    assert near_duplicate_rate(features[leaders], centre) == 0 < near_duplicate_rate(features, centre)
