"""Control rows: a random sample of the pool, at random places of the batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_select import full_sort, make_run
from test_several import runs_of
from test_top import WAYS, take, write_parts

from poolscore.engine.keys import IdSet, keys_of
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection import walk as walk_module
from poolscore.engine.selection.batch import select_batch, selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.control import control_ranks, control_rows, with_control
from poolscore.engine.selection.order import ROW
from poolscore.engine.selection.ranking import ByScore
from poolscore.engine.selection.threshold import Question, Threads
from poolscore.engine.selection.top import Scored
from poolscore.kernels.random_score import CONTROL_PLACES, CONTROL_ROWS, uniforms_from_keys


def chi_square(counts: NDArray[Any]) -> float:
    """Of counts that are expected to be equal."""
    return float(((counts - counts.mean()) ** 2 / counts.mean()).sum())


def control_of(table: pa.Table) -> list[int]:
    """Control rows in their order."""
    return table.filter(pc.equal(table["method"], "control"))["row_id"].to_pylist()


def others_of(table: pa.Table) -> list[int]:
    """The others, in theirs."""
    return table.filter(pc.not_equal(table["method"], "control"))["row_id"].to_pylist()


def drawn(rows: int, seed: int) -> list[int]:
    """All rows by their draws, by Python's own sort."""
    draws = uniforms_from_keys(keys_of([f"r{i}" for i in range(rows)]), seed, CONTROL_ROWS)
    return sorted(range(rows), key=lambda i: draws[i])


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunDirectory, list[list[float]]]:
    random = np.random.default_rng(0)
    parts = [random.integers(0, 9, 60).astype(float).tolist() for _ in range(5)]
    return make_run(tmp_path, parts), parts


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_batch_is_a_random_sample_and_the_best_of_the_others(
    run: tuple[RunDirectory, list[list[float]]], monkeypatch: pytest.MonkeyPatch, way: str, share: float
) -> None:
    directory, parts = run
    take(monkeypatch, way, run_rows=100)
    for k in (0, 1, 10, 150, 300, 1000):
        with selected([directory], directory.config, Choice.of(directory.config, k=k, control=share)) as batch:
            table = pa.concat_tables(list(batch.tables()))
        control = drawn(300, 0)[: round(share * min(k, 300))]
        assert control_of(table) == control
        assert others_of(table) == [i for i in full_sort(parts, 300) if i not in control][: k - len(control)]
        assert table["rank"].to_pylist() == list(range(1, min(k, 300) + 1))


def test_control_rows_do_not_depend_on_method_score_or_k(run: tuple[RunDirectory, list[list[float]]]) -> None:
    directory, _ = run
    wanted: dict[str, Any]
    for wanted in ({"method": "power"}, {"method": "softrank", "beta": 3.0}, {"score": "entropy"}, {"k": 200}):
        table = select_batch(directory, directory.config, **{"k": 100, "control": 0.2, "seed": 7, **wanted})
        control = control_of(table)
        assert control[:20] == drawn(300, 7)[:20]
        if "method" in wanted:
            assert table["perturbed_score"].null_count == len(control)
            alone = select_batch(directory, directory.config, **{"k": 100, "seed": 7, **wanted})["row_id"].to_pylist()
            assert others_of(table) == [i for i in alone if i not in control][:80]


def test_a_share_that_comes_to_no_row_is_told(run: tuple[RunDirectory, list[list[float]]]) -> None:
    for k, control, told in ((10, 0.04, True), (10, 0.05, True), (10, 0.06, False), (10, 0.0, False), (0, 0.5, False)):
        with selected([run[0]], run[0].config, Choice.of(run[0].config, k=k, control=control)) as batch:
            assert any(note.startswith("no control rows: ") for note in batch.notes) == told


def test_excluded_rows_are_no_control_rows(run: tuple[RunDirectory, list[list[float]]], tmp_path: Path) -> None:
    directory, _ = run
    sent = drawn(300, 0)[:30]
    (tmp_path / "sent.csv").write_text("id\n" + "".join(f"r{i}\n" for i in sent))
    table = select_batch(directory, directory.config, k=100, control=0.2, exclude=str(tmp_path / "sent.csv"))
    assert control_of(table) == drawn(300, 0)[30:50]
    assert not set(others_of(table)) & set(sent)


def test_control_rows_of_several_runs_are_of_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "LOOK", 1)
    monkeypatch.setattr(walk_module, "HARDLY_ANY", 2)
    scores = [{f"x{i}": float(i) for i in range(a, b)} for a, b in ((0, 60), (30, 90), (0, 20))]
    runs = runs_of(tmp_path, scores)
    alone = runs_of(tmp_path / "alone", [{**scores[0], **scores[1], **scores[2]}])
    for each in (*runs, *alone):
        path = each.storage.path("scores/part-00000-x.parquet")
        table = pq.read_table(path)
        classes = pa.array([int(i[1:]) % 7 for i in table["id"].to_pylist()], pa.int32())
        pq.write_table(table.set_column(table.schema.get_field_index("prediction"), "prediction", classes), path)
    for k in (10, 30, 40, 90, 200):
        wanted = {"k": k, "control": 0.3, "quotas": {"1": 3}, "max_per_group": {"prediction": 5}}
        tables = []
        for chosen in (runs, alone):
            with selected(chosen, chosen[0].config, Choice.of(chosen[0].config, **wanted)) as batch:
                tables.append(pa.concat_tables(list(batch.tables())))
        for column in ("id", "score", "method"):
            assert tables[0][column].to_pylist() == tables[1][column].to_pylist() or k == 200  # 140 rows, 90 ids
    table = tables[0]
    assert len(set(table["id"].to_pylist())) == table.num_rows


@pytest.mark.parametrize("most", [2, 3])
def test_control_rows_count_for_the_caps_but_are_not_bound_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(walk_module, "LOOK", 1)
    monkeypatch.setattr(walk_module, "HARDLY_ANY", 2)
    config: dict[str, Any] = {"k": 20, "control": 0.5, "max_per_group": {"prediction": most}, "seed": 1}
    run = make_run(tmp_path, [np.arange(70.0).tolist()])  # predictions are row_id % 7
    with selected([run], run.config, Choice.of(run.config, **config)) as batch:
        table = pa.concat_tables(list(batch.tables()))
    control = drawn(70, 1)[:10]
    counts = Counter(i % 7 for i in control)
    expected = []
    for row in (i for i in reversed(range(70)) if i not in control):
        if counts[row % 7] < most and len(expected) < 10:
            counts[row % 7] += 1
            expected.append(row)
    assert (control_of(table), others_of(table)) == (control, expected)


def test_control_rows_and_their_places_are_uniform(tmp_path: Path) -> None:
    scored = Scored(write_parts(tmp_path, [np.arange(40.0).tolist()]), [0], Threads(1))
    counts, places = np.zeros(40), np.zeros(20)
    for seed in range(400):
        rows = control_rows(scored, Question("bald", ByScore(), IdSet()), 0.25, 20, seed)
        counts[rows["row_id"]] += 1
        places[control_ranks(rows, 20, seed) - 1] += 1
    assert counts.sum() == places.sum() == 2000
    assert chi_square(counts) < 72.1  # of 39 degrees of freedom: exceeded by chance once in 1,000 times
    assert chi_square(places) < 37.7  # of 15: one in each stretch of 4


@given(st.lists(st.integers(0, 5), max_size=5), st.integers(0, 12), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_each_stretch_of_a_batch_holds_a_control_row(blocks: list[int], extra: int, seed: int) -> None:
    n = min(extra, 6)
    rows = np.zeros(sum(blocks) + n, ROW)
    rows["place"] = np.arange(len(rows))
    rows["key"] = np.random.default_rng(seed).integers(0, 2**64, len(rows), np.uint64)
    control, others = rows[:n], rows[n:]
    ranks = control_ranks(control, len(rows), seed)
    bounds = [i * len(rows) // n for i in range(n + 1)] if n else [0]
    assert all(low < rank <= high for low, rank, high in zip(bounds, ranks.tolist(), bounds[1:], strict=False))
    split = np.split(others, np.cumsum(blocks)[:-1]) if blocks else []
    placed = np.concatenate([np.empty(0, ROW), *with_control(iter(split), control, ranks)])["place"].tolist()
    assert [place for place in placed if place >= n] == list(range(n, len(rows)))
    assert [placed[rank - 1] for rank in ranks] == list(range(n))


def test_the_streams_are_independent_uniform_numbers() -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64)
    streams = [uniforms_from_keys(keys, 5, stream) for stream in (CONTROL_ROWS, CONTROL_PLACES)]
    for draws in (*streams, (streams[0] + streams[1]) % 1):
        assert draws.min() >= 0
        assert draws.max() < 1
        assert chi_square(np.histogram(draws, 50, (0, 1))[0]) < 85.4  # of 49
    assert uniforms_from_keys(keys[::-1], 5, CONTROL_ROWS)[::-1].tolist() == streams[0].tolist()
    assert len(np.unique(streams[0])) == 20_000
    assert uniforms_from_keys(keys[:2], 6, CONTROL_ROWS).tolist() != streams[0][:2].tolist()
