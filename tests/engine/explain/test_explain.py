"""What `explain` says of a row, against plain Python over everything."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_shortlist import write_shortlist
from test_select import Column, full_sort, make_run

from poolscore.engine.config import parse_config
from poolscore.engine.errors import ConfigError
from poolscore.engine.explain.row import Became, explain
from poolscore.engine.keys import keys_of
from poolscore.engine.pool.plan import Plan
from poolscore.engine.run.create import write_plan
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import Journal, ShardReport
from poolscore.engine.selection.batch import select_batch
from poolscore.engine.selection.write import write_named_selection, write_selection
from poolscore.engine.shortlist.listing import Listing
from poolscore.engine.shortlist.read import ABOUT, LOG_PROBS
from poolscore.jobs.explain import lines_of

NAN = float("nan")
CAMERA: dict[str, Any] = {"camera": (lambda i: "abc"[i % 3], pa.string())}
# Ties within and between parts, 0.0 beside -0.0, a rejected row, a shard without a result.
PARTS: list[Column | None] = [[0.5, 0.25, 0.0, 0.5], [0.25, -0.0, NAN, 0.75, 0.25], None, [0.0, 0.25, 1.0]]


def finished(root: Path, parts: list[Column | None] = PARTS, k: int = 3) -> RunDirectory:
    run = make_run(root, parts, k, CAMERA)
    write_selection(run.storage, select_batch(run, run.config))
    return RunDirectory(str(root))


def test_places_are_those_of_a_full_sort(tmp_path: Path) -> None:
    run = finished(tmp_path)
    for sign, score in ((1, "bald"), (-1, "entropy")):
        ranked = full_sort(PARTS, 99, sign=sign)
        assert len(ranked) == 11
        for rank, row_id in enumerate(ranked, start=1):
            (found,) = explain(run, f"r{row_id}")
            assert found.row_id == row_id
            standing = next(s for s in found.standings if s.score == score)
            assert (standing.rank, standing.of, standing.share) == (rank, 11, rank / 11)


def test_random_runs_have_the_places_of_a_full_sort(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    parts = [(random.integers(0, 40, n) / 8).tolist() for n in (70, 1, 130)]
    parts[2][7] = float("inf")  # no selection takes it
    run = make_run(tmp_path, parts)
    ranked = full_sort(parts, 999)
    assert explain(run, row_id=78)[0].standings[0].rank is None
    for row_id in range(0, 201, 20):
        (found,) = explain(run, row_id=row_id)
        assert found.standings[0].rank == ranked.index(row_id) + 1


def test_what_a_row_is(tmp_path: Path) -> None:
    (found,) = explain(finished(tmp_path), "r7")
    assert (found.became, found.because, found.row_id) == (Became.SCORED, "", 7)
    assert found.location is not None
    assert found.row is not None
    assert (found.location.shard, found.location.path, found.location.row) == (1, "1.parquet", 3)
    assert found.row.select(["prediction", "confidence", "camera"]).to_pylist() == [
        {"prediction": 0, "confidence": pytest.approx(0.007), "camera": "b"}
    ]
    assert not found.has_shortlist
    assert found.on_shortlist is None


def test_its_selections(tmp_path: Path) -> None:
    run = finished(tmp_path)
    power = select_batch(run, run.config, k=11, method="power", score="entropy")
    write_named_selection(run, "power", power, {})
    control = power.slice(4, 2).set_column(power.schema.get_field_index("method"), "method", [["control", "power"]])
    write_named_selection(run, "other", control, {})
    best, rest = full_sort(PARTS, 3), full_sort(PARTS, 11)[3:]
    for rank, row_id in enumerate(best, start=1):
        first = explain(run, f"r{row_id}")[0].selections[0]
        assert (first.file, first.rows, first.score, first.method) == ("selection.parquet", 3, "bald", "topk")
        assert first.why is not None
        assert first.why["rank"] == rank
    row_id = power["row_id"][5].as_py()
    own, other, by_chance = explain(run, row_id=row_id)[0].selections
    assert (own.why is None) == (row_id in rest)
    assert (other.file, other.method, other.score) == ("selections/other.parquet", "power", "entropy")  # not control
    assert by_chance.why is not None
    assert by_chance.why["rank"] == 6
    assert by_chance.why["perturbed_score"] == power["perturbed_score"][5].as_py()
    control_row = explain(run, row_id=power["row_id"][4].as_py())[0].selections[1]
    assert control_row.why is not None
    assert control_row.why["method"] == "control"


def test_what_its_passes_said_and_what_is_like_it(tmp_path: Path) -> None:
    run = finished(tmp_path)
    random = np.random.default_rng(0)
    on_list = [12, 7, 0, 3, 1]  # the batch is 12, 7 and one of 0 and 3
    in_batch = full_sort(PARTS, 3)
    features = random.normal(size=(5, 8))
    features[on_list.index(1)] = 2 * features[0] + 0.1  # like row 12
    probabilities = random.dirichlet(np.ones(7), size=(5, 4))
    write_shortlist(run, on_list, features, np.log(probabilities))
    (found,) = explain(run, "r1")
    assert found.on_shortlist is not None
    passes, near = found.on_shortlist.passes, found.on_shortlist.neighbours
    of_row = probabilities[on_list.index(1)]
    order = np.argsort(-of_row.mean(axis=0))[:5].tolist()
    assert (passes.count, passes.more, [c.number for c in passes.columns]) == (4, 2, order)
    assert passes.says == tuple(of_row.argmax(axis=1))
    for column in passes.columns:
        assert column.mean == pytest.approx(of_row[:, column.number].mean(), rel=1e-5)
        assert column.std == pytest.approx(of_row[:, column.number].std(), rel=1e-5)
        assert column.votes == (of_row.argmax(axis=1) == column.number).sum()
        assert column.by_pass == pytest.approx(of_row[:, column.number], rel=1e-5)
    assert [n.near_duplicate for n in near] == [True, False, False]
    assert {n.row_id for n in near} == set(in_batch)  # not itself, and not what is no part of the batch
    for neighbour in near:
        a, b = features[-1], features[on_list.index(neighbour.row_id)]
        assert neighbour.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
        assert in_batch[neighbour.rank - 1] == neighbour.row_id
    (own,) = explain(run, "r12")
    assert own.on_shortlist is not None
    assert {n.row_id for n in own.on_shortlist.neighbours} == set(in_batch) - {12}
    (absent,) = explain(run, "r2")
    assert absent.has_shortlist
    assert absent.on_shortlist is None


@pytest.mark.parametrize("damage", ["shortlist/part-1.parquet", "shortlist/rows-0.parquet", ABOUT])
def test_a_damaged_shortlist_spoils_nothing_else(tmp_path: Path, damage: str) -> None:
    run = finished(tmp_path)
    write_shortlist(run, [12, 7, 0, 3, 1], np.eye(5), np.log(np.full((5, 2, 2), 0.5)))
    run.storage.publish(damage, lambda file: file.write(b"{"))
    (found,) = explain(run, "r12")
    assert (found.standings[0].rank, found.has_shortlist, found.on_shortlist) == (1, True, None)
    assert found.selections[0].why is not None
    assert found.no_shortlist is not None
    assert damage in found.no_shortlist
    assert lines_of(found, run.config)[-1] == f"the shortlist cannot be read: {found.no_shortlist}"


def test_passes_are_read_of_the_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(tmp_path)
    write_shortlist(run, [12, 7, 0, 3, 1], np.eye(5), np.log(np.full((5, 2, 2), 0.5)))
    read, columns_of = [], Listing._columns

    def noted(listing: Listing, name: str, columns: list[str]) -> pa.Table:
        read.append((name, *columns))
        return columns_of(listing, name, columns)

    monkeypatch.setattr(Listing, "_columns", noted)
    assert explain(run, "r1")[0].on_shortlist is not None
    assert [name for name, *columns in read if LOG_PROBS in columns] == ["shortlist/part-0.parquet"]


@pytest.mark.parametrize("task", ["multilabel", "regression", "binary"])
def test_passes_of_other_tasks(tmp_path: Path, task: str) -> None:
    run = finished(tmp_path)
    run.__dict__["config"] = run.config.model_copy(
        update={"model": parse_config({**_minimal(tmp_path), "model": {"source": "m:f", "task": task}}).model}
    )
    values = np.random.default_rng(0).uniform(0.05, 0.95, size=(2, 6, 3))
    wide = {
        "multilabel": np.concatenate([np.log(values), np.log(1 - values)], axis=2),
        "regression": values,
        "binary": np.log(np.concatenate([1 - values[:, :, :1], values[:, :, :1]], axis=2)),
    }[task]
    write_shortlist(run, [7, 11], np.eye(2), wide, log_probs=task != "regression")
    found = explain(run, "r11")[0].on_shortlist
    assert found is not None
    by_number = {column.number: column for column in found.passes.columns}
    if task == "binary":
        assert by_number[1].mean == pytest.approx(values[1, :, 0].mean(), rel=1e-5)
        assert by_number[1].votes == (values[1, :, 0] > 0.5).sum()
        return
    assert found.passes.says is None
    for number in range(3):
        assert by_number[number].mean == pytest.approx(values[1, :, number].mean(), rel=1e-5)
        votes = (values[1, :, number] > 0.5).sum() if task == "multilabel" else None
        assert by_number[number].votes == votes
    assert len(by_number) == 3


def _minimal(root: Path) -> dict[str, Any]:
    return {"pool": {"uri": "/p", "input": "x"}, "select": {"k": 1}, "run": {"dir": str(root)}}


def _with_plan(run: RunDirectory, plan: Plan) -> RunDirectory:
    write_plan(run.storage, plan)
    return RunDirectory(run.storage.root)


def _journalled(run: RunDirectory, report: ShardReport) -> RunDirectory:
    with_report = Journal(run.storage)
    with_report.append(report)
    with_report.close()
    return RunDirectory(run.storage.root)


def _errors(run: RunDirectory, shard: int, rows: dict[int, tuple[str | None, str, str]], **more: int) -> RunDirectory:
    """A shard of which every row was rejected: row_id → id, stage, error."""
    ids = [id_ for id_, _, _ in rows.values()]
    table = pa.table(
        {
            "row_id": pa.array(list(rows), pa.int64()),
            "key": pa.array(keys_of([id_ or "nothing" for id_ in ids])),
            "id": pa.array(ids, pa.string()),
            "stage": [stage for _, stage, _ in rows.values()],
            "error": [error for _, _, error in rows.values()],
        }
    )
    run.storage.publish("errors/part-x.parquet", lambda file: pq.write_table(table, file))
    empty = pq.read_table(run.storage.path("scores/part-00000-x.parquet")).slice(0, 0)
    run.storage.publish("scores/part-none.parquet", lambda file: pq.write_table(empty, file))
    report = ShardReport(
        shard, "scores/part-none.parquet", "errors/part-x.parquet", 0, len(rows), 0, {}, {}, 1.0, "w", 1
    )
    return _journalled(run, replace(report, **more))


def test_rows_that_were_not_scored(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [[1.0, 2.0], None, None, None, None])
    rejected = {2: ("r2", "decode", "no picture"), 3: (None, "read", "no bytes")}
    run = _errors(run, 1, {2: rejected[2]})
    with pytest.raises(ConfigError, match="there is no row 99; rows are 0 to 5"):
        explain(run, row_id=99)
    (found,) = explain(run, "r2")
    assert (found.became, found.because, found.row_id) == (Became.REJECTED, "decode: no picture", 2)
    assert found.location is not None
    assert found.location.shard == 1
    assert explain(run, row_id=2) == [found]
    (waiting,) = explain(run, row_id=4)
    assert (waiting.became, waiting.because) == (Became.NOT_SCORED, "its shard has no result yet")
    run.update(set_aside={"3": "its file is gone"})
    (aside,) = explain(run, row_id=4)
    assert aside.because == "its shard was set aside: its file is gone"


def test_rows_that_were_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [[1.0, 2.0], None, None, None])
    report = run.reports()[0]
    none = replace(report, scored=0, scores="scores/none.parquet", best={})
    empty = pq.read_table(run.storage.path(report.scores)).slice(0, 0)
    run.storage.publish("scores/none.parquet", lambda file: pq.write_table(empty, file))
    run = _journalled(run, replace(none, shard=1, excluded=1))
    run = _journalled(run, replace(none, shard=2, filtered=1))
    run = _journalled(run, replace(none, shard=3, filtered=1, excluded=1))
    became = [explain(run, row_id=i)[0].became for i in (2, 3, 4)]
    assert became == [Became.EXCLUDED, Became.LEFT_OUT, Became.LEFT_OUT]
    assert "or pool.exclude" in explain(run, row_id=4)[0].because
    run = _with_plan(run, replace(run.plan, passed_over=10))
    assert explain(run, row_id=14)[0].became is Became.LEFT_OUT
    with pytest.raises(ConfigError, match="rows are 0 to 14"):
        explain(run, row_id=15)


def test_an_unknown_id_is_not_guessed(tmp_path: Path) -> None:
    run = finished(tmp_path)
    for unknown in ("r99", "R7", "r6", ""):
        with pytest.raises(ConfigError, match=rf"no scored or rejected row has the id '{unknown}'.*1 shard without"):
            explain(run, unknown)
    for neither in ({}, {"row": "r1", "row_id": 1}):
        with pytest.raises(ConfigError, match="give an ID or --row-id N"):
            explain(run, **neither)


def test_an_excluded_id(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    listed = tmp_path / "sent.csv"
    listed.write_text("id\nr77\n")
    pool = run.config.pool.model_copy(update={"exclude": str(listed)})
    run.__dict__["config"] = run.config.model_copy(update={"pool": pool})
    assert explain(run, "r77")[0].became is Became.EXCLUDED
    listed.unlink()
    with pytest.raises(ConfigError, match=r"it may be among the 1 shard without a result or in .*sent.csv"):
        explain(run, "r77")


def _with_ids(run: RunDirectory, ids: pa.Array, keys: list[str | bytes]) -> RunDirectory:
    """The rows of shard 0 under other ids."""
    name = run.reports()[0].scores
    table = pq.read_table(run.storage.path(name))
    table = table.set_column(1, "key", pa.array(keys_of(keys))).set_column(2, "id", ids)
    run.storage.publish(name, lambda file: pq.write_table(table, file))
    return run


def test_ids_of_all_kinds(tmp_path: Path) -> None:
    numbers = _with_ids(make_run(tmp_path / "a", [[1.0, 2.0, 3.0]]), pa.array([17, 4, 17]), ["17", "4", "17"])
    assert [found.row_id for found in explain(numbers, "17")] == [0, 2]
    assert [found.id for found in explain(numbers, "4")] == [4]
    assert [s.rank for found in explain(numbers, "17") for s in found.standings[:1]] == [3, 1]
    write_selection(numbers.storage, select_batch(numbers, numbers.config, k=1))
    assert [found.selections[0].why is None for found in explain(numbers, "17")] == [True, False]
    ties = _with_ids(make_run(tmp_path / "t", [[3.0, 5.0, 3.0, 3.0]]), pa.array([1, 4, 1, 1]), ["1", "4", "1", "1"])
    assert [found.standings[0].rank for found in explain(ties, "1")] == [2, 3, 4]
    binary = _with_ids(make_run(tmp_path / "b", [[1.0, 2.0]]), pa.array([b"\xff\x00", b"ab"]), [b"\xff\x00", b"ab"])
    assert [explain(binary, id_)[0].row_id for id_ in ("0xff00", "ab", "0x6162")] == [0, 1, 1]
    null = _with_ids(make_run(tmp_path / "n", [[1.0, 2.0]]), pa.array([None, "x"]), ["0.parquet#0", "x"])
    assert [found.row_id for found in explain(null, "0.parquet#0")] == [0]
    collision = _with_ids(make_run(tmp_path / "c", [[1.0, 2.0]]), pa.array(["x", "y"]), ["x", "x"])
    assert [found.row_id for found in explain(collision, "x")] == [0]


def test_rows_by_path_and_row(tmp_path: Path) -> None:
    run = make_run(tmp_path, [[1.0, 2.0], None])
    run.__dict__["config"] = run.config.model_copy(update={"pool": run.config.pool.model_copy(update={"id": None})})
    (found,) = explain(run, "0.parquet#1")
    assert (found.row_id, found.became) == (1, Became.SCORED)
    (waiting,) = explain(run, "1.parquet#0")
    assert (waiting.became, waiting.id) == (Became.NOT_SCORED, "1.parquet#0")
    for unknown in ("0.parquet", "0.parquet#x", "2.parquet#0", "0.parquet#-1"):
        with pytest.raises(ConfigError, match=f"there is no row '{unknown}'"):
            explain(run, unknown)
    with pytest.raises(ConfigError, match=r"no shard of this run has row 2 of 0\.parquet"):
        explain(run, "0.parquet#2")


def test_it_needs_no_torch(tmp_path: Path) -> None:
    finished(tmp_path)
    code = (
        "import sys; from poolscore.jobs.cli import main; sys.argv = ['poolscore', 'explain', sys.argv[1], 'r7']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "row r7" in done.stdout
