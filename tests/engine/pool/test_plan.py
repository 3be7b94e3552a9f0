"""The plan: every row once, in order, in shards of bounded size that stay where they are when the pool grows."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolscore.engine.pool.cut import HUGE, RANGES, SAMPLED_GROUPS, make_plan
from poolscore.engine.pool.files import PoolFiles, table_of
from poolscore.engine.pool.footer import PoolFile
from poolscore.engine.pool.plan import Piece, Plan

SCHEMA = pa.schema([])
Shape = list[list[int]]  # rows of the row groups of each file


def pool(shape: Shape) -> PoolFiles:
    return PoolFiles("/pool", table_of(file(i, groups) for i, groups in enumerate(shape)))


def file(i: int, groups: list[int], matches: list[bool] | None = None) -> PoolFile:
    sizes = tuple(7 * rows for rows in groups)
    kept = tuple(matches or [True] * len(groups))
    return PoolFile(f"{i:03d}.parquet", 1000 + i, 0, f"f{i}", SCHEMA, tuple(groups), sizes, kept)


def pieces(shape: Shape, shard_rows: int) -> list[tuple[Piece, ...]]:
    return [tuple(shard.pieces) for shard in make_plan(pool(shape), shard_rows).shards]


SHAPES = st.lists(st.lists(st.integers(0, 40), max_size=5), min_size=1, max_size=6)


@given(SHAPES, st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_every_row_is_in_one_place(shape: Shape, shard_rows: int) -> None:
    plan = make_plan(pool(shape), shard_rows)
    rows = [
        (piece.path, piece.row_group, piece.start + i, piece.file_row + i)
        for shard in plan.shards
        for piece in shard.pieces
        for i in range(piece.rows)
    ]
    assert rows == [
        (f"{f:03d}.parquet", g, i, sum(groups[:g]) + i)
        for f, groups in enumerate(shape)
        for g, count in enumerate(groups)
        for i in range(count)
    ]
    assert plan.rows == len(rows)
    assert [shard.index for shard in plan.shards] == list(range(len(plan.shards)))
    row_id = 0
    largest = max((count for groups in shape for count in groups), default=0)
    for shard in plan.shards:
        assert shard.row_id == row_id
        assert shard.rows == sum(piece.rows for piece in shard.pieces)
        assert 0 < shard.rows <= max(HUGE * shard_rows, -(-largest // RANGES))
        assert shard.rows <= shard_rows or len(shard.pieces) == 1
        row_id += shard.rows


@given(SHAPES, st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_neighbours_are_cut_apart_only_for_a_reason(shape: Shape, shard_rows: int) -> None:
    plan = make_plan(pool(shape), shard_rows)
    large = {f"{i:03d}.parquet" for i, groups in enumerate(shape) if sum(groups) >= shard_rows}
    for left, right in pairwise(plan.shards):
        first = right.pieces[0]
        starts_a_large_file = first.path in large and first.path != left.pieces[-1].path
        assert left.rows + first.rows > shard_rows or starts_a_large_file
    for shard in plan.shards:
        inside = {piece.path for piece in shard.pieces} - {shard.pieces[0].path}
        assert not inside & large


@given(SHAPES, st.lists(st.integers(0, 40), max_size=3), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_a_file_at_the_end_changes_the_last_shard_alone(shape: Shape, more: list[int], shard_rows: int) -> None:
    before, after = pieces(shape, shard_rows), pieces([*shape, more], shard_rows)
    if before:
        *untouched, last = before
        assert after[: len(untouched)] == untouched
        assert after[len(untouched)][: len(last)] == last


@given(SHAPES, st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_a_plan_survives_parquet(shape: Shape, shard_rows: int) -> None:
    plan = make_plan(pool(shape), shard_rows)
    data = plan.to_parquet()
    assert Plan.from_parquet(data) == plan
    assert Plan.from_parquet(data).to_parquet() == data


def test_small_files_share_a_shard_and_a_large_one_starts_its_own() -> None:
    rows = [
        [(piece.path[:3], piece.rows) for piece in shard] for shard in pieces([[3], [4], [5], [6, 6], [2], [1]], 10)
    ]
    assert rows == [[("000", 3), ("001", 4)], [("002", 5)], [("003", 6)], [("003", 6), ("004", 2), ("005", 1)]]


def test_a_large_file_does_not_fill_up_an_open_shard() -> None:
    assert [[p.rows for p in shard] for shard in pieces([[3], [5, 6], [2]], 10)] == [[3], [5], [6, 2]]
    assert [[p.rows for p in shard] for shard in pieces([[3], [5, 1], [2]], 10)] == [[3, 5, 1], [2]]


def test_only_a_huge_row_group_is_cut_into_ranges() -> None:
    assert [[p.rows for p in shard] for shard in pieces([[20]], 10)] == [[20]]
    (first, second, third) = pieces([[4, 21]], 10)[1:]
    assert [(p.row_group, p.start, p.file_row, p.rows) for p in (*first, *second, *third)] == [
        (1, 0, 4, 10),
        (1, 10, 14, 10),
        (1, 20, 24, 1),
    ]


def test_a_large_file_moves_no_cut_behind_it() -> None:
    large = [[10, 10], [3]]
    tails = [pieces([*head, *large], 10)[-3:] for head in ([], [[1]], [[9], [9]])]
    assert [[p.rows for p in shard] for shard in tails[0]] == [[10], [10], [3]]
    assert all([[p.rows for p in shard] for shard in tail] == [[10], [10], [3]] for tail in tails)


def test_the_digest_changes_with_anything() -> None:
    def digest(*files: PoolFile, shard_rows: int = 10, root: str = "/pool") -> str:
        return make_plan(PoolFiles(root, table_of(files)), shard_rows).digest

    first, second = file(0, [3, 4]), file(1, [5])
    digests = [
        digest(first, second),
        digest(first, second, shard_rows=11),
        digest(second, first),
        digest(first),
        digest(replace(first, path="x"), second),
        digest(replace(first, bytes=7), second),
        digest(replace(first, group_rows=(4, 3)), second),
        digest(first, replace(second, fingerprint="x")),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(first, second, root="/moved") == digests[0]
    assert digest(first, replace(second, modified=7, matches=(False,))) == digests[0]  # neither changes a row's place
    assert digests[0] == "0b4b42830edba5dcfa96a08dc286aab6"  # runs of version 0.1 can be resumed


@given(SHAPES, st.integers(1, 30), st.data())
@settings(max_examples=100, deadline=None)
def test_rows_keep_their_ids_whatever_the_filter_rules_out(shape: Shape, shard_rows: int, data: st.DataObject) -> None:
    every = {piece.row_id: piece for shard in pieces(shape, 10**9) for piece in shard}
    matches = [[data.draw(st.booleans()) for _ in groups] for groups in shape]
    files = (file(i, groups, matches[i]) for i, groups in enumerate(shape))
    plan = make_plan(PoolFiles("/pool", table_of(files)), shard_rows)
    seen = [piece for shard in plan.shards for piece in shard.pieces]
    for piece in seen:
        assert matches[int(piece.path[:3])][piece.row_group]
        whole = every[piece.row_id - piece.start]
        assert (whole.path, whole.row_group, whole.file_row + piece.start) == (
            piece.path,
            piece.row_group,
            piece.file_row,
        )
        assert plan.shards.piece_of(piece.row_id + piece.rows - 1) == piece
    kept = sum(
        rows for groups, kept in zip(shape, matches, strict=True) for rows, k in zip(groups, kept, strict=True) if k
    )
    assert sum(piece.rows for piece in seen) == plan.rows == kept
    assert plan.rows + plan.passed_over == sum(map(sum, shape))
    assert [shard.row_id for shard in plan.shards] == [shard.pieces[0].row_id for shard in plan.shards]
    assert Plan.from_parquet(plan.to_parquet()) == plan


def test_a_row_that_is_in_no_shard_has_no_piece() -> None:
    plan = make_plan(PoolFiles("/pool", table_of([file(0, [3, 4, 5], [False, True, False])])), 10)
    assert plan.shards.piece_of(6).row_group == 1
    for row_id in (-1, 2, 7, 99):
        with pytest.raises(IndexError, match=f"row {row_id} is in no shard"):
            plan.shards.piece_of(row_id)


def test_a_small_sample_is_spread_over_row_groups() -> None:
    many = pool([[100] * 10] * 50)
    plan = make_plan(many, 1000, sample=20, seed=1)
    groups = {(piece.path, piece.row_group) for shard in plan.shards for piece in shard.pieces}
    assert len(groups) == SAMPLED_GROUPS
    assert plan.rows * plan.share == pytest.approx(20)
    assert (plan.rows, plan.passed_over) == (6400, 43_600)
    assert plan.digest == make_plan(many, 1000).digest
    assert plan == make_plan(many, 1000, sample=20, seed=1)
    assert plan != make_plan(many, 1000, sample=20, seed=2)


@pytest.mark.parametrize(("sample", "rows"), [(0.5, 25_000), (25_000, 25_000), (0.999999, 50_000), (10**9, 50_000)])
def test_a_large_sample_is_of_whole_row_groups(sample: float, rows: int) -> None:
    plan = make_plan(pool([[100] * 10] * 50), 1000, sample=sample)
    assert rows <= plan.rows <= rows + 100
    assert plan.rows * plan.share == pytest.approx(rows, rel=1e-5)


def test_a_sample_is_drawn_from_what_the_filter_leaves() -> None:
    files = [file(i, [100] * 4, [False, True, False, False]) for i in range(200)]
    plan = make_plan(PoolFiles("/pool", table_of(files)), 1000, sample=0.5)
    assert {piece.row_group for shard in plan.shards for piece in shard.pieces} == {1}
    assert (plan.rows, plan.share) == (10_000, 1.0)


def test_a_shard_travels_alone() -> None:
    plan = make_plan(pool([[1] * 1000] * 100), 1000)
    shard = plan.shards[50]
    data = pickle.dumps(shard)
    assert len(data) < 60_000  # its own 1,000 of 100,000 pieces
    assert list(pickle.loads(data).pieces) == list(shard.pieces)
    assert [s.index for s in plan.shards[-2:]] == [98, 99]


def test_a_plan_of_version_0_1_is_read() -> None:
    plan = make_plan(pool([[3, 4], [25]]), 10)
    old = pq.read_table(io.BytesIO(plan.to_parquet())).drop_columns(["row_id"])
    about = {key: old.schema.metadata[key] for key in (b"root", b"digest", b"bytes", b"files")}
    columns = old.set_column(1, "path", old["path"].cast(pa.string())).replace_schema_metadata(about)
    buffer = io.BytesIO()
    pq.write_table(columns, buffer)
    assert Plan.from_parquet(buffer.getvalue()) == plan


@pytest.mark.timeout(20)
def test_a_pool_of_100_million_rows_is_planned_without_an_object_for_each() -> None:
    files = PoolFiles("/pool", table_of(file(i, [10_000]) for i in range(10_000)))
    tracemalloc.start()
    try:
        plan = make_plan(files, 65_536)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (plan.rows, len(plan.shards)) == (100_000_000, 1667)
    assert peak < 10_000_000


@pytest.mark.timeout(20)
def test_many_tiny_row_groups_are_planned_in_linear_time() -> None:
    plan = make_plan(pool([[1] * 100_000]), 65_536)
    assert [shard.rows for shard in plan.shards] == [65_536, 34_464]
