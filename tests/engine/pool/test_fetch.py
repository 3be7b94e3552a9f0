"""Bytes ahead of the reader: the right ones, several at a time, within the budget, and no thread left."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.errors import UnreadableShard
from poolscore.engine.keys import IdSet
from poolscore.engine.pool import chunks, fetch
from poolscore.engine.pool.chunks import bytes_of_row
from poolscore.engine.pool.cut import RANGES, make_plan
from poolscore.engine.pool.fetch import OpenFile, ReadAhead
from poolscore.engine.pool.find import find_files
from poolscore.engine.pool.plan import Plan
from poolscore.engine.pool.read import ShardReader
from poolscore.engine.storage import filesystem

Pool = Callable[..., Plan]


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Two pictures a row, of `size` bytes each, an id and a struct; requests are of 10 kB."""
    for module in (chunks, fetch):
        monkeypatch.setattr(module, "REQUEST", 10_000, raising=False)
    monkeypatch.setattr(chunks, "GAP", 100)
    monkeypatch.setattr(fetch, "BUFFER", 1000)

    def write(files: int = 3, rows: int = 60, group: int = 20, size: int = 1000, shard_rows: int = 1000) -> Plan:
        rng = np.random.default_rng(0)
        for i in range(files):
            table = pa.table(
                {
                    "one": pa.array([rng.bytes(size) for _ in range(rows)]),
                    "unused": pa.array([rng.bytes(size) for _ in range(rows)]),
                    "id": [f"{i}-{row}" for row in range(rows)],
                    "two": pa.array([{"bytes": rng.bytes(size), "path": "p"} for _ in range(rows)]),
                }
            )
            pq.write_table(table, tmp_path / f"{i}.parquet", row_group_size=group, compression="none")
        return make_plan(find_files(str(tmp_path)), shard_rows)

    return write


def reader_of(plan: Plan) -> ShardReader:
    return ShardReader(plan.root, ["one", "two"], "id", IdSet())


def whole(plan: Plan) -> pa.Table:
    files = sorted({piece.path for shard in plan.shards for piece in shard.pieces})
    return pa.concat_tables(pq.read_table(f"{plan.root}/{path}", columns=["one", "two", "id"]) for path in files)


@pytest.mark.parametrize("budget", [1, 30_000, 1 << 30])
def test_rows_do_not_depend_on_the_budget(pool: Pool, budget: int) -> None:
    plan = pool(shard_rows=7)  # ranges inside row groups
    found = []
    for shard in plan.shards:
        with reader_of(plan).ahead(shard, budget) as source:
            found += [block.table for block in reader_of(plan).blocks(shard, 16, source)]
    assert pa.concat_tables(found).equals(whole(plan))


def test_no_more_is_held_than_the_budget(pool: Pool) -> None:
    plan = pool()
    with reader_of(plan).ahead(plan.shards[0], 40_000) as source:
        blocks = reader_of(plan).blocks(plan.shards[0], 16, source)
        assert sum(map(len, blocks)) == plan.rows
        assert 30_000 < source.peak <= 40_000


def test_only_what_is_needed_is_read_and_only_once(pool: Pool) -> None:
    plan = pool()
    reads: list[tuple[int, int]] = []
    with slow(plan, reads, 0.0, budget=1 << 20) as source:
        assert sum(map(len, reader_of(plan).blocks(plan.shards[0], 16, source))) == plan.rows
    group = pq.read_metadata(f"{plan.root}/0.parquet").row_group(0)
    needed = sum(group.column(i).total_compressed_size for i in range(5) if group.column(i).path_in_schema != "unused")
    assert sum(length for _, length in reads) <= len(plan.shards[0].pieces) * needed * 1.05
    assert max(length for _, length in reads) <= 10_000


class Slow:
    """A file whose every read takes a while, as one in object storage."""

    def __init__(self, file: Any, reads: list[tuple[int, int]], seconds: float) -> None:
        self._file, self._reads, self._seconds = file, reads, seconds

    def get_stream(self, offset: int, length: int) -> Any:
        self._reads.append((offset, length))
        time.sleep(self._seconds)
        return self._file.get_stream(offset, length)

    def size(self) -> int:
        return int(self._file.size())

    def close(self) -> None:
        self._file.close()


def test_nothing_is_fetched_in_advance_behind_a_part_of_a_row_group(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = pool(files=1, rows=20_000, group=20_000, size=100, shard_rows=2_000)  # pages hold 1,024 rows
    fetched: list[int] = []
    read = fetch._read

    def counted(file: pa.NativeFile, offset: int, length: int) -> Any:
        fetched.append(length)
        return read(file, offset, length)

    monkeypatch.setattr(fetch, "_read", counted)
    sums = []
    for shard in plan.shards:
        with reader_of(plan).ahead(shard, 1 << 30) as source:
            assert sum(map(len, reader_of(plan).blocks(shard, 500, source))) == shard.rows
        sums.append(sum(fetched))
        fetched.clear()
    assert len(sums) == RANGES
    assert sums == sorted(sums)
    assert sums[0] < 0.6 * sums[-1]  # half of it is the dictionary that lies before the first page


def slow(plan: Plan, reads: list[tuple[int, int]], seconds: float, budget: int) -> ReadAhead:
    def opened(path: str) -> OpenFile:
        time.sleep(seconds)
        file = pa.OSFile(f"{plan.root}/{path}")
        return OpenFile(Slow(file, reads, seconds), pq.read_metadata(file))

    return ReadAhead(opened, plan.shards[0].pieces, ["one", "two", "id"], budget)


def test_slow_storage_is_asked_for_many_pieces_at_a_time(pool: Pool) -> None:
    plan = pool(files=8, rows=60, group=10)
    reads: list[tuple[int, int]] = []
    started = time.monotonic()
    with slow(plan, reads, 0.05, budget=1 << 20) as source:
        rows = sum(map(len, reader_of(plan).blocks(plan.shards[0], 16, source)))
    took = time.monotonic() - started
    assert rows == plan.rows
    assert len(reads) >= 8 * 6 * 2
    assert took < (len(reads) + 8) * 0.05 / 4  # one after the other it would be four times as long, and more


class Busy(Slow):
    """A file whose every request is refused at first."""

    def __init__(self, file: Any, reads: list[tuple[int, int]], times: int) -> None:
        super().__init__(file, reads, 0)
        self._times = times

    def get_stream(self, offset: int, length: int) -> Any:
        stream = super().get_stream(offset, length)
        if self._reads.count((offset, length)) <= self._times:
            raise OSError("When reading 'bucket/key': AWS Error SLOW_DOWN during GetObject operation")
        return stream


@pytest.mark.parametrize("times", [2, 1000])
def test_each_request_has_a_moment_to_succeed(pool: Pool, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    monkeypatch.setattr(filesystem, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(filesystem, "MOMENT", 0.5)
    plan, reads = pool(files=1), list[tuple[int, int]]()

    def opened(path: str) -> OpenFile:
        file = pa.OSFile(f"{plan.root}/{path}")
        return OpenFile(Busy(file, reads, times), pq.read_metadata(file))

    with ReadAhead(opened, plan.shards[0].pieces, ["one", "two", "id"], 1 << 20) as source:
        blocks = reader_of(plan).blocks(plan.shards[0], 16, source)
        if times == 2:
            assert pa.concat_tables(rows.table for rows in blocks).equals(whole(plan))
        else:
            with pytest.raises(UnreadableShard, match=r"^0.parquet cannot be read: the storage is too busy"):
                list(blocks)


def test_threads_end_when_the_reader_leaves_in_the_middle(pool: Pool) -> None:
    plan = pool()
    blocks = reader_of(plan).blocks(plan.shards[0], 16)
    next(blocks)
    assert [t for t in threading.enumerate() if t.name.startswith("poolscore-fetch")]
    blocks.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("poolscore-fetch")]


def test_threads_end_when_a_reader_is_dropped(pool: Pool) -> None:
    plan = pool()
    blocks = reader_of(plan).blocks(plan.shards[0], 16)
    next(blocks)
    gc.disable()
    try:
        del blocks
        assert not [t for t in threading.enumerate() if t.name.startswith("poolscore-fetch")]
    finally:
        gc.enable()


def test_a_file_that_shrank_after_its_footer_was_read(pool: Pool, tmp_path: Path) -> None:
    plan = pool(files=2)
    with reader_of(plan).ahead(plan.shards[0], 10_000) as source:
        blocks = reader_of(plan).blocks(plan.shards[0], 16, source)
        next(blocks)
        with (tmp_path / "0.parquet").open("r+b") as file:
            file.truncate(70_000)
        with pytest.raises(UnreadableShard, match=r"^0.parquet cannot be read: it ends before byte \d+"):
            list(blocks)


def test_a_missing_file_among_many_is_named_when_its_turn_comes(pool: Pool, tmp_path: Path) -> None:
    plan = pool()
    (tmp_path / "1.parquet").unlink()
    seen = 0
    with pytest.raises(UnreadableShard, match=r"^1.parquet cannot be read"):
        for block in reader_of(plan).blocks(plan.shards[0], 20):
            seen += len(block)
    assert seen == 60


def test_bytes_of_a_row_count_the_columns_asked_for(pool: Pool, tmp_path: Path) -> None:
    pool()
    footer = pq.read_metadata(tmp_path / "0.parquet")
    assert 1000 <= bytes_of_row(footer, 0, ["one"]) < 1200
    assert 2000 <= bytes_of_row(footer, 0, ["one", "two"]) < 2400


def test_nothing_of_a_shard_stays_when_it_was_read(pool: Pool) -> None:
    plan = pool()
    with reader_of(plan).ahead(plan.shards[0], 1 << 20) as source:
        files = []
        for _ in reader_of(plan).blocks(plan.shards[0], 16, source):
            assert source._file is not None
            files.append(weakref.ref(source._file))
        gc.collect()
        assert [file() is None for file in files[:1]] == [True]  # its file was done with before the last was begun
    left = weakref.ref(source)
    del source
    gc.collect()
    assert left() is None
