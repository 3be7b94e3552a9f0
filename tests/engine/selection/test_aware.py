"""Batch-aware methods on a shortlist that is made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import keys_of
from poolscore.engine.scores import Task
from poolscore.engine.selection.aware import Picked, pick
from poolscore.engine.selection.badge import badge, of_labels
from poolscore.engine.selection.caps import Caps
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.groups import Room
from poolscore.engine.selection.methods import AWARE
from poolscore.engine.selection.ranking import ranking_of
from poolscore.engine.shortlist.read import Shortlist

N, T, C, F = 60, 6, 3, 5


def shortlist_of(seed: int = 0) -> Shortlist:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (N, 1, C)) + random.normal(0, 2, (N, T, C))
    log_probs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    ids = [f"row-{i}" for i in range(N)]
    bald = np.sort(random.random(N).astype(np.float32))[::-1]
    rows = {"rank": np.arange(1, N + 1), "row_id": random.permutation(N), "key": keys_of(ids), "id": ids, "bald": bald}
    features = random.normal(0, 1, (N, F)).astype(np.float32)
    nothing = np.empty((0, F), np.float32)
    return Shortlist(pa.table(rows), log_probs.astype(np.float32), features, features.mean(axis=0), nothing, True)


def choice_of(method: str, **changes: object) -> Choice:
    return replace(Choice("bald", 10, method, 1.0, 7), **changes)  # type: ignore[arg-type]


def room_of(shortlist: Shortlist, *closed: int) -> Room:
    room = Caps().room(shortlist.rows)
    room.open_N[list(closed)] = False
    return room


def picked(shortlist: Shortlist, method: str, k: int = 10, task: Task = Task.MULTICLASS, *closed: int) -> Picked:
    return pick(shortlist, task, choice_of(method), k, room_of(shortlist, *closed))


@pytest.mark.parametrize("method", AWARE)
def test_the_batch_depends_on_the_rows_and_not_on_their_order(method: str) -> None:
    there = shortlist_of()
    found = picked(there, method)
    assert len(set(found.places.tolist())) == 10
    assert found.steps.tolist() == list(range(1, 11))
    assert found.gains.dtype == np.float64
    order = np.random.default_rng(1).permutation(N)
    assert there.log_probs_NTC is not None
    other = replace(
        there,
        rows=there.rows.take(order),
        log_probs_NTC=there.log_probs_NTC[order],
        features_NF=there.features_NF[order],
    )
    again = picked(other, method)
    assert order[again.places].tolist() == found.places.tolist()
    assert again.gains == pytest.approx(found.gains, nan_ok=True)
    assert again.methods == found.methods


@pytest.mark.parametrize("method", AWARE)
def test_only_rows_that_are_open_are_taken(method: str) -> None:
    there = shortlist_of()
    closed = picked(there, method).places[:4].tolist()
    found = picked(there, method, N, Task.MULTICLASS, *closed)
    assert sorted(found.places.tolist()) == sorted(set(range(N)) - set(closed))
    assert found.notes[-1] == (
        f"{method}: 56 of the 60 rows asked for, for the shortlist holds no more that may be taken; a larger one may "
        "(shortlist.rows)"
    )


@pytest.mark.parametrize("method", AWARE)
def test_memory_is_that_of_the_candidates_however_many_rows_are_asked_for(method: str) -> None:
    found = picked(shortlist_of(), method, 10**13)
    assert len(found.places) == N
    assert "60 of the 10000000000000 rows asked for" in found.notes[-1]


@pytest.mark.parametrize("method", AWARE)
def test_no_rows_are_wanted(method: str) -> None:
    found = picked(shortlist_of(), method, 0)
    assert (len(found.places), len(found.gains), found.methods) == (0, 0, ())


def test_once_nothing_is_left_to_learn_power_fills_up() -> None:
    there = shortlist_of()
    found = picked(there, "batchbald", 30)
    told = found.methods.count("batchbald")
    assert found.methods == ("batchbald",) * told + ("power",) * (30 - told)
    assert 2 < told < 15
    assert 0.95 * math.log(T) <= found.gains[:told].sum() <= math.log(T)
    assert np.isnan(found.gains[told:]).all()
    assert found.notes == (
        f"batchbald: {told} rows tell {found.gains[:told].sum():.2f} of the 1.79 nats (ln T) that 6 passes can tell at "
        "most. Not even 1,000 passes fill a batch of 30; badge, kcenter and power do; the others are taken by power",
    )
    needed = math.exp((told + 1) * found.gains[:told].mean() / 0.95)
    (note,) = picked(there, "batchbald", told + 1).notes
    assert T < needed < 30
    assert f" at most. About {math.ceil(needed)} passes (passes.count) fill a batch of {told + 1}; " in note
    _, values = ranking_of("power", 1.0, 7).at_least(
        there.rows["bald"].to_numpy(), there.rows["key"].to_numpy(), -np.inf
    )
    rest = [i for i in np.argsort(-values).tolist() if i not in found.places[:told]]
    assert found.places[told:].tolist() == rest[: 30 - told]


def test_where_the_passes_agree_more_of_them_are_not_advised() -> None:
    there = shortlist_of()
    assert there.log_probs_NTC is not None
    agreed = np.repeat(there.log_probs_NTC[:, :1], T, axis=1)
    found = picked(replace(there, log_probs_NTC=agreed), "batchbald", 5)
    assert found.methods == ("power",) * 5
    assert (
        "0 rows tell 0.00 of the 1.79 nats (ln T), and no other row that may be taken adds anything" in found.notes[0]
    )
    assert "passes.count" not in found.notes[0]


def test_power_keeps_the_caps() -> None:
    there = shortlist_of()
    cameras = there.rows.append_column("camera", pa.array([i % 20 for i in range(N)]))
    there = replace(there, rows=cameras)
    found = pick(there, Task.MULTICLASS, choice_of("batchbald"), 30, Caps({"camera": 1}).room(there.rows))
    assert "power" in found.methods
    assert sorted((found.places % 20).tolist()) == list(range(20))


def test_drawn_outcomes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolscore.engine.selection.batchbald.EXACT_BYTES", 0)
    found = picked(shortlist_of(), "batchbald", 3)
    assert found.notes == ("batchbald: the first 1 rows by exact joint entropies, the next 2 by 10000 drawn outcomes",)


def test_kcenter_begins_with_the_best_row_or_far_from_what_is_labelled() -> None:
    there = shortlist_of()
    best = int(there.rows["bald"].to_numpy().argmax())
    found = picked(there, "kcenter")
    assert found.places[0] == best
    assert np.isnan(found.gains[0])
    assert np.isfinite(found.gains[1:]).all()
    labelled = replace(there, labelled_MF=there.features_NF[best : best + 1])
    assert picked(labelled, "kcenter", 9).places.tolist() == found.places[1:].tolist()


def test_badge_of_labels_is_of_each_label() -> None:
    there = shortlist_of()
    p = np.random.default_rng(2).random((N, T, 2)).astype(np.float32)
    two_labels = replace(there, log_probs_NTC=np.log(np.concatenate([p, 1 - p], axis=2)))
    mean = p.astype(np.float64).mean(axis=1)
    keys = there.rows["key"].to_numpy()
    order = np.argsort(np.argsort(keys))
    expected = badge(of_labels(mean), there.features_NF, keys, order, 10, room_of(there), 7)
    assert picked(two_labels, "badge", 10, Task.MULTILABEL).places.tolist() == expected.places.tolist()


REFUSED = [
    ("batchbald", Task.MULTILABEL, {}, "batchbald is for the tasks multiclass and binary, and this is multilabel"),
    ("batchbald", Task.REGRESSION, {}, "and this is regression; choose kcenter or power"),
    ("batchbald", Task.BINARY, {"shared_masks": False}, "batchbald needs passes.masks: shared"),
    (
        "batchbald",
        Task.BINARY,
        {"log_probs_NTC": np.zeros((N, 1, 2))},
        "passes.count is 1; raise it, or choose kcenter",
    ),
    ("badge", Task.REGRESSION, {"log_probs_NTC": None}, "badge needs predicted classes, and the task is regression"),
]


@pytest.mark.parametrize(("method", "task", "changes", "message"), REFUSED)
def test_what_is_not_defined_is_refused(method: str, task: Task, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        picked(replace(shortlist_of(), **changes), method, 5, task)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_kcenter_is_for_regression_too() -> None:
    there = replace(shortlist_of(), log_probs_NTC=None)
    assert len(picked(there, "kcenter", 5, Task.REGRESSION).places) == 5
