"""Two runs side by side, against plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_select import full_sort, make_run

from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import keys_of
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection import compare as compare_module
from poolscore.engine.selection.compare import compare_runs
from poolscore.jobs.compare import lines_of, write_only

KEEP: dict[str, Any] = {"camera": (lambda i: "abc"[i % 3], pa.dictionary(pa.int32(), pa.string()))}


def two_runs(tmp_path: Path, rows: int = 200) -> tuple[RunDirectory, RunDirectory, list[float], list[float]]:
    """Of the same rows, but `b` has 20 more; with ties."""
    random = np.random.default_rng(0)
    of_a = random.integers(0, 50, rows) / 50
    of_b = np.round(np.concatenate([of_a, random.random(20)]) + random.normal(0, 0.2, rows + 20), 2)
    a, b = of_a.tolist(), of_b.tolist()
    cut_b = [b[:70], b[70:]]
    return make_run(tmp_path / "a", [a], 30, KEEP), make_run(tmp_path / "b", cut_b, 30, KEEP), a, b


def spearman(a: list[float], b: list[float]) -> float:
    def ranks(of: list[float]) -> list[float]:
        return [sum(other < value for other in of) + (sum(other == value for other in of) + 1) / 2 for value in of]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def test_two_runs_are_compared(tmp_path: Path) -> None:
    run_a, run_b, a, b = two_runs(tmp_path)
    found = compare_runs(run_a, run_b, by="camera")
    assert (found.scores, found.rows) == (("bald", "bald"), (200, 220))
    assert (found.common, found.sampled, found.k) == (200, False, 30)
    assert found.spearman == pytest.approx(spearman(a, b[:200]))
    best_a, best_b = full_sort([a], 200), full_sort([b], 220)
    assert [(o.k, o.rows) for o in found.overlaps] == [(k, len({*best_a[:k]} & {*best_b[:k]})) for k in (10, 100)]
    batch_a, batch_b = best_a[:30], best_b[:30]
    expected = {
        camera: tuple(sum("abc"[i % 3] == camera for i in rows) for rows in (batch_a, batch_b, {*batch_a} & {*batch_b}))
        for camera in "abc"
    }
    assert {group.value: (group.a, group.b, group.both) for group in found.groups} == expected
    only = list(zip(found.only["run"].to_pylist(), found.only["row_id"].to_pylist(), strict=True))
    assert only == [("a", i) for i in batch_a if i not in batch_b] + [("b", i) for i in batch_b if i not in batch_a]
    assert {"rank", "key", "id", "score", "camera"} <= set(found.only.schema.names)


def test_a_run_beside_itself(tmp_path: Path) -> None:
    run, _, _, _ = two_runs(tmp_path)
    found = compare_runs(run, run, k=7)
    assert found.spearman == pytest.approx(1)
    assert [overlap.share for overlap in found.overlaps] == [1, 1]
    assert (found.k, found.only.num_rows, found.groups) == (7, 0, ())
    turned = compare_runs(run, run, score="entropy")
    assert turned.scores == ("entropy", "entropy")
    constant = make_run(tmp_path / "c", [[1.0] * 200])
    assert compare_runs(run, constant).spearman is None
    assert compare_runs(make_run(tmp_path / "d", [[1.0]]), constant).common == 1


def test_large_runs_are_sampled_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "SAMPLE", 100)
    run_a, run_b, a, b = two_runs(tmp_path)
    found = compare_runs(run_a, run_b)
    assert found.sampled
    keys = keys_of([f"r{i}" for i in range(200)])
    drawn = [i for i in range(200) if keys[i] <= 100 / 220 * 2**64]
    assert found.common == len(drawn)
    assert found.spearman == pytest.approx(spearman([a[i] for i in drawn], [b[i] for i in drawn]))
    assert "of a sample" in "\n".join(lines_of(found))


def test_what_a_person_and_a_script_read(tmp_path: Path) -> None:
    run_a, run_b, _, _ = two_runs(tmp_path)
    found = compare_runs(run_a, run_b, by="camera")
    text = "\n".join(lines_of(found))
    assert "200 in A, 220 in B; 200 in both" in text
    assert "the best 10:" in text
    assert "camera = a:" in text
    data = found.to_dict()
    assert data["overlaps"][0].keys() == {"k", "rows", "share"}
    assert data["only_a"] == data["only_b"] == found.only.num_rows // 2
    write_only(found, tmp_path / "only.parquet")
    with pytest.raises(ConfigError, match=r"--out: .* cannot be written"):
        write_only(found, tmp_path / "none" / "only.parquet")


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    run_a, run_b, _, _ = two_runs(tmp_path)
    with pytest.raises(ConfigError, match=r"--by city: .*/a keeps no such column; it has: camera, prediction"):
        compare_runs(run_a, run_b, by="city")
    with pytest.raises(ConfigError, match="no shard is scored yet"):
        compare_runs(run_a, make_run(tmp_path / "c", [None]))
    with pytest.raises(ConfigError, match="not defined for task"):
        compare_runs(run_a, run_b, score="predictive_variance")


def test_runs_without_a_common_row_say_why(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / name, [[1.0, 2.0]]) for name in "ab")
    name = b.reports()[0].scores
    table = pq.read_table(b.storage.path(name))
    others = table.set_column(1, "key", pa.array(keys_of(["x", "y"])))
    b.storage.publish(name, lambda file: pq.write_table(others, file))
    ways = {
        ("id", "id"): "no value of the column 'id' is in both",
        (None, None): "rows are known by path and row, and the pools have no path in common",
        ("id", "uuid"): "rows of the first are known by the column 'id', of the second by the column 'uuid'",
        ("id", None): "rows of the first are known by the column 'id', of the second by path and row",
    }
    for columns, why in ways.items():
        for run, column in zip((a, b), columns, strict=True):
            pool = run.config.pool.model_copy(update={"id": column})
            run.config = run.config.model_copy(update={"pool": pool})
        with pytest.raises(ConfigError, match=f"/a and .*/b: no row is in both, so there is nothing to compare; {why}"):
            compare_runs(a, b)
