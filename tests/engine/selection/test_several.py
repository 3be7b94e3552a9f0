"""One selection from several runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_select import make_run
from test_top import take

from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import keys_of
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.batch import selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.several import ages_of


def runs_of(root: Path, scores: Sequence[dict[str, float]], created: Sequence[int] = ()) -> list[RunDirectory]:
    """Runs with these rows: id → score. `created`: minutes."""
    runs = []
    for number, of in enumerate(scores):
        run = make_run(root / str(number), [list(of.values())])
        path = run.storage.path("scores/part-00000-x.parquet")
        table = pq.read_table(path)
        table = table.set_column(1, "key", pa.array(keys_of(list(of)))).set_column(2, "id", pa.array(list(of)))
        pq.write_table(table, path)
        minutes = created[number] if created else number
        run.update(created=f"2026-11-22T10:{minutes:02d}:00+0000")
        runs.append(RunDirectory(run.storage.root))
    return runs


def select(runs: Sequence[RunDirectory], k: int, method: str = "topk") -> pa.Table:
    with selected(runs, runs[0].config, Choice.of(runs[0].config, k=k, method=method)) as batch:
        return pa.concat_tables(list(batch.tables()))


def test_rows_of_several_runs_are_one_pool(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, [{"a": 1.0, "b": 5.0}, {"c": 3.0, "d": 4.0}, {"e": 2.0}])
    table = select(runs, 4)
    assert table["id"].to_pylist() == ["b", "d", "c", "e"]
    assert table["run"].to_pylist() == [runs[i].storage.root for i in (0, 1, 1, 2)]
    assert table["rank"].to_pylist() == [1, 2, 3, 4]
    about = json.loads(table.schema.metadata[b"poolscore"])
    assert about.items() >= {"complete": True, "shards": 3, "pool_digest": ["digest of the pool"] * 3}.items()
    assert "run" not in select(runs[:1], 1).schema.names


@pytest.mark.parametrize("created", [(0, 1), (1, 0)])
def test_an_id_counts_once_with_the_newest_run(tmp_path: Path, created: Sequence[int]) -> None:
    scores = [{"a": 9.0, "b": 5.0, "c": 1.0}, {"a": 2.0, "b": 6.0, "d": 3.0}]
    table = select(runs_of(tmp_path, scores, created), 10)
    merged = {**scores[0], **scores[1]} if created == (0, 1) else {**scores[1], **scores[0]}
    assert dict(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True)) == merged
    assert table["score"].to_pylist() == sorted(merged.values(), reverse=True)


@pytest.mark.parametrize("way", ["few", "refined", "spilled"])
@pytest.mark.parametrize("method", ["topk", "power", "softrank"])
def test_the_best_of_overlapping_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, method: str) -> None:
    random = np.random.default_rng(0)
    drawn = [zip(random.permutation(60)[:40], random.random(40), strict=True) for _ in range(3)]
    scores = [{f"x{i}": float(score) for i, score in rows} for rows in drawn]
    runs = runs_of(tmp_path, scores)
    alone = runs_of(tmp_path / "alone", [{**scores[0], **scores[1], **scores[2]}])
    take(monkeypatch, way)
    for k in (1, 10, 30, 100):
        assert select(runs, k, method)["id"].to_pylist() == select(alone, k, method)["id"].to_pylist()


def test_runs_of_the_same_second_are_in_the_order_given(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, [{"a": 1.0}, {"a": 2.0}, {"a": 3.0}], created=[5, 5, 1])
    assert ages_of(runs) == [1, 2, 0]
    assert select(runs, 1)["score"].to_pylist() == [2.0]


def test_runs_that_are_not_alike_are_refused(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, [{"a": 1.0}, {"b": 2.0}])
    identity = runs[1].info["identity"]
    runs[1].update(identity={**identity, "the weights": "others", "passes.count": 50, "the pool": "another one"})
    with pytest.raises(ConfigError, match=r"/1 and .*/0 differ in passes.count, the weights: their") as why:
        select(runs, 1)
    assert "\n" not in str(why.value)


def test_pools_without_ids_are_not_mixed(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, [{"a": 1.0}, {"b": 2.0}])

    def with_pools(identified: bool) -> list[RunDirectory]:
        for run, uri in zip(runs, ("/p", "/q"), strict=True):
            pool = {**run.info["config"]["pool"], "uri": uri, "id": "id" if identified else None}
            run.update(config={**run.info["config"], "pool": pool})
        return [RunDirectory(run.storage.root) for run in runs]

    assert len(select(with_pools(True), 2)) == 2
    with pytest.raises(ConfigError, match=r"without pool\.id .* which is /q and /p, so that .* could pass for one"):
        select(with_pools(False), 2)
