"""Caps and control rows where candidates are the rows of a shortlist: near-duplicates, and batch-aware methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from made_shortlist import write_shortlist
from numpy.typing import NDArray
from test_select import make_run

from poolscore.engine.errors import ConfigError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.batch import select_batch, selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.methods import AWARE
from poolscore.engine.selection.near_duplicates import near_duplicate_rate
from poolscore.engine.selection.ranking import METHODS

ROWS, LISTED = 120, 80


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def directions(random: np.random.Generator) -> NDArray[np.int64]:
    """Which of a few directions each row's features have: rows of one are near-duplicates."""
    return random.integers(0, 12, ROWS)


@pytest.fixture
def run(tmp_path: Path, random: np.random.Generator, directions: NDArray[np.int64]) -> RunDirectory:
    """A run whose shortlist has its best LISTED rows."""
    scores = random.random(ROWS)
    keep = {"camera": (lambda i: "ab"[i % 2], pa.string())}
    run = make_run(tmp_path, [scores[at : at + 30].tolist() for at in range(0, ROWS, 30)], 10, keep)
    table = select_batch(run, run.config, k=LISTED)
    score = table["score"]
    further = {"bald": score, "entropy": pc.negate(score), "prediction": table["prediction"], "camera": table["camera"]}
    best = table["row_id"].to_pylist()
    features = np.eye(12)[directions[best]] + random.normal(0, 0.01, (LISTED, 12))
    logits = random.normal(0, 2, (LISTED, 8, 3))
    write_shortlist(run, best, features, logits - np.log(np.exp(logits).sum(-1, keepdims=True)), further=further)
    return run


def order_of(run: RunDirectory) -> list[int]:
    """All rows, best first."""
    row_ids: list[int] = select_batch(run, run.config, k=ROWS)["row_id"].to_pylist()
    return row_ids


def first_of_each(order: Sequence[int], directions: NDArray[np.int64], seen: Sequence[int] = ()) -> list[int]:
    """The first row of each direction."""
    found = {int(directions[i]) for i in seen}
    taken = []
    for row in order:
        if int(directions[row]) not in found:
            found.add(int(directions[row]))
            taken.append(row)
    return taken


@pytest.mark.parametrize("method", ["topk", "power", "softrank"])
def test_one_row_of_near_duplicates(run: RunDirectory, directions: NDArray[np.int64], method: str) -> None:
    listed = order_of(run)[:LISTED]
    wanted = {"method": method, "seed": 2}
    order = [i for i in select_batch(run, run.config, k=ROWS, **wanted)["row_id"].to_pylist() if i in listed]
    if method == "softrank":  # whose noise is of the rank among the candidates
        order = select_batch(run, run.config, k=LISTED, max_per_group={"near_duplicates": 99}, **wanted)[
            "row_id"
        ].to_pylist()
        assert sorted(order) == sorted(listed)
    expected = first_of_each(order, directions)
    for k in (1, 5, len(expected)):
        table = select_batch(run, run.config, k=k, max_per_group={"near_duplicates": 1}, **wanted)
        assert table["row_id"].to_pylist() == expected[:k]
    features = np.eye(12)[directions[expected]]
    assert near_duplicate_rate(features, np.zeros(12)) == 0
    with pytest.raises(
        ConfigError, match=rf"{len(expected)} rows of the shortlist are left .*near_duplicates=1\); raise"
    ):
        select_batch(run, run.config, k=len(expected) + 1, max_per_group={"near_duplicates": 1}, **wanted)


def test_clusters_are_made_in_the_order_of_the_method(run: RunDirectory, tmp_path: Path) -> None:
    """a is like b and b like c, but a is not like c: with b first one row is taken, otherwise two."""
    angles = np.radians([0.0, 15.0, 30.0])
    chain = make_run(tmp_path / "chain", [[3.0, 2.0, 1.0]])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    write_shortlist(chain, [0, 1, 2], features, np.log(np.full((3, 2, 2), 0.5)))
    for score, expected in (("bald", [0, 2]), ("entropy", [2, 0])):
        table = select_batch(chain, chain.config, score=score, max_per_group={"near_duplicates": 1})
        assert table["row_id"].to_pylist() == expected
    (tmp_path / "sent.csv").write_text("id\nr0\n")
    sent = str(tmp_path / "sent.csv")
    table = select_batch(chain, chain.config, k=1, exclude=sent, max_per_group={"near_duplicates": 1})
    assert table["row_id"].to_pylist() == [1]


def test_control_rows_come_from_the_whole_pool(run: RunDirectory, directions: NDArray[np.int64]) -> None:
    wanted = {"k": 10, "control": 0.5, "max_per_group": {"near_duplicates": 1, "camera": 7}, "seed": 1}
    table = select_batch(run, run.config, **wanted)
    rows = dict(zip(table["row_id"].to_pylist(), table["method"].to_pylist(), strict=True))
    control = [i for i, method in rows.items() if method == "control"]
    plain = select_batch(run, run.config, k=10, control=0.5, seed=1)
    assert control == [
        r for r, m in zip(*(plain[c].to_pylist() for c in ("row_id", "method")), strict=True) if m == "control"
    ]
    listed = order_of(run)[:LISTED]
    assert set(control) - set(listed)
    on_list = [i for i in control if i in listed]
    assert on_list
    expected = [i for i in first_of_each(listed, directions, on_list) if i not in control]
    taken: list[int] = []
    for row in expected:
        if sum(i % 2 == row % 2 for i in (*control, *taken)) < 7 and len(taken) < 5:
            taken.append(row)
    assert [i for i in rows if i not in control] == taken


@pytest.mark.parametrize("method", ["batchbald", "kcenter", "badge"])
def test_batch_aware_methods_keep_to_caps_beside_control_rows(
    run: RunDirectory, directions: NDArray[np.int64], method: str
) -> None:
    caps = {"near_duplicates": 1, "camera": 6}
    choice = Choice.of(run.config, k=10, method=method, max_per_group=caps, control=0.3, seed=1)
    with selected([run], run.config, choice) as batch:
        table = pa.concat_tables(list(batch.tables()))
    methods = table["method"].to_pylist()
    assert methods.count("control") == 3
    assert set(methods) <= {"control", method, "power"}
    assert table["step"].to_pylist().count(None) == 3
    assert [step for step in table["step"].to_pylist() if step is not None] == list(range(1, 8))
    row_ids = table["row_id"].to_pylist()
    others = [i for i, m in zip(row_ids, methods, strict=True) if m != "control"]
    listed = order_of(run)[:LISTED]
    assert set(others) <= set(listed)
    seen = [i for i in row_ids if i not in others and i in listed]
    assert len({int(directions[i]) for i in others} - {int(directions[i]) for i in seen}) == len(others)
    assert all(row_ids.count(i) == 1 for i in row_ids)
    assert max(sum(i % 2 == side for i in row_ids) for side in (0, 1)) <= 6
    alone = select_batch(run, run.config, k=10, control=0.3, seed=1)
    assert [i for i in row_ids if i not in others] == [
        i for i, m in zip(alone["row_id"].to_pylist(), alone["method"].to_pylist(), strict=True) if m == "control"
    ]


def arc(
    root: Path, degrees: Sequence[float], cameras: str, telling: Sequence[float]
) -> tuple[RunDirectory, NDArray[np.float64]]:
    """A run of some rows, the best first, all on the shortlist: their features point so, their passes tell so much."""
    N = len(degrees)
    run = make_run(root, [[1 - 0.1 * i for i in range(N)]], N, {"camera": (lambda i: cameras[i], pa.string())})
    angles = np.radians(degrees)
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    logits = np.random.default_rng(0).normal(size=(N, 8, 3)) * np.array(telling)[:, None, None]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    scores = 1 - 0.1 * np.arange(N)
    further = {"bald": scores, "entropy": -scores, "camera": list(cameras)}
    write_shortlist(run, range(N), features, log_probs, further=further)
    return run, features


def alike_in(run: RunDirectory, features: NDArray[np.float64], **wanted: Any) -> tuple[list[int], float]:
    row_ids = select_batch(run, run.config, max_per_group={"near_duplicates": 1} | wanted.pop("more", {}), **wanted)[
        "row_id"
    ].to_pylist()
    return row_ids, near_duplicate_rate(features[row_ids], np.zeros(2))


@pytest.mark.parametrize("method", [*METHODS, *AWARE])
def test_no_two_rows_are_alike_whoever_is_taken_first(tmp_path: Path, method: str) -> None:
    """a is like b and b like c, but a is not like c; batch-aware methods begin with c."""
    run, features = arc(tmp_path, [0, 15, 30], "abc", [0.0, 5, 5])
    for score in ("bald", "entropy"):
        row_ids, rate = alike_in(run, features, method=method, score=score)
        assert rate == 0 or len(row_ids) == 1  # of one row there is no rate
        assert row_ids


def test_a_row_that_another_cap_refuses_closes_none(tmp_path: Path) -> None:
    run, features = arc(tmp_path, [180, 0, 15, 30], "aabc", [1, 1, 1, 1])
    row_ids, rate = alike_in(run, features, more={"camera": 1})
    assert (row_ids, rate) == ([0, 2], 0)  # 1 has the camera of 0; 3 is like 2
    many = select_batch(run, run.config, max_per_group={"near_duplicates": 2, "camera": 1})
    assert many["row_id"].to_pylist() == [0, 2, 3]


def test_a_batch_larger_than_the_shortlist_is_smaller(run: RunDirectory) -> None:
    config = run.config.model_copy(
        update={"select": run.config.select.model_copy(update={"k": 100, "method": "kcenter"})}
    )
    table = select_batch(run, config)
    assert table.num_rows == LISTED  # as configured; asked for in so many words it is refused
    with pytest.raises(
        ConfigError, match=r"100 rows are asked for, 80 rows of the shortlist are left .*shortlist.rows"
    ):
        select_batch(run, config, k=100)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"max_per_group": {"near_duplicates": 1}}, False),
        ({"method": "kcenter"}, False),
        ({"score": "entropy"}, False),  # of all scored rows
        ({"score": "entropy", "max_per_group": {"near_duplicates": 1}}, True),
        ({"score": "entropy", "method": "kcenter"}, True),
        ({"method": "power", "max_per_group": {"near_duplicates": 1}}, True),
    ],
)
def test_what_the_candidates_are_the_best_by_is_told(run: RunDirectory, wanted: dict[str, Any], told: bool) -> None:
    with selected([run], run.config, Choice.of(run.config, k=3, **wanted)) as batch:
        expected = {"rows": LISTED, "method": "topk", "score": "bald"} if told else None
        assert batch.about.get("candidates") == expected
        assert any("the best by topk of bald" in note for note in batch.notes) == told


def test_a_control_row_is_not_taken_again(run: RunDirectory) -> None:
    row_ids = select_batch(run, run.config, k=60, control=0.5, method="kcenter")["row_id"].to_pylist()
    assert len(set(row_ids)) == 60
