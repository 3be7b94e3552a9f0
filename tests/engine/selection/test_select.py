"""Selections against a full sort of everything, and what a selection file holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.config import parse_config
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.keys import IdSet, keys_of
from poolscore.engine.pool.plan import PIECES, Plan
from poolscore.engine.run.create import create_run
from poolscore.engine.run.directory import SELECTION, RunDirectory
from poolscore.engine.run.journal import Journal, ShardReport
from poolscore.engine.selection.batch import select_batch, selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.parts import Part, Reader, parts_of
from poolscore.engine.selection.ranking import ByScore
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.threshold import Question, Threads
from poolscore.engine.selection.top import Scored, fill
from poolscore.engine.selection.write import write_named_selection, write_selection
from poolscore.engine.storage.local import LocalStorage
from poolscore.engine.storage.patient import impatient

Column = Sequence[float]  # scores of a shard's rows; NaN: the row was rejected
NAN, INF = float("nan"), float("inf")


def make_run(
    root: Path, parts: Sequence[Column | None], k: int = 3, keep: dict[str, Any] | None = None
) -> RunDirectory:
    """A run with one shard a part; ids are 'r<row_id>'. None: not scored yet."""
    keep = keep or {}
    config = parse_config(
        {
            "pool": {"uri": "/p", "input": "x", "id": "id", "keep": list(keep)},
            "model": {"source": "m:f", "task": "multiclass"},
            "select": {"k": k},
            "run": {"dir": str(root)},
        }
    )
    rows = np.array([len(part or [NAN]) for part in parts])
    none, shards = np.zeros_like(rows), range(len(parts))
    paths = pa.array([f"{shard}.parquet" for shard in shards]).dictionary_encode()
    columns = [shards, paths, none, none, none, rows, np.cumsum(rows) - rows, none]
    plan = Plan("/p", "digest", 1, len(parts), pa.table(dict(zip(PIECES.names, columns, strict=True)), PIECES))
    identity = {"the pool": "digest of the pool", "the weights": "digest of the weights"}
    run = create_run(str(root), config, "0.1", plan, identity)
    journal = Journal(run.storage)
    for index in reversed(range(len(parts))):  # shards do not come in their order
        part = parts[index]
        if part is not None:
            journal.append(write_part(run, index, plan.shards[index].row_id, part, keep))
    return run


def write_part(run: RunDirectory, index: int, start: int, part: Column, keep: dict[str, Any]) -> ShardReport:
    row_ids = np.array([start + i for i, score in enumerate(part) if not np.isnan(score)], np.int64)
    scores = np.array([score for score in part if not np.isnan(score)], np.float32)
    ids = [f"r{i}" for i in row_ids]
    table = pa.table(
        {
            "row_id": pa.array(row_ids),
            "key": pa.array(keys_of(ids)),
            "id": pa.array(ids, pa.string()),
            "bald": pa.array(scores),
            "entropy": pa.array(-scores),
            "prediction": pa.array((row_ids % 7).astype(np.int32)),
            "confidence": pa.array((row_ids / 1000).astype(np.float32)),
            **{name: pa.array([make(int(i)) for i in row_ids], kind) for name, (make, kind) in keep.items()},
        }
    )
    name = f"scores/part-{index:05d}-x.parquet"
    run.storage.publish(name, lambda file: pq.write_table(table, file))
    best = {"bald": float(scores.max()), "entropy": float((-scores).max())} if len(scores) else {}
    return ShardReport(index, name, None, len(scores), len(part) - len(scores), 0, best, {}, 1.0, "w", 1)


def full_sort(parts: Sequence[Column | None], k: int, left_out: Sequence[int] = (), sign: int = 1) -> list[int]:
    """row_ids of the k best by Python's own sort in float64."""
    rows = [(row_id, score) for row_id, score in enumerate(s for p in parts for s in (p or [NAN]))]
    ranked = [(i, s) for i, s in rows if np.isfinite(np.float32(s)) and i not in left_out]
    keys = dict(zip([i for i, _ in ranked], keys_of([f"r{i}" for i, _ in ranked]).tolist(), strict=True))
    ranked.sort(key=lambda row: (-sign * float(np.float32(row[1])), keys[row[0]], row[0]))
    return [i for i, _ in ranked[:k]]


def chosen(run: RunDirectory, k: int, score: str = "bald", exclude: Sequence[str] = (), threads: int = 2) -> list[int]:
    parts = parts_of([(run.storage, run.reports().values())], score)
    with SortedRuns(k) as best:
        count = fill(best, Scored(parts, [0], Threads(threads)), Question(score, ByScore(), IdSet(exclude)), k)
        row_ids = [row_id for rows in best.merged() for row_id in rows["row_id"].tolist()]
    assert count == len(row_ids)
    return row_ids


def test_a_part_is_passed_over_only_if_all_of_it_is_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [[5.0, 4.0], [4.0, 1.0], [np.nextafter(np.float32(4), np.float32(0)), 0.0], [4.0], [6.0]]
    run = make_run(tmp_path, [list(map(float, part)) for part in parts])
    read: list[int] = []
    real = Reader.opened

    def counted(reader: Reader, part: Part) -> Any:
        read.append(part.number)
        return real(reader, part)

    monkeypatch.setattr(Reader, "opened", counted)
    tied = sorted([1, 2, 6], key=lambda i: keys_of([f"r{i}"])[0])  # rows of the score 4, in three parts
    assert chosen(run, 3) == [7, 0, tied[0]]
    assert set(read) == {0, 1, 3, 4}
    assert chosen(run, 5) == [7, 0, *tied]


@pytest.mark.parametrize("score", [INF, -INF, NAN])
def test_what_is_not_finite_is_never_ranked(tmp_path: Path, score: float) -> None:
    run = make_run(tmp_path, [[1.0, 2.0, 0.5]])
    path = Path(run.storage.path("scores/part-00000-x.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.set_column(3, "bald", pa.array([1.0, score, 0.5], pa.float32())), path)
    assert chosen(run, 3) == [0, 2]


KEEP: dict[str, Any] = {
    "label": (lambda i: i % 3, pa.int64()),
    "word": (lambda i: "ab"[i % 2], pa.dictionary(pa.int32(), pa.string())),
    "vector": (lambda i: [float(i), 0.0], pa.list_(pa.float32(), 2)),
    "info": (lambda i: {"path": str(i)} if i % 2 else None, pa.struct([("path", pa.string())])),
}


def test_a_selection_holds_the_contracts_columns(tmp_path: Path) -> None:
    parts = [[1.0, 9.0, NAN], [9.0, 3.0], [8.0]]
    run = make_run(tmp_path, parts, k=4, keep=KEEP)
    table = select_batch(run, run.config)
    assert table.schema.names == [
        *("rank", "row_id", "key", "id", "score", "method", "score_name", "prediction", "confidence"),
        *KEEP,
    ]
    assert table.schema.types[:5] == [pa.int64(), pa.int64(), pa.uint64(), pa.string(), pa.float32()]
    row_ids = table["row_id"].to_pylist()
    assert row_ids == full_sort(parts, 4)
    assert table["rank"].to_pylist() == [1, 2, 3, 4]
    assert table["id"].to_pylist() == [f"r{i}" for i in row_ids]
    assert table["key"].to_pylist() == keys_of(table["id"].to_pylist()).tolist()
    assert table["score"].to_pylist() == [9.0, 9.0, 8.0, 3.0]
    assert set(table["method"].to_pylist()) == {"topk"}
    assert set(table["score_name"].to_pylist()) == {"bald"}
    assert table["prediction"].to_pylist() == [i % 7 for i in row_ids]
    assert table["confidence"].to_pylist() == [float(np.float32(i / 1000)) for i in row_ids]
    for name, (make, _) in KEEP.items():
        assert table[name].to_pylist() == [make(i) for i in row_ids]


def test_score_and_k_can_be_chosen(tmp_path: Path) -> None:
    parts = [[1.0, 9.0], [5.0, 3.0]]
    run = make_run(tmp_path, parts)
    table = select_batch(run, run.config, score="entropy", k=2)
    assert table["row_id"].to_pylist() == full_sort(parts, 2, sign=-1)
    assert table["score_name"].to_pylist() == ["entropy", "entropy"]
    with pytest.raises(ConfigError, match=r"'predictive_variance' is not defined for task 'multiclass'"):
        select_batch(run, run.config, score="predictive_variance")


def test_no_rows_make_an_empty_selection_of_the_same_columns(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", [[1.0, 2.0]], keep=KEEP)
    schema = select_batch(run, run.config).schema
    assert select_batch(run, run.config, k=0).schema == schema
    rejected = make_run(tmp_path / "b", [[NAN, NAN], [NAN]], keep=KEEP)
    table = select_batch(rejected, rejected.config)
    assert (table.num_rows, table.schema) == (0, schema)
    write_selection(rejected.storage, table)
    assert pq.read_table(rejected.storage.path(SELECTION)).schema.names == schema.names


def test_k_that_cannot_be_had(tmp_path: Path) -> None:
    run = make_run(tmp_path, [[1.0, NAN, 2.0], None], k=3)
    assert select_batch(run, run.config).num_rows == 2  # rejected rows leave fewer than the run asked for
    assert select_batch(run, run.config, k=2).num_rows == 2
    with pytest.raises(ConfigError, match=r"k: 5 rows are asked for, 2 scored rows are left"):
        select_batch(run, run.config, k=5)
    with pytest.raises(ConfigError, match=r"must be 0 or more, got -1"):
        select_batch(run, run.config, k=-1)
    (tmp_path / "ids.csv").write_text("id\nr0\n")
    assert select_batch(run, run.config, k=1, exclude=str(tmp_path / "ids.csv"))["id"].to_pylist() == ["r2"]
    with pytest.raises(ConfigError, match=r"k: 3 rows are asked for, 1 scored rows are left"):
        select_batch(run, run.config, exclude=str(tmp_path / "ids.csv"))
    with pytest.raises(ConfigError, match=r"^--exclude: there is no file"):
        select_batch(run, run.config, exclude=str(tmp_path / "none.csv"))


def test_what_a_list_of_ids_left_out_is_told(tmp_path: Path) -> None:
    """A list of the wrong ids, or of a wrong column, would go unnoticed."""
    run = make_run(tmp_path, [[1.0, 3.0], [2.0, 4.0]])
    for ids, told in (
        ("r0\nr3\nnobody", "2 scored rows left out: --exclude lists 3 ids"),
        ("x", "0 scored rows left out"),
    ):
        (tmp_path / "ids.csv").write_text(f"id\n{ids}\n")
        choice = Choice.of(run.config, k=2)
        with selected([run], run.config, choice, exclude=str(tmp_path / "ids.csv")) as batch:
            assert batch.notes[0].startswith(told)


def test_a_run_without_scores_has_nothing_to_select(tmp_path: Path) -> None:
    run = make_run(tmp_path, [None, None])
    with pytest.raises(ConfigError, match=r"no shard is scored yet"):
        select_batch(run, run.config)


def test_parts_of_other_attempts_do_not_count(tmp_path: Path) -> None:
    run = make_run(tmp_path, [[1.0, 2.0]])
    write_part(run, 7, 100, [99.0], {})
    assert chosen(run, 9) == [1, 0]


@pytest.mark.parametrize("damage", ["gone", "cut", "columns"])
def test_a_part_that_cannot_be_read_is_named(tmp_path: Path, damage: str) -> None:
    run = make_run(tmp_path, [[1.0, 2.0]])
    path = Path(run.storage.path("scores/part-00000-x.parquet"))
    match damage:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-9])
        case "columns":
            pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(StoppedError, match=r"part-00000-x.parquet, which the journal names, cannot be read") as caught:
        select_batch(run, run.config)
    assert "\n" not in str(caught.value)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        run = make_run(tmp_path / name, [[1.0, 9.0, 4.0], [4.0, 4.0], [0.0]], k=5, keep=KEEP)
        for _ in range(2):
            write_selection(run.storage, select_batch(run, run.config))
            written.append(run.storage.read(SELECTION))
    assert len(set(written)) == 1


def test_named_selections_are_never_overwritten(tmp_path: Path) -> None:
    run = make_run(tmp_path, [[1.0, 2.0]])
    table = select_batch(run, run.config, k=2, method="power", seed=7)
    path = write_named_selection(run, "round-2", table, {"note": "x"})
    assert pq.read_table(path).equals(table)
    manifest = json.loads(run.storage.read("selections/round-2.json"))
    asked = {"method": "power", "score": "bald", "k": 2, "beta": 1.0, "seed": 7}
    expected = {"name": "round-2", "rows": 2, "note": "x", **asked, "complete": True, "shards": 1}
    assert manifest.items() >= expected.items()
    with pytest.raises(ConfigError, match=r"exists .*; choose another name"):
        write_named_selection(run, "round-2", table.slice(1), {"k": 1})
    Path(run.storage.path("selections/round-2.json")).unlink()
    with pytest.raises(ConfigError, match=r"exists"):
        write_named_selection(run, "round-2", table.slice(1), {"k": 1})
    assert pq.read_table(path).equals(table)
    with pytest.raises(TypeError):  # a manifest that cannot be written leaves no selection without one
        write_named_selection(run, "other", table, {"note": object()})
    assert run.storage.names("selections") == ["round-2.parquet"]


def test_the_manifest_claims_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, [[1.0, 2.0]])
    table = select_batch(run, run.config, k=2)

    def full_disk(name: str, fill: Any) -> None:
        raise StoppedError("no space left")

    monkeypatch.setattr(run.storage, "publish", full_disk)
    with pytest.raises(StoppedError):
        write_named_selection(run, "a", table, {"k": 2})
    monkeypatch.undo()
    claimed = run.storage.read("selections/a.json")
    with pytest.raises(ConfigError, match="exists"):
        write_named_selection(run, "a", table.slice(1), {"k": 1})
    assert run.storage.names("selections") == ["a.json"]
    assert pq.read_table(write_named_selection(run, "a", table, {"k": 2})).equals(table)  # the same command goes on
    assert run.storage.read("selections/a.json") == claimed


@pytest.mark.parametrize(("parts", "complete"), [([[1.0], [2.0]], True), ([[1.0], None], False)])
def test_a_selection_says_whether_it_is_complete(tmp_path: Path, parts: list[Column | None], complete: bool) -> None:
    run = make_run(tmp_path, parts, k=1)
    write_selection(run.storage, select_batch(run, run.config))
    expected = {
        "complete": complete,
        "shards_scored": 1 + complete,
        "shards": 2,
        "pool_digest": "digest of the pool",
        "weights_digest": "digest of the weights",
        "method": "topk",
        "score": "bald",
        "k": 1,
    }
    assert json.loads(pq.read_schema(run.storage.path(SELECTION)).metadata[b"poolscore"]) == expected
    write_named_selection(run, "a", select_batch(run, run.config), {"k": 1})
    assert json.loads(run.storage.read("selections/a.json")) == {"name": "a", "rows": 1, "k": 1, **expected}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a b", "a\n", "a\x00", "ä", "n" * 101, "~", "*"]
)
def test_names_are_no_paths(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path, [[1.0]])
    with pytest.raises(ConfigError, match=r"^--name "):
        write_named_selection(run, name, select_batch(run, run.config, k=1), {})
    assert run.storage.names("selections") == []


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "a..b", "-", "n" * 100])
def test_other_names_are_allowed(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path, [[1.0]])
    write_named_selection(run, name, select_batch(run, run.config, k=1), {})
    assert run.storage.names("selections") == sorted([f"{name}.json", f"{name}.parquet"])


def test_selecting_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys, poolscore.engine.selection.batch, poolscore.engine.run.directory;"
        "sys.exit(bool({'torch', 'ray', 'triton', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_large_selection_over_many_parts(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    parts = [random.integers(0, 50, random.integers(1, 400)).astype(float).tolist() for _ in range(40)]
    run = make_run(tmp_path, parts)
    for k in (1, 100, 3000, 10**6):
        assert chosen(run, k) == full_sort(parts, k)
    assert isinstance(impatient(run.storage), LocalStorage)
