"""Reading a shard: exact blocks, in order, whatever the files look like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolscore.engine.errors import ConfigError, PoolAway, PoolscoreError, UnreadableShard
from poolscore.engine.keys import IdSet, keys_of
from poolscore.engine.pool.choice import RowChoice
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.find import find_files
from poolscore.engine.pool.plan import Plan, Shard
from poolscore.engine.pool.read import Rows, ShardReader, of_user


def write(folder: Path, shape: Sequence[Sequence[int]]) -> None:
    """Files of row groups of so many rows; x counts through the pool, id is 'r<x>'."""
    for old in folder.glob("*.parquet"):
        old.unlink()
    x = 0
    for i, groups in enumerate(shape):
        schema = pa.schema([("x", pa.int64()), ("id", pa.string())])
        with pq.ParquetWriter(folder / f"{i:02d}.parquet", schema) as writer:
            for rows in groups:
                values = list(range(x, x + rows))
                writer.write_table(pa.table([values, [f"r{v}" for v in values]], schema=schema))
                x += rows


def plan_of(folder: Path, shard_rows: int = 100) -> Plan:
    return make_plan(find_files(str(folder)), shard_rows)


def read(
    plan: Plan, rows: int, columns: Sequence[str] = ("x",), id_column: str | None = "id", exclude: Sequence[str] = ()
) -> list[list[Rows]]:
    reader = ShardReader(plan.root, columns, id_column, IdSet(exclude))
    return [list(reader.blocks(shard, rows)) for shard in plan.shards]


def corrupted(path: Path, row_group: int) -> None:
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(row_group).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = bytes([255] * column.total_compressed_size)
    path.write_bytes(data)


@given(
    st.lists(st.lists(st.integers(1, 25), max_size=3), min_size=1, max_size=4).filter(lambda s: any(map(sum, s))),
    st.integers(1, 12),
    st.integers(1, 9),
    st.sets(st.integers(0, 60)),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_are_exact_and_in_order(
    tmp_path: Path, shape: list[list[int]], shard_rows: int, block_rows: int, excluded: set[int]
) -> None:
    write(tmp_path, shape)
    plan = plan_of(tmp_path, shard_rows)
    seen: list[int] = []
    for shard, blocks in zip(plan.shards, read(plan, block_rows, exclude=[f"r{x}" for x in excluded]), strict=True):
        expected = [x for x in range(shard.row_id, shard.row_id + shard.rows) if x not in excluded]
        assert [len(block) for block in blocks[:-1]] == [block_rows] * (len(blocks) - 1)
        assert len(blocks) == max(1, -(-len(expected) // block_rows))
        for block in blocks:
            xs = block.table["x"].to_pylist()
            assert block.table.column_names == ["x", "id"]
            assert block.row_ids.tolist() == xs
            assert block.ids.to_pylist() == [f"r{x}" for x in xs]
            assert block.keys.tolist() == keys_of([f"r{x}" for x in xs]).tolist()
            assert (len(block), str(block.keys.dtype), str(block.row_ids.dtype)) == (len(xs), "uint64", "int64")
            seen += xs
    assert seen == [x for x in range(plan.rows) if x not in excluded]


def test_a_shard_whose_rows_are_all_excluded_gives_one_empty_block(tmp_path: Path) -> None:
    write(tmp_path, [[5], [5]])
    ((block,),) = read(plan_of(tmp_path), 3, exclude=[f"r{x}" for x in range(10)])
    assert len(block) == 0
    assert block.table.schema.names == ["x", "id"]
    assert (block.ids.type, block.keys.shape) == (pa.string(), (0,))


def test_rows_without_an_id_column_are_known_by_file_and_place(tmp_path: Path) -> None:
    (tmp_path / "ü").mkdir()
    pq.write_table(pa.table({"x": range(8)}), tmp_path / "ü" / "a b.parquet", row_group_size=7)
    blocks = [block for shard in read(plan_of(tmp_path, 3), 2, id_column=None) for block in shard]
    ids = [i for block in blocks for i in block.ids.to_pylist()]
    assert ids == [f"ü/a b.parquet#{row}" for row in range(8)]
    assert [k for block in blocks for k in block.keys.tolist()] == keys_of(ids).tolist()
    left = read(plan_of(tmp_path, 3), 9, id_column=None, exclude=["ü/a b.parquet#7", "a b.parquet#1"])
    assert [x for shard in left for block in shard for x in block.table["x"].to_pylist()] == list(range(7))


def test_rows_can_be_counted_without_any_column(tmp_path: Path) -> None:
    write(tmp_path, [[5], [4, 3]])
    blocks = read(plan_of(tmp_path), 4, columns=[], id_column=None, exclude=["00.parquet#1"])
    assert [len(block) for block in blocks[0]] == [4, 4, 3]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["a", None, "c"]),
        pa.array(["a", None, "c"], pa.large_string()),
        pa.array(["a", None, "c"], pa.string_view()),
        pa.array([b"a", None, b"c"]),
        pa.array([b"a", None, b"c"], pa.binary_view()),
        pa.array([b"a", None, b"c"], pa.binary(1)),
        pa.array(["a", None, "c"]).dictionary_encode(),
    ],
    ids=lambda ids: str(ids.type),
)
def test_ids_of_every_type_and_null_ones(tmp_path: Path, ids: pa.Array) -> None:
    for name in ("0.parquet", "1.parquet"):
        pq.write_table(pa.table({"id": ids}), tmp_path / name)
    ((block,),) = read(plan_of(tmp_path), 10, columns=[], exclude=["c"])
    assert keys_of(["a", "0.parquet#1", "a", "1.parquet#1"]).tolist() == block.keys.tolist()
    assert block.ids.is_null().to_pylist() == [False, True, False, True]
    assert [i.encode() if isinstance(i, str) else i for i in block.ids.to_pylist()] == [b"a", None, b"a", None]
    assert block.row_ids.tolist() == [0, 1, 3, 4]


def test_integer_ids_keep_their_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([2**64 - 1, 17, 3], pa.uint64())}), tmp_path / "a.parquet")
    ((block,),) = read(plan_of(tmp_path), 10, columns=[], exclude=["17"])
    assert block.ids == pa.array([2**64 - 1, 3], pa.uint64())
    assert block.keys.tolist() == keys_of(["18446744073709551615", "3"]).tolist()


def test_a_type_that_is_no_id_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1.5]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"pool.id column 'id' has type double"):
        read(plan_of(tmp_path), 10, columns=[])


def test_columns_of_every_kind_survive(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "struct": pa.array([{"bytes": b"1", "path": None}, None, {"bytes": None, "path": "p"}]),
        "word": pa.array(["x", "y", "x"]).dictionary_encode(),
        "vector": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        "a.b": pa.array([1, 2, None]),
        "view": pa.array([b"1", None, b"3"], pa.binary_view()),
    }
    for name, words in (("0", ["x", "y", "x"]), ("1", ["z", None, "x"])):
        table = pa.table({**columns, "word": pa.array(words).dictionary_encode()})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
    ((one, two),) = read(plan_of(tmp_path), 3, columns=list(columns), id_column=None, exclude=["0.parquet#1"])
    both = {name: column.to_pylist() * 2 for name, column in columns.items()}
    both["word"] = ["x", "y", "x", "z", None, "x"]
    for name, values in both.items():
        assert one.table[name].to_pylist() + two.table[name].to_pylist() == values[:1] + values[2:]


def test_files_may_differ_in_column_order_nullability_and_metadata(tmp_path: Path) -> None:
    fields = [pa.field("x", pa.int64()), pa.field("id", pa.string(), nullable=False)]
    pq.write_table(pa.table([[1], ["a"]], schema=pa.schema(fields)), tmp_path / "0.parquet")
    other = pa.schema([fields[1].with_nullable(True), pa.field("more", pa.int8()), fields[0]], {"k": "v"})
    pq.write_table(pa.table([["b"], [0], [2]], schema=other), tmp_path / "1.parquet")
    ((block,),) = read(plan_of(tmp_path), 10)
    assert block.table.to_pydict() == {"x": [1, 2], "id": ["a", "b"]}


def test_a_corrupt_page_names_its_file(tmp_path: Path) -> None:
    write(tmp_path, [[5], [5, 5], [5]])
    corrupted(tmp_path / "01.parquet", 1)
    reader = ShardReader(str(tmp_path), ["x"], None, IdSet())
    blocks = reader.blocks(plan_of(tmp_path).shards[0], 5)
    assert [next(blocks).row_ids[0], next(blocks).row_ids[0]] == [0, 5]
    with pytest.raises(UnreadableShard, match=r"^01.parquet cannot be read: ") as caught:
        next(blocks)
    assert "\n" not in str(caught.value)


def test_a_pool_that_changed_since_it_was_planned_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, [[5], [5, 5]])
    plan = plan_of(tmp_path)
    write(tmp_path, [[5], [5, 4]])
    with pytest.raises(UnreadableShard, match=r"01.parquet has changed since the pool was planned"):
        read(plan, 4)
    write(tmp_path, [[5], [6, 6]])
    with pytest.raises(
        UnreadableShard, match=r"01.parquet has changed since .*: it had [\d,]+ bytes, now [\d,]+; bring"
    ):
        read(plan, 4)
    write(tmp_path, [[5], [5]])
    with pytest.raises(UnreadableShard, match=r"01.parquet"):
        read(plan, 4)
    pq.write_table(pa.table({"y": range(5)}), tmp_path / "00.parquet")
    with pytest.raises(UnreadableShard, match=r"00.parquet"):
        read(plan, 4)
    (tmp_path / "00.parquet").unlink()
    with pytest.raises(UnreadableShard, match=r"00.parquet cannot be read"):
        read(plan, 4)


def test_a_shard_can_be_left_in_the_middle(tmp_path: Path) -> None:
    write(tmp_path, [[50]])
    shard: Shard = plan_of(tmp_path).shards[0]
    reader = ShardReader(str(tmp_path), ["x"], "id", IdSet())
    for _ in range(3):
        blocks = reader.blocks(shard, 7)
        assert next(blocks).row_ids.tolist() == list(range(7))
        del blocks


MEASURE = """
import resource, sys
from poolscore.engine.keys import IdSet
from poolscore.engine.pool.choice import RowChoice
from poolscore.engine.pool.find import find_files
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.read import ShardReader
plan = make_plan(find_files(sys.argv[1]), 65536)
reader = ShardReader(plan.root, ["image"], None, IdSet())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(len(block) for shard in plan.shards for block in reader.blocks(shard, 64))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_is_bounded_by_row_groups_not_by_the_shard(tmp_path: Path) -> None:
    image = pa.array([bytes(100_000)] * 50)
    with pq.ParquetWriter(
        tmp_path / "a.parquet", pa.schema([("image", pa.binary())]), compression="none", use_dictionary=False
    ) as writer:
        for _ in range(40):  # 40 row groups of 5 MB
            writer.write_table(pa.table({"image": image}))
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], check=True, capture_output=True, text=True, timeout=120
    )
    rows, mebibytes = map(int, output.stdout.split())
    assert rows == 2000
    assert mebibytes < 90


def test_two_readings_of_a_shard_count_what_is_left_out_apart(tmp_path: Path) -> None:
    write(tmp_path, [[10, 10]])
    (shard,) = plan_of(tmp_path).shards
    reader = ShardReader(str(tmp_path), ["x"], "id", IdSet(["r19"]), RowChoice("x >= 5 and x < 18"))
    one, other = reader.blocks(shard, 4), reader.blocks(shard, 4)
    next(one)
    assert [len(block) for block in other] == [4, 4, 4, 1]
    assert (one.filtered, other.filtered) == (5, 7)
    one.close()


@given(st.sets(st.integers(0, 199), min_size=1), st.booleans(), st.sets(st.integers(0, 199)), st.integers(1, 40))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_the_rows_that_are_wanted(
    tmp_path: Path, wanted: set[int], with_ids: bool, excluded: set[int], block_rows: int
) -> None:
    write(tmp_path, [[70, 30], [100]])
    plan = plan_of(tmp_path, 1000)
    exclude = IdSet([f"r{x}" for x in excluded])
    reader = ShardReader(plan.root, ["x"], "id" if with_ids else None, exclude if with_ids else IdSet())
    narrow = reader.only(np.array(sorted(wanted)))
    (whole,) = reader.blocks(plan.shards[0], 1000)
    found = list(narrow.blocks(plan.shards[0], block_rows))
    there = np.isin(whole.row_ids, sorted(wanted))
    assert [x for block in found for x in block.table["x"].to_pylist()] == whole.table.filter(there)["x"].to_pylist()
    assert np.concatenate([block.keys for block in found]).tolist() == whole.keys[there].tolist()
    assert [i for block in found for i in block.ids.to_pylist()] == whole.ids.filter(pa.array(there)).to_pylist()
    assert [len(block) for block in found[:-1]] == [block_rows] * (len(found) - 1)


@pytest.mark.parametrize(
    ("cause", "kind", "advice"),
    [
        (OSError("AWS Error SLOW_DOWN during GetObject operation"), PoolAway, "mend the storage"),
        (pa.ArrowInvalid("Parquet magic bytes not found in footer"), ConfigError, "write it again"),
        (None, ConfigError, "write it again"),
    ],
)
def test_what_the_user_is_told_before_there_is_a_run(
    cause: Exception | None, kind: type[PoolscoreError], advice: str
) -> None:
    error = UnreadableShard("a.parquet cannot be read")
    error.__cause__ = cause
    told = of_user(error, "pool.uri", "write it again")
    assert type(told) is kind
    assert str(told).startswith(f"pool.uri: a.parquet cannot be read; {advice}")
