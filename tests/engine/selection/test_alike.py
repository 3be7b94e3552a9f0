"""What a selection says of its near-duplicates, against plain numpy over the same rows."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_shortlist import write_shortlist
from numpy.typing import NDArray
from test_select import full_sort, make_run, write_part

from poolscore.engine.keys import keys_of
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import Journal
from poolscore.engine.selection.alike import OPTION, NearDuplicates, near_duplicates_of
from poolscore.engine.selection.batch import selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.write import write_batch
from poolscore.engine.shortlist.read import ABOUT

PARTS = [np.linspace(0, 1, 40).tolist(), np.linspace(0.3, 0.7, 30).tolist()]


def of_batch(runs: list[RunDirectory], k: int) -> NearDuplicates:
    with selected(runs, runs[0].config, Choice.of(runs[0].config, k=k)) as batch:
        return near_duplicates_of(runs, batch)


def features_of(seed: int = 0) -> NDArray[np.float64]:
    """One row a row_id: 12 directions, so that many are alike."""
    random = np.random.default_rng(seed)
    return random.normal(size=(12, 6))[random.integers(0, 12, 70)] * random.uniform(1, 3, (70, 1))


def repeated(features_NF: NDArray[np.floating]) -> int:
    unit = features_NF / np.linalg.norm(features_NF, axis=1, keepdims=True)
    return int(np.tril(unit @ unit.T > 0.95, k=-1).any(axis=1).sum())


def test_rows_on_the_shortlist_are_counted(tmp_path: Path) -> None:
    run, features = make_run(tmp_path, PARTS), features_of()
    best = full_sort(PARTS, 70)
    listed = [best[i] for i in np.random.default_rng(1).permutation(50)]
    write_shortlist(run, listed, features[listed], np.zeros((50, 2, 3)))
    for k in (1, 20, 70):
        known = [row_id for row_id in best[:k] if row_id in listed]
        found = of_batch([run], k)
        assert (found.rows, found.known, found.repeated) == (k, min(k, 50), repeated(features[known]))
        assert found.many == (k > 1)
        assert found.rate == found.repeated / found.known
        assert NearDuplicates.from_json(found.to_json()) == found
    assert of_batch([run], 0).rate is None


def test_rows_of_several_runs(tmp_path: Path) -> None:
    """Runs may know the same row_ids, each of its own rows; one of the runs has no shortlist."""
    runs = [
        make_run(tmp_path / name, [part]) for name, part in zip("abc", ([0.1, 0.9], [0.2, 0.8], [0.5]), strict=True)
    ]
    for run, ids in zip(runs, ("xy", "zw", "v"), strict=True):
        _rename(run, ids)
    features = np.eye(4)
    write_shortlist(runs[0], [0, 1], features[:2], np.zeros((2, 1, 3)))
    write_shortlist(runs[1], [1, 0], features[[1, 2]], np.zeros((2, 1, 3)))  # w is like y
    found = of_batch(runs, 5)
    assert (found.rows, found.known, found.repeated) == (5, 4, 1)


def test_the_rows_of_several_runs_are_in_the_order_of_the_batch(tmp_path: Path) -> None:
    """Being alike is not transitive: of directions 0, 30 and 15 degrees the last alone is like one before it."""
    runs = [make_run(tmp_path / name, [part]) for name, part in zip("ab", ([0.8, 0.1], [0.9]), strict=True)]
    for run, ids in zip(runs, ("xy", "z"), strict=True):
        _rename(run, ids)
    turned = np.array([[np.cos(a), np.sin(a)] for a in np.deg2rad([0, 15, 30])])
    write_shortlist(runs[0], [0, 1], turned[[2, 1]], np.zeros((2, 1, 3)))
    write_shortlist(runs[1], [0, 99], turned[[0, 0]], np.zeros((2, 1, 3)))
    found = of_batch(runs, 3)
    assert (found.known, found.repeated) == (3, 1)


def test_an_older_shortlist_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path, [*PARTS, None], k=10)
    write_shortlist(run, [39, 69], np.ones((2, 3)), np.zeros((2, 1, 3)))
    assert of_batch([run], 10).lacks is None
    journal = Journal(run.storage)  # a shard that is scored later
    journal.append(write_part(run, 2, 70, [0.5], {}))
    journal.close()
    found = of_batch([run], 10)
    assert (found.known, found.lacks) == (1, "it was made of other scores than the run has now")
    assert found.in_words().endswith("the shortlist that tells it is not what it should be: " + str(found.lacks))
    assert NearDuplicates.from_json(found.to_json()) == found


def test_a_shortlist_that_is_made_anew_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader began with is swept: it begins once more with the new one, and once alone."""
    run = make_run(tmp_path, PARTS)
    write_shortlist(run, [39, 38], np.ones((2, 3)), np.zeros((2, 1, 3)))
    old = json.loads(run.storage.read(ABOUT))
    gone = json.dumps({**old, "table": "shortlist/rows-old.parquet"}).encode()
    read, once = run.storage.read, iter([gone])
    monkeypatch.setattr(run.storage, "read", lambda name: (name == ABOUT and next(once, None)) or read(name))
    assert of_batch([run], 3).known == 2
    monkeypatch.setattr(run.storage, "read", lambda name: gone if name == ABOUT else read(name))
    assert "rows-old.parquet" in of_batch([run], 3).in_words()


def test_memory_is_that_of_the_rows_of_the_batch(tmp_path: Path) -> None:
    """The shortlist of each run has 8 MB of features and 8 MB of passes; the batch has ten rows of it."""
    runs = [make_run(tmp_path / name, [np.linspace(0, 1, 1000).tolist()], k=10) for name in "ab"]
    for run in runs:
        write_shortlist(run, list(range(1000)), np.ones((1000, 2000)), np.zeros((1000, 20, 100)))
    tracemalloc.start()
    try:
        found = of_batch(runs, 10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.known, found.repeated) == (10, 9)
    assert peak < 4e6


def test_a_run_whose_part_is_gone_does_not_hide_the_others(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, [[0.1, 0.9]]) for name in "ab"]
    _rename(runs[1], "zw")
    for run in runs:
        write_shortlist(run, [0, 1], np.ones((2, 3)), np.zeros((2, 1, 3)))
    runs[1].storage.delete("shortlist/part-1.parquet")
    found = of_batch(runs, 4)
    assert (found.rows, found.known, found.repeated) == (4, 2, 1)


def _rename(run: RunDirectory, ids: str) -> None:
    name = run.reports()[0].scores
    table = pq.read_table(run.storage.path(name))
    table = table.set_column(1, "key", pa.array(keys_of(list(ids)))).set_column(2, "id", pa.array(list(ids)))
    run.storage.publish(name, lambda file: pq.write_table(table, file))


def test_it_is_said_in_words() -> None:
    few, many = NearDuplicates(20, 20, 2), NearDuplicates(2000, 1000, 101)
    assert few.in_words(OPTION) == "2 of 20 rows (10.0%) are like a row before them"
    assert many.in_words(OPTION) == (
        "101 of the 1,000 rows that are on a shortlist (10.1%) are like a row before them; "
        "--max-per-group near_duplicates=1 takes one of each"
    )
    assert "select.max_per_group: {near_duplicates: 1} in the configuration takes one of each" in many.in_words()
    assert "takes one of each" not in NearDuplicates(9, 9, 5, capped=True).in_words()
    assert NearDuplicates(9, 0, 0, why="no shortlist").in_words() == "not known (no shortlist)"


def test_the_option_takes_one_of_each(tmp_path: Path) -> None:
    run, features = make_run(tmp_path, PARTS), features_of()
    write_shortlist(run, full_sort(PARTS, 70), features[full_sort(PARTS, 70)], np.zeros((70, 2, 3)))
    choice = Choice.of(run.config, k=12, max_per_group={"near_duplicates": 1})
    with selected([run], run.config, choice) as batch:
        found = near_duplicates_of([run], batch)
    assert (found.rows, found.repeated, found.capped) == (12, 0, True)


@pytest.mark.parametrize("damage", ["none", "not JSON", "a part is gone"])
def test_what_cannot_be_known_does_not_lose_the_selection(tmp_path: Path, damage: str) -> None:
    run = make_run(tmp_path, PARTS)
    if damage != "none":
        write_shortlist(run, [3, 2], np.eye(2), np.zeros((2, 1, 3)))
        run.storage.delete("shortlist/part-1.parquet")
    if damage == "not JSON":
        run.storage.publish(ABOUT, lambda file: file.write(b"{"))
    found = write_batch(run, run.config).near_duplicates
    assert (found.rows, found.known) == (3, 0)
    assert "shortlist" in found.in_words()
    assert "selection.parquet" in run.storage.names("")
