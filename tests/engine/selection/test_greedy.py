from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolscore.engine.selection.greedy import best_open

NUMBERS = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 0.5, 2.0, np.nan])


@settings(deadline=None)
@given(st.lists(st.tuples(NUMBERS, st.floats(0, 1), st.booleans()), max_size=60), st.integers(1, 70))
def test_it_finds_what_looking_at_all_would_find(rows: list[tuple[float, float, bool]], largest_block: int) -> None:
    values = np.array([value for value, _, _ in rows], float)
    bounds = values + np.array([more for _, more, _ in rows], float)
    open_N = np.array([is_open for _, _, is_open in rows], bool)
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    asked: list[int] = []

    def look(places: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        assert len(places) <= largest_block
        asked.extend(places.tolist())
        return values[places], values[places]

    found = best_open(bounds, open_N, order, look, 1e-9, largest_block)
    eligible = np.flatnonzero(open_N & ~np.isnan(values))
    assert len(set(asked)) == len(asked)
    if not len(eligible):
        assert found is None
    else:
        best = values[eligible].max()
        tied = [i for i in eligible.tolist() if values[i] >= best - 1e-9]
        assert found == (min(tied, key=lambda i: order[i]), best)


def test_those_whose_bound_is_too_low_are_left_alone() -> None:
    bounds = np.arange(1000, dtype=float)
    asked: list[int] = []

    def look(places: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        asked.extend(places.tolist())
        return bounds[places] - 5, bounds[places] - 4

    assert best_open(bounds, np.ones(1000, bool), np.arange(1000), look, 1e-9) == (999, 994.0)
    assert sorted(asked) == list(range(984, 1000))
    assert bounds[999] == 995
