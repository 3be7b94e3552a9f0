"""The best k rows against a full sort in float64: any scores, cut, order, number of threads, way of finding them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolscore.engine.keys import IdSet, keys_of
from poolscore.engine.selection import runs as runs_module
from poolscore.engine.selection import threshold as threshold_module
from poolscore.engine.selection import top as top_module
from poolscore.engine.selection.columns import Columns
from poolscore.engine.selection.order import ROW, digits_of, in_total_order, value_of, words_of
from poolscore.engine.selection.parts import Part
from poolscore.engine.selection.ranking import ByScore, Ranking, ranking_of
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.threshold import Question, Threads, reached
from poolscore.engine.selection.top import Scored, fill

Cut = Sequence[Sequence[float]]  # scores of each part
SPECIAL = [0.0, -0.0, 1.0, 1.0 + 2**-23, -1.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38, float("nan"), float("inf")]
WAYS = ("few", "histogram", "refined", "spilled", "guessed")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """The ways to the same rows, made to be taken by a handful of them."""
    with pytest.MonkeyPatch.context() as patch:
        take(patch, request.param, run_rows=300)
        yield request.param


def take(patch: pytest.MonkeyPatch, way: str, run_rows: int = 3) -> None:
    patch.setattr(runs_module, "SPARE", 1)
    patch.setattr(threshold_module, "GROUP_ROWS", 4)
    if way != "few":
        patch.setattr(runs_module, "FEW", 0)
        patch.setattr(top_module, "FEW", 0)
    if way == "guessed":
        patch.setattr(threshold_module, "SAMPLE_PARTS", 1)
        patch.setattr(top_module, "SURPLUS", 0)
    if way in ("refined", "spilled"):
        patch.setattr(threshold_module, "SURPLUS", 0)
    if way == "spilled":
        patch.setattr(runs_module, "RUN_ROWS", run_rows)
        patch.setattr(runs_module, "READ_ROWS", run_rows + 1)


def write_parts(folder: Path, cut: Cut, keys: Sequence[int] | None = None, known: bool = True) -> list[Part]:
    """A part for each shard, as workers write them; keys are those of the ids 'r<row_id>' unless given."""
    parts, start = [], 0
    for number, column in enumerate(cut):
        row_ids = np.arange(start, start + len(column))
        ids = [f"r{i}" for i in row_ids]
        own = keys_of(ids) if keys is None else np.array(keys[start : start + len(column)], np.uint64)
        scores = np.array(column, np.float32)
        columns = {"row_id": row_ids, "key": own, "id": pa.array(ids, pa.string()), "bald": scores}
        path = folder / f"{number}.parquet"
        pq.write_table(pa.table(columns), path, compression="none", use_dictionary=["id"])
        finite = scores[np.isfinite(scores)]
        best = float(finite.max()) if len(finite) else -np.inf
        parts.append(Part(number, str(path), 0, len(column), best if known else np.inf))
        start += len(column)
    return parts


def found(
    parts: Sequence[Part], k: int, exclude: Sequence[str] = (), threads: int = 1, ranking: Ranking | None = None
) -> NDArray[Any]:
    question = Question("bald", ranking or ByScore(), IdSet(exclude))
    with SortedRuns(k) as best:
        count = fill(best, Scored(parts, [0], Threads(threads)), question, k)
        rows = np.concatenate([np.empty(0, ROW), *best.merged()])
    assert len(rows) == count
    return rows


def full_sort(cut: Cut, k: int, keys: Sequence[int] | None = None, left_out: Sequence[int] = ()) -> list[int]:
    """row_ids by Python's own sort in float64."""
    scores = [float(np.float32(score)) for column in cut for score in column]
    own = keys_of([f"r{i}" for i in range(len(scores))]).tolist() if keys is None else keys
    ranked = [i for i, score in enumerate(scores) if np.isfinite(score) and i not in left_out]
    return sorted(ranked, key=lambda i: (-scores[i], own[i], i))[:k]


SCORES = st.sampled_from(SPECIAL) | st.floats(width=32) | st.integers(0, 3).map(float)
CUTS = st.lists(st.lists(SCORES, max_size=9), min_size=1, max_size=6)


@pytest.mark.parametrize("way", WAYS)
@given(CUTS, st.data(), st.booleans(), st.integers(1, 3))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_best_are_those_of_a_full_sort(
    tmp_path: Path, way: str, cut: Cut, data: st.DataObject, known: bool, threads: int
) -> None:
    total = sum(map(len, cut))
    keys = data.draw(
        st.none() | st.lists(st.integers(0, 2) | st.integers(0, 2**64 - 1), min_size=total, max_size=total)
    )
    left_out = data.draw(st.sets(st.integers(0, max(total - 1, 0)), max_size=4)) if keys is None else set()
    k = data.draw(st.sampled_from([0, 1, 2, 3, 5, total, total + 1, 10**9]))
    with pytest.MonkeyPatch.context() as patch:
        take(patch, way)
        parts = write_parts(tmp_path, cut, keys, known)
        rows = found(parts, k, [f"r{i}" for i in left_out], threads)
    assert rows["row_id"].tolist() == full_sort(cut, k, keys, tuple(left_out))


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros(3000),
        np.random.default_rng(0).integers(0, 20, 3000) / 20,
        np.arange(3000.0),
        -np.arange(3000.0),
        np.random.default_rng(1).random(3000) ** 9,
        np.repeat([0.0, -0.0, 1e-44, -1e-44], 750),
    ],
    ids=["constant", "twenty values", "ascending", "descending", "skewed", "around zero"],
)
def test_many_rows(tmp_path: Path, way: str, scores: NDArray[np.float64]) -> None:
    columns = [scores[at : at + 150].tolist() for at in range(0, 3000, 150)]
    parts = write_parts(tmp_path, columns, known=way != "refined")
    for k in (1, 7, 1000, 2999):
        shuffled = [parts[i] for i in np.random.default_rng(k).permutation(len(parts))]
        assert found(shuffled, k, threads=2)["row_id"].tolist() == full_sort(columns, k)


@pytest.mark.parametrize("method", ["power", "softmax"])
def test_noisy_rows_are_those_of_a_full_sort(tmp_path: Path, way: str, method: str) -> None:
    random = np.random.default_rng(2)
    scores = np.where(random.random(4000) < 0.3, 0, random.random(4000)).astype(np.float32)
    keys = random.integers(0, 2**64, 4000, np.uint64)
    parts = write_parts(tmp_path, [scores[at : at + 500].tolist() for at in range(0, 4000, 500)], keys.tolist())
    ranking = ranking_of(method, 1.0, 7)
    places, values = ranking.at_least(scores, keys, -np.inf)
    assert len(places) == 4000
    order = np.lexsort((np.arange(4000), keys, -values))
    for k in (1, 50, 2500, 3900, 4000):  # beyond 2,800 `power` ranks scores of 0, by their keys
        rows = found(parts, k, ranking=ranking)
        assert rows["row_id"].tolist() == order[:k].tolist()
        assert rows["value"].tolist() == values[order[:k]].tolist()


@pytest.mark.parametrize(
    ("sampled", "k", "looks"),
    [(5, 60, 1), (1, 60, 2), (9, 150, 2), (9, 1001, 1)],
    ids=["about right", "far too many reach it", "too few reach it", "all rows are wanted"],
)
def test_a_threshold_that_was_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampled: int, k: int, looks: int
) -> None:
    """Scores rise from part to part, and nobody wrote down the best of each."""
    take(monkeypatch, "guessed")
    random = np.random.default_rng(0)
    cut = [(random.random(100) + number).tolist() for number in range(10)]
    if sampled == 5:  # a part like the whole
        cut[5] = [score for column in cut for score in column[:10]]
    parts = write_parts(tmp_path, cut, known=False)
    monkeypatch.setattr(threshold_module, "drawn", lambda parts, count: [sampled])
    counted: list[int] = []
    real = top_module.find_threshold
    monkeypatch.setattr(top_module, "find_threshold", lambda *given: counted.append(1) or real(*given))
    assert found(parts, k)["row_id"].tolist() == full_sort(cut, k)
    assert 1 + len(counted) == looks


def test_parts_that_cannot_win_are_not_opened(tmp_path: Path, way: str) -> None:
    cut = [[5.0, 4.0], [4.0, 1.0], [float(np.nextafter(np.float32(4), np.float32(0))), 0.0], [4.0], [6.0]]
    parts = write_parts(tmp_path, cut)
    Path(parts[2].path).unlink()
    if way in ("few", "refined", "spilled"):  # the first 16 bits alone do not tell 4 from the number before it
        assert found(parts, 3)["row_id"].tolist() == full_sort(cut, 3)


def test_words_are_in_the_order_of_the_values() -> None:
    values = np.array([-np.inf, -3e38, -1.0, -1e-45, 0.0, 1e-45, 1e-38, 1.0, 1.0 + 2**-23, 3e38, np.inf], np.float32)
    words = words_of(values)
    assert (np.diff(words.astype(np.int64)) > 0).all()
    assert words_of(np.array([-0.0])) == words_of(np.array([0.0]))
    assert [value_of(word) for word in words.tolist()] == values.tolist()
    assert digits_of(0, values, None).tolist() == (words >> 16).tolist()
    assert digits_of(1, values, None).tolist() == (words & 0xFFFF).tolist()
    assert digits_of(2, values[:2], np.array([0, 2**64 - 1], np.uint64)).tolist() == [65535, 0]


def test_reached_is_the_largest_digit_with_enough_rows() -> None:
    counts = np.array([4, 0, 3, 2, 0])
    assert [reached(counts, wanted) for wanted in (1, 2, 3, 5, 6, 9, 10)] == [3, 3, 2, 2, 0, 0, 0]


@given(
    st.lists(st.tuples(st.sampled_from([-0.0, 0.0, 1.0, -np.inf]), st.integers(0, 2), st.integers(0, 9)), max_size=12)
)
@settings(max_examples=60, deadline=None)
def test_the_sort_is_a_sort(rows: list[tuple[float, int, int]]) -> None:
    table = np.zeros(len(rows), ROW)
    for at, (value, key, row_id) in enumerate(rows):
        table[at]["value"], table[at]["key"], table[at]["row_id"] = value, key, row_id
    done = [(-row["value"], int(row["key"]), int(row["row_id"])) for row in in_total_order(table)]
    assert done == sorted((-value, key, row_id) for value, key, row_id in rows)


@pytest.mark.parametrize("block", [1 << 18, 7])
def test_columns_come_in_the_order_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("poolscore.engine.selection.columns.BLOCK", block)
    random = np.random.default_rng(3)
    cut = [random.random(count).tolist() for count in (5, 0, 30, 1, 14)]
    parts = write_parts(tmp_path, cut)
    rows = found(parts, 40)
    blocks = [rows[:3], rows[3:21], rows[21:]]
    tables = list(Columns(parts, "bald", ["id"], 2).tables(blocks, 40))
    assert [table.num_rows for table in tables] == ([40] if block > 40 else [7, 7, 7, 7, 7, 5])
    table = pa.concat_tables(tables)
    assert table["rank"].to_pylist() == list(range(1, 41))
    assert table["row_id"].to_pylist() == full_sort(cut, 40)
    assert table["id"].to_pylist() == [f"r{i}" for i in table["row_id"].to_pylist()]
    assert table["score"].to_pylist() == table["value"].to_pylist()


class Close:
    """A ranking whose values are the same as float32, but not as float64: the larger the key, the better the row."""

    needs_keys, exact = True, False

    def most(self, best: float) -> float:
        return 2.0

    def at_least(self, scores: Any, keys: Any, edge: float) -> Any:
        values = 1 + keys.astype(np.float64) * 1e-28
        enough = np.flatnonzero(values.astype(np.float32) >= np.float32(edge))
        return enough, values[enough]


def test_values_that_are_the_same_in_float32_are_not_ranked_by_key(tmp_path: Path, way: str) -> None:
    keys = np.random.default_rng(4).integers(0, 2**64, 400, np.uint64)
    parts = write_parts(tmp_path, [[1.0] * 50] * 8, keys.tolist())
    for k in (3, 100):
        rows = found(parts, k, ranking=Close())
        assert rows["key"].tolist() == sorted(keys.tolist(), reverse=True)[:k]
