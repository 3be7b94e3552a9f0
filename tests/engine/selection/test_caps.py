"""Batches under caps against a plain greedy walk over a full sort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_select import full_sort, make_run
from test_top import WAYS, take

from poolscore.engine.config import parse_config
from poolscore.engine.errors import ConfigError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection import walk as walk_module
from poolscore.engine.selection.batch import require_enough, select_batch, selected
from poolscore.engine.selection.caps import Caps
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.groups import Groups, none_taken

VIDEOS = ["a", "b", "c", None]


def greedy(
    order: Sequence[int], k: int, groups: Sequence[tuple[Mapping[int, Any], Mapping[Any, int] | int]]
) -> list[int]:
    """Each row in turn, unless a group of its own is full: the definition.

    Args:
        order: rows, best first.
        groups: for each cap the group of each row, None: of its own; and the limit of each group.
    """
    taken: list[int] = []
    counts: list[Counter[Any]] = [Counter() for _ in groups]
    for row in order:
        own = [(count, group[row], limit) for count, (group, limit) in zip(counts, groups, strict=True)]
        full = [
            count[g] >= (limit if isinstance(limit, int) else limit.get(g, 10**9))
            for count, g, limit in own
            if g is not None
        ]
        if len(taken) < k and not any(full):
            taken.append(row)
            for count, g, _ in own:
                count[g] += 1
    return taken


def run_of(root: Path, parts: Sequence[Sequence[float]], videos: Sequence[str | None], k: int = 3) -> RunDirectory:
    keep = {"video": (lambda i: videos[i], pa.string()), "even": (lambda i: i % 2 == 0, pa.bool_())}
    return make_run(root, parts, k, keep)


PARTS = st.lists(
    st.lists(st.integers(0, 3).map(float) | st.floats(-5, 5, width=32), min_size=1, max_size=8), min_size=1, max_size=5
)


@pytest.mark.parametrize("way", WAYS)
@given(PARTS, st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_batch_is_that_of_a_greedy_walk(
    tmp_path_factory: pytest.TempPathFactory, way: str, parts: list[list[float]], data: st.DataObject
) -> None:
    total = sum(map(len, parts))
    videos = data.draw(st.lists(st.sampled_from(VIDEOS), min_size=total, max_size=total))
    limit, quota, even = (data.draw(st.integers(1, 3)) for _ in range(3))
    k = data.draw(st.sampled_from([0, 1, 2, 4, total, total + 1, 10**6]))
    run = run_of(tmp_path_factory.mktemp("run"), parts, videos)
    with pytest.MonkeyPatch.context() as patch:
        take(patch, way)
        patch.setattr(walk_module, "LOOK", 1)
        patch.setattr(walk_module, "HARDLY_ANY", data.draw(st.sampled_from([0, 2])))  # wider, or all thinned out
        patch.setattr("poolscore.engine.selection.columns.BLOCK", 3)
        caps = {"max_per_group": {"video": limit, "even": even}, "quotas": {"1": quota, "2": 1}}
        caps = data.draw(st.sampled_from([caps, {"quotas": caps["quotas"]}, {"max_per_group": {"video": limit}}]))
        choice = Choice.of(run.config, k=k, **caps)
        with selected([run], run.config, choice) as batch:
            rows = pa.concat_tables(list(batch.tables()))["row_id"].to_pylist()
    order = full_sort(parts, total)
    classes = {i: i % 7 for i in order}
    groups: dict[str, Any] = {"video": (dict(enumerate(videos)), limit), "even": ({i: i % 2 for i in order}, even)}
    bound = [groups[name] for name in caps.get("max_per_group", ())]
    bound += [(classes, {1: quota, 2: 1})] * ("quotas" in caps)
    assert rows == greedy(order, k, bound)
    assert batch.count == len(rows)
    assert batch.about["refused_by_caps"] == min(k, total) - len(set(rows) & set(order[:k]))


@pytest.mark.parametrize("method", ["power", "softmax", "softrank"])
def test_methods_by_chance_walk_down_their_own_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    random = np.random.default_rng(1)
    parts = [random.random(50).tolist() for _ in range(4)]
    videos = random.choice(VIDEOS, 200).tolist()
    run = run_of(tmp_path, parts, videos)
    order = select_batch(run, run.config, k=200, method=method)["row_id"].to_pylist()
    monkeypatch.setattr(walk_module, "LOOK", 4)
    monkeypatch.setattr(walk_module, "HARDLY_ANY", 2)
    for k in (1, 5, 40):
        table = select_batch(run, run.config, k=k, method=method, max_per_group={"video": 3})
        assert table["row_id"].to_pylist() == greedy(order, k, [(dict(enumerate(videos)), 3)])
        assert table["perturbed_score"].null_count == 0


COLUMNS = {
    "text": pa.array(["a", "b", None, "a", "a", None, "b"]),
    "dictionary": pa.array(["a", "b", None, "a", "a", None, "b"]).dictionary_encode(),
    "time": pa.array([1, 2, None, 1, 1, None, 2], pa.timestamp("ns")),
    "number": pa.array([0.0, 1.0, float("nan"), -0.0, 0.0, None, 1.0]),
    "bytes": pa.array([b"\xff", b"", None, b"\xff", b"\xff", None, b""]),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_columns_of_any_plain_type_tell_groups(name: str, at_once: int) -> None:
    table, counts, rows = pa.table(COLUMNS), none_taken(), []
    for start in range(0, 7, at_once):
        room = Caps({name: 2}).room(table.slice(start, at_once), taken=counts)
        for place in range(len(room.open_N)):
            if room.open_N[place]:
                room.take(place)
                rows.append(start + place)
    assert rows == [0, 1, 2, 3, 5, 6]  # row 4 is the third of its group; what has no value is alone


def test_room_closes_a_group_when_it_is_full() -> None:
    table = pa.table({"prediction": [0, 0, 1, 1, 1]})
    alike = Groups(pa.array([5, 5, None, 5, None]), 2, none_taken()["near_duplicates"])
    room = Caps({"near_duplicates": 2}, {1: 2}).room(table, alike=alike)
    assert room.open_N.tolist() == [True] * 5
    room.take(1)
    assert room.open_N.tolist() == [True, False, True, True, True]
    room.take(3)
    assert room.open_N.tolist() == [False, False, True, False, True]
    room.take(4)
    assert not room.open_N.any()


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (
            {"max_per_group": {"clip": 1}},
            r"no column 'clip' to tell groups by; there are pool.keep \(video, even\), near_d",
        ),
        ({"max_per_group": {"id": 1}}, r"there is no column 'id'"),
        ({"max_per_group": {"video": 0}}, r"select.max_per_group.video: must be 1 row or more, got 0"),
        ({"quotas": {"1": 0}}, r"select.quotas.1: must be 1 row or more, got 0"),
        ({"quotas": {"cat": 1}}, r"there is no class 'cat'; there are: numbers from 0"),
        ({"quotas": {"-1": 1}}, r"there is no class '-1'"),
        ({"control": 1.0}, r"--control 1: is a share of k, from 0 to below 1"),
        ({"control": -0.1}, r"--control -0.1"),
        ({"control": float("nan")}, r"--control nan"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, wanted: dict[str, Any], why: str) -> None:
    run = run_of(tmp_path, [[1.0, 2.0]], ["a", "b"])
    with pytest.raises(ConfigError, match=why) as caught:
        select_batch(run, run.config, k=1, **wanted)
    assert "\n" not in str(caught.value)


MODEL = {"source": "m:f", "task": "multiclass", "classes": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("model", "select", "why"),
    [
        ({}, {"quotas": {"cow": 5}}, "select.quotas: there is no class 'cow'; there are: cat, dog"),
        ({}, {"quotas": {2: 5}}, "there is no class '2'"),
        ({}, {"quotas": {"dog": 5, "1": 7}}, "select.quotas.1: class 1 is named twice"),
        ({"classes": 3}, {"quotas": {3: 5}}, "there is no class '3'; there are: 0 to 2"),
        ({"classes": None, "task": "binary"}, {"quotas": {2: 5}}, "there is no class '2'; there are: 0 to 1"),
        ({"classes": 1, "task": "regression"}, {"quotas": {0: 5}}, "task regression has none"),
        ({"classes": 1, "task": "regression"}, {"max_per_group": {"prediction": 5}}, "no column 'prediction'"),
        ({}, {"max_per_group": {"video": 0}}, "select.max_per_group.video"),
        ({}, {"max_per_group": {"video": 2.5}}, "select.max_per_group.video"),
        ({}, {"max_per_group": {"camera": 1}}, "no column 'camera'"),
        ({}, {"max_per_group": {"near_duplicates": 1}}, "is a column of pool.keep; rename it"),
        ({}, {"control": 1}, "select.control"),
        (
            {},
            {"method": "kcenter"},
            "shortlist.rows: 0 rows are fewer than select.k=.*, and kcenter chooses among the shortlist",
        ),
    ],
)
def test_a_configuration_is_refused_before_anything_runs(model: Any, select: Any, why: str) -> None:
    data: dict[str, Any] = {
        "pool": {"uri": "/p", "input": "x", "keep": ["video", "near_duplicates"]},
        "run": {"dir": "/r"},
    }
    data["shortlist"] = {"rows": 0 if select.get("method") == "kcenter" else 100}
    with pytest.raises(ConfigError, match=why):
        parse_config({**data, "model": {**MODEL, **model}, "select": {"k": 3, **select}})


def test_classes_go_by_name_and_by_number() -> None:
    data = {"pool": {"uri": "/p", "input": "x"}, "run": {"dir": "/r"}, "model": MODEL}
    config = parse_config({**data, "select": {"k": 3, "quotas": {"dog": 5, 0: 2}}})
    assert Choice.of(config).caps.quotas == {1: 5, 0: 2}
    assert parse_config(config.model_dump(mode="json")) == config
    assert Choice.of(config, quotas={"1": 9}).caps.quotas == {1: 9}


def test_lists_tell_no_groups(tmp_path: Path) -> None:
    run = make_run(tmp_path, [[1.0, 2.0]], keep={"vector": (lambda i: [1.0], pa.list_(pa.float32()))})
    with pytest.raises(ConfigError, match=r"column 'vector' has type list<.*>, which tells no groups"):
        select_batch(run, run.config, k=1, max_per_group={"vector": 1})


def test_what_the_caps_cost_is_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, [[9.0, 8.0, 7.0, 1.0]], ["a", "a", "a", "b"])
    with selected([run], run.config, Choice.of(run.config, k=2, max_per_group={"video": 1})) as batch:
        assert batch.count == 2
        assert batch.about.items() >= {"max_per_group": {"video": 1}, "refused_by_caps": 1}.items()
    caps: dict[str, Any] = {"max_per_group": {"video": 1}, "quotas": {"3": 5}}
    assert select_batch(run, run.config, **caps).num_rows == 2  # the run was configured for 3
    with pytest.raises(
        ConfigError,
        match=r"3 rows are asked for, 2 scored rows are left .* under the caps \(max_per_group video=1, quota",
    ):
        select_batch(run, run.config, k=3, **caps)
    with (
        selected([run], run.config, Choice.of(run.config, k=9)) as batch,
        pytest.raises(ConfigError, match="scored rows"),
    ):
        require_enough(batch, 9, None)
