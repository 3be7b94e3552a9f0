"""Why a row is not in a selection, against a plain walk over all rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_shortlist import write_shortlist
from test_select import make_run

from poolscore.engine.explain.picked import Membership
from poolscore.engine.explain.row import explain
from poolscore.engine.keys import keys_of
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.batch import selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.ranking import ranking_of
from poolscore.engine.selection.write import write_batch, write_named_selection
from poolscore.engine.words import amount

ROWS = 90
CAMERAS = ["a", "b", None, "c", "d"]  # a row without one is in no group
KEEP: dict[str, Any] = {"camera": (lambda i: CAMERAS[i % 5], pa.dictionary(pa.int32(), pa.string()))}
SCORES = np.random.default_rng(0).integers(1, 30, ROWS) / 32  # with ties


def a_run(root: Path) -> RunDirectory:
    scores = SCORES.tolist()
    return make_run(root, [scores[:40], scores[40:41], scores[41:]], 12, KEEP)


def write(run: RunDirectory, name: str, exclude: str | None = None, **wanted: Any) -> None:
    choice = Choice.of(run.config, **wanted)
    with selected([run], run.config, choice, exclude=exclude) as batch:
        write_named_selection(run, name, batch, {"exclude": exclude})


def membership(run: RunDirectory, row_id: int, name: str) -> Membership:
    (found,) = explain(run, row_id=row_id)
    return next(one for one in found.selections if one.file == f"selections/{name}.parquet")


@pytest.mark.parametrize("method", ["topk", "power", "softmax"])
def test_a_list_a_cap_or_a_quota(tmp_path: Path, method: str) -> None:
    run, sent = a_run(tmp_path / "run"), tmp_path / "sent.csv"
    _, values = ranking_of(method, 2.0, 5).at_least(
        SCORES.astype(np.float32), keys_of([f"r{i}" for i in range(ROWS)]), -np.inf
    )
    order = np.lexsort((keys_of([f"r{i}" for i in range(ROWS)]), -values)).tolist()
    sent.write_text("id\n" + "".join(f"r{i}\n" for i in order[1:30:6]))
    wanted = {"method": method, "beta": 2.0, "seed": 5, "k": 20, "control": 0.1}
    write(run, "x", str(sent), max_per_group={"camera": 5}, quotas={"1": 1, "2": 1, "3": 1}, **wanted)
    table = pq.read_table(run.storage.path("selections/x.parquet")).select(["row_id", "method"]).to_pylist()
    control = [row["row_id"] for row in table if row["method"] == "control"]
    taken = [row["row_id"] for row in table if row["method"] == method]
    assert (len(control), len(taken)) == (2, 18)
    cameras = Counter(CAMERAS[i % 5] for i in control)
    classes = Counter(i % 7 for i in control)
    seen = Counter[str]()
    for row_id in order[: order.index(taken[-1]) + 1]:
        camera, number = CAMERAS[row_id % 5], row_id % 7
        why = membership(run, row_id, "x").left_out
        if row_id in control:
            assert why is None
        elif row_id in order[1:30:6]:
            assert why == f"left out: its id is in --exclude {sent}"
            seen["list"] += 1
        elif camera is not None and cameras[camera] >= 5:
            assert why == f"left out by max_per_group camera=5: its group is full with {cameras[camera]} rows before it"
            seen["cap"] += 1
        elif classes[number] >= {1: 1, 2: 1, 3: 1}.get(number, ROWS):
            rows = amount(classes[number], "row")
            assert why == f"left out by quota {number}=1: its group is full with {rows} before it"
            seen["quota"] += 1
        else:
            assert row_id in taken
            assert why is None
            cameras[camera] += 1
            classes[number] += 1
    assert set(seen) == {"list", "cap", "quota"}
    rest = [i for i in order[order.index(taken[-1]) + 1 :] if i not in control and i not in order[1:30:6]]
    assert {membership(run, i, "x").left_out for i in rest[:10]} == {None}  # others are simply better
    sent.unlink()
    gone = membership(run, order[1], "x").left_out
    assert gone == f"left out: its id is in --exclude {sent}, which cannot be read any more"


def test_fewer_rows_than_were_asked_for(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    select = run.config.select.model_copy(update={"k": 80, "max_per_group": {"prediction": 1}})
    write_batch(run, run.config.model_copy(update={"select": select}))  # the run's own: all rows were walked over
    (own,) = explain(run, row_id=int(np.argmin(SCORES)))[0].selections
    assert (own.rows, own.left_out) == (
        7,
        "left out by max_per_group prediction=1: its group is full with 1 row before it",
    )


def test_near_duplicates_and_rows_that_are_no_candidates(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    best = np.argsort(-SCORES, kind="stable")[:10].tolist()
    features, scores = np.eye(10)[[0, 0, 1, 2, 3, 4, 5, 6, 7, 8]], SCORES[best].astype(np.float32)
    write_shortlist(run, best, features, np.log(np.full((10, 2, 2), 0.5)), further={"bald": scores})
    write(run, "alike", k=4, max_per_group={"near_duplicates": 1})
    write(run, "centres", k=4, method="kcenter")
    picked = set(pq.read_table(run.storage.path("selections/alike.parquet"))["row_id"].to_pylist())
    (twin,) = {best[0], best[1]} - picked
    why = "left out: rows before it are like it (max_per_group near_duplicates=1)"
    assert membership(run, twin, "alike").left_out == why
    other = int(np.argsort(-SCORES, kind="stable")[40])
    for name, what in (("alike", "max_per_group near_duplicates"), ("centres", "kcenter")):
        why = f"no candidate: it is not on the shortlist, whose rows alone {what} takes"
        assert membership(run, other, name).left_out == why


def test_a_shard_that_was_scored_later(tmp_path: Path) -> None:
    scores = SCORES.tolist()
    run = make_run(tmp_path, [scores[:40], None], 5, KEEP)
    write(run, "early")
    later = a_run(tmp_path / "later")
    best = int(np.argmax(SCORES[40:])) + 40
    early = run.storage.read("selections/early.parquet")
    later.storage.publish("selections/early.parquet", lambda file: file.write(early))
    why = "left out: its shard was not scored yet when the selection was made"
    assert membership(later, best, "early").left_out == why


def test_a_selection_that_does_not_say_what_it_was_asked_for(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    write(run, "old", max_per_group={"camera": 1})
    table = pq.read_table(run.storage.path("selections/old.parquet")).replace_schema_metadata()
    run.storage.publish("selections/old.parquet", lambda file: pq.write_table(table, file))
    row_id = next(int(i) for i in np.argsort(-SCORES, kind="stable") if int(i) not in table["row_id"].to_pylist())
    assert "camera=1" in str(membership(run, row_id, "old").left_out)  # its manifest says it
    run.storage.delete("selections/old.json")
    assert membership(run, row_id, "old").left_out is None
