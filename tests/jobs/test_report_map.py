"""The uncertainty map: every row is counted once, the batch lies where its scores are, and its size is bounded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from report_workshop import Elements, Workshop, features_pool, finished_run, page_of, require_harmless

from poolscore.engine import RunDirectory, score_pool
from poolscore.engine.selection.control import CONTROL
from poolscore.jobs.report import facts
from poolscore.jobs.report.axes import Axis
from poolscore.jobs.report.distribution import _places, read_distribution
from poolscore.jobs.report.plane import ACROSS, UP, Plane
from poolscore.jobs.report.uncertainty import LEVELS, edges_of, svg


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("map"))


def plane_of(rows: int, batch: int) -> tuple[Plane, np.ndarray, np.ndarray]:
    """Rows counted in three blocks; the batch are every third of the first ones."""
    noise = np.random.default_rng(rows)
    across, up = noise.gamma(2.0, 0.1, rows).astype(np.float32), noise.random(rows).astype(np.float32)
    plane = Plane(("expected_entropy", "bald"), Axis(0.0, float(across.max())), Axis(0.0, float(up.max())))
    for block in np.array_split(np.arange(rows), 3):
        plane.add(across[block], up[block], np.flatnonzero((block % 3 == 0) & (block < 3 * batch)))
    return plane, across, up


def marks(html: str) -> int:
    return sum(int(n.replace(",", "")) for n in re.findall(r"<title>([\d,]+) rows? of the batch, ", html))


def test_cells_count_as_numpy_does() -> None:
    plane, across, up = plane_of(5000, 100)
    ranges = ((0.0, plane.up.high), (0.0, plane.across.high))
    expected, _, _ = np.histogram2d(up.astype(float), across.astype(float), bins=(UP, ACROSS), range=ranges)
    assert np.abs(plane.pool - expected).sum() <= 4  # a value on an edge may fall to either side
    chosen, _, _ = np.histogram2d(
        up[:300:3].astype(float), across[:300:3].astype(float), bins=(UP, ACROSS), range=ranges
    )
    assert np.abs(plane.batch - chosen).sum() <= 4
    assert (plane.rows, plane.batch.sum()) == (5000, 100)


def test_values_that_are_no_numbers_are_not_drawn() -> None:
    plane = Plane(("a", "b"), Axis(0.0, 1.0), Axis(0.0, 1.0))
    plane.add(np.array([0.5, np.nan, 0.5]), np.array([0.5, 0.5, np.inf]), np.array([0, 1]))
    assert (plane.rows, plane.batch.sum()) == (1, 1)


def test_each_cell_with_rows_is_painted_once_with_its_level() -> None:
    plane, _, _ = plane_of(5000, 100)
    painted = np.zeros((UP, ACROSS), int)
    for level, path in re.findall(r'<path class="level-(\d)" d="([^"]*)"', svg(plane, "bald", None)):
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1H\d+z", path):
            painted[UP - 1 - int(y), int(x) : int(x) + int(width)] += 1 + int(level)
    np.testing.assert_array_equal(painted, np.digitize(plane.pool, edges_of(int(plane.pool.max()))))


@pytest.mark.parametrize(("most", "edges"), [(1, [1]), (2, [1, 2]), (10**5, [1, 10, 100, 1000, 10_000])])
def test_levels_are_logarithmic(most: int, edges: list[int]) -> None:
    assert edges_of(most) == edges
    assert len(edges_of(10**9)) == LEVELS


def test_the_drawing_does_not_grow_with_the_pool() -> None:
    plane, _, _ = plane_of(300_000, 100_000)
    html = svg(plane, "bald", 0.5)
    assert len(html) < 400_000
    assert marks(html) == 100_000


@pytest.mark.parametrize(("score", "ends"), [("bald", (0, 22, 64, 22)), ("expected_entropy", (16, 44, 16, 0))])
def test_the_cut_off_is_a_line_of_equal_score(score: str, ends: tuple[float, ...]) -> None:
    plane = Plane(("expected_entropy", "bald"), Axis(0.0, 2.0), Axis(0.0, 1.0))
    line = re.search(r'class="cutoff" x1="(.*?)" x2="(.*?)" y1="(.*?)" y2="(.*?)"', svg(plane, score, 0.5))
    assert line is not None
    x1, x2, y1, y2 = map(float, line.groups())
    assert (x1, y1, x2, y2) == ends
    assert "cutoff" not in svg(plane, "margin", 0.5)


def test_entropy_is_the_sum_of_the_two() -> None:
    plane = Plane(("expected_entropy", "bald"), Axis(1.0, 3.0), Axis(0.5, 1.5))
    line = re.search(r'class="cutoff" x1="(.*?)" x2="(.*?)" y1="(.*?)" y2="(.*?)"', svg(plane, "entropy", 2.5))
    assert line is not None
    assert list(map(float, line.groups())) == [0.0, 32.0, 0.0, 44.0]  # (1, 1.5) to (2, 0.5)


def test_the_batch_is_marked_and_its_scores_are_read(workshop: Workshop) -> None:
    run = finished_run(workshop)
    told = facts.gather(run)
    assert told.selection is not None
    found = read_distribution(run, told.reports, *told.row_ids)
    assert found.plane is not None
    assert found.plane.rows == 391
    assert marks(svg(found.plane, "bald", told.selection.cutoff)) == 40
    best = told.selection.best
    for row_id, score in zip(best["row_id"].to_pylist(), best["score"].to_pylist(), strict=True):
        scores = found.shown[row_id]
        assert scores["bald"] == score
        assert scores["entropy"] == pytest.approx(scores["expected_entropy"] + scores["bald"], abs=1e-5)
    assert "Uncertainty map" in require_harmless(page_of(run)).text


@pytest.mark.parametrize("wanted", [[], [3], [9], [2, 3, 4, 8, 9, 10, 40], [100], list(range(50))])
def test_rows_of_the_batch_are_found_in_a_block_with_gaps(wanted: list[int]) -> None:
    row_ids, batch = np.array([3, 4, 6, 9], np.int64), np.array(wanted, np.int64)
    np.testing.assert_array_equal(_places(row_ids, batch), np.flatnonzero(np.isin(row_ids, batch)))


def test_control_rows_move_no_cut_off(workshop: Workshop) -> None:
    pool = workshop.digits("control")
    config = workshop.config(pool, "control-run")
    config = config.model_copy(update={"select": config.select.model_copy(update={"control": 0.25})})
    score_pool(config)
    run = RunDirectory(config.run.dir)
    rows = pq.read_table(Path(config.run.dir) / "selection.parquet", columns=["score", "method"]).to_pylist()
    chosen = [row["score"] for row in rows if row["method"] != CONTROL]
    selection = facts.gather(run).selection
    assert selection is not None
    assert (selection.rows, selection.control, selection.cutoff) == (40, 10, min(chosen))
    assert min(row["score"] for row in rows) < min(chosen)
    text = Elements(page_of(run)).text
    assert "10 rows of the batch were drawn at random" in text
    assert "poolscore label worth" in text


def test_a_regression_of_one_output_is_drawn_by_its_prediction(workshop: Workshop) -> None:
    pool = features_pool(workshop.root / "numbers")
    model = {"task": "regression", "classes": 1, "args": {"outputs": 1}, "weights": str(workshop.root / "side.pt")}
    config = workshop.table_config(pool, "numbers-run", model=model)
    score_pool(config)
    html = page_of(config.run.dir)
    page = require_harmless(html)
    assert "Predictive variance over Predicted value" not in page.text
    assert "Predictive variance (squared units of the output) over Predicted value of 120 rows" in html
    assert marks(html) == 10


def test_one_pass_has_no_map(workshop: Workshop) -> None:
    pool = features_pool(workshop.root / "once")
    config = workshop.table_config(pool, "once-run")
    changes = {"passes": config.passes.model_copy(update={"count": 1}), "score": config.score}
    config = config.model_copy(update={**changes, "select": config.select.model_copy(update={"score": "entropy"})})
    score_pool(config)
    text = Elements(page_of(config.run.dir)).text
    assert "Uncertainty map" not in text
    assert "votes" not in text
