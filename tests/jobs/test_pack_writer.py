"""The pool on disk: row groups, files, encodings, pages, and what a killed pack leaves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.errors import ConfigError, InterruptedRun, StoppedError
from poolscore.jobs.pack import PackSummary, pack
from poolscore.jobs.pack.contract import MIB, Limits
from poolscore.jobs.pack.destination import Folder
from poolscore.jobs.pack.writer import PoolWriter

FIELDS: list[Any] = [pa.field("id", pa.int64()), pa.field("image", pa.binary())]
SCHEMA = pa.schema(FIELDS)


def batch(start: int, sizes: list[int]) -> pa.RecordBatch:
    ids = pa.array(range(start, start + len(sizes)), pa.int64())
    return pa.record_batch([ids, pa.array([bytes(size) for size in sizes], pa.binary())], schema=SCHEMA)


def written(pool: Path, batches: list[pa.RecordBatch], limits: Limits) -> list[pq.ParquetFile]:
    pool.mkdir()
    with PoolWriter(Folder(pool), SCHEMA, limits) as writer:
        for piece in batches:
            writer.write(piece)
        return [pq.ParquetFile(pool / part) for part in writer.commit()]


def save_images(path: Path, rows: int) -> Path:
    np.save(path, np.random.default_rng(1).integers(0, 256, (rows, 16, 16), dtype=np.uint8))
    return path


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
def test_row_groups_are_full_in_rows_whatever_the_pieces(tmp_path: Path, step: int) -> None:
    pieces = [batch(at, [3] * min(step, 1000 - at)) for at in range(0, 1000, step)]
    (file,) = written(tmp_path / "pool", pieces, Limits(row_group_rows=64))
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sizes == [64] * 15 + [40]
    assert file.read()["id"].to_pylist() == list(range(1000))


def test_the_same_rows_give_the_same_bytes_whatever_the_pieces(tmp_path: Path) -> None:
    sizes = np.random.default_rng(3).integers(0, 3000, 3000).tolist()
    found = set()
    for step in (7, 100, 3000):
        pieces = [batch(at, sizes[at : at + step]) for at in range(0, 3000, step)]
        written(tmp_path / f"pool{step}", pieces, Limits(row_group_bytes=2_500_000, file_bytes=3_000_000))
        found.add(tuple(part.read_bytes() for part in sorted((tmp_path / f"pool{step}").iterdir())))
    assert len(found) == 1


def test_row_groups_keep_to_their_bytes_and_a_large_row_stands_alone(tmp_path: Path) -> None:
    sizes = np.random.default_rng(2).integers(0, 4000, 300).tolist()
    sizes[150] = 50_000
    pieces = [batch(at, sizes[at : at + 40]) for at in range(0, 300, 40)]
    (file,) = written(tmp_path / "pool", pieces, Limits(row_group_bytes=10_000))
    at = 0
    for number in range(file.num_row_groups):
        rows = file.metadata.row_group(number).num_rows
        assert sum(sizes[at : at + rows]) + 8 * rows <= 10_000 or rows == 1
        at += rows
    assert at == 300
    images: list[Any] = file.read()["image"].to_pylist()
    assert [len(image) for image in images] == sizes


def test_memory_is_bounded_by_one_row_group(tmp_path: Path) -> None:
    limits = Limits(row_group_bytes=20_000, row_group_rows=50)
    (tmp_path / "pool").mkdir()
    with PoolWriter(Folder(tmp_path / "pool"), SCHEMA, limits) as writer:
        for at in range(0, 2000, 30):
            writer.write(batch(at, [300] * 30))
            held = writer._pending
            assert sum(piece.num_rows for piece in held) <= 50
            assert sum(piece.nbytes for piece in held) <= 20_100


def test_files_are_split_by_bytes(tmp_path: Path) -> None:
    pieces = [batch(at, [1000] * 10) for at in range(0, 200, 10)]
    files = written(tmp_path / "pool", pieces, Limits(file_bytes=45_000, row_group_bytes=12_000))
    names = sorted(path.name for path in (tmp_path / "pool").iterdir())
    assert names == [f"part-{n:05d}.parquet" for n in range(5)]
    assert [file.metadata.num_rows for file in files] == [44] * 4 + [24]
    assert all((tmp_path / "pool" / name).stat().st_size < 47_000 for name in names)
    assert pq.read_table(tmp_path / "pool")["id"].to_pylist() == list(range(200))


def test_images_are_plain_and_other_columns_are_zstd(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((40, 4, 4), np.uint8), y=np.arange(40))
    pack(tmp_path / "x.npz", tmp_path / "pool")
    group = pq.ParquetFile(tmp_path / "pool/part-00000.parquet").metadata.row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    image = columns.pop("image")
    assert image.compression == "UNCOMPRESSED"
    assert not image.is_stats_set
    assert not image.has_dictionary_page
    assert "RLE_DICTIONARY" not in image.encodings
    assert set(columns) == {"id", "label"}
    assert all(column.compression == "ZSTD" and column.is_stats_set for column in columns.values())


def test_tensors_are_zstd_without_dictionary(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((40, 5), np.float32))
    pack(tmp_path / "x.npy", tmp_path / "pool")
    tensor = pq.ParquetFile(tmp_path / "pool/part-00000.parquet").metadata.row_group(0).column(1)
    assert tensor.path_in_schema == "tensor.list.element"
    assert tensor.compression == "ZSTD"
    assert not tensor.has_dictionary_page
    assert not tensor.is_stats_set


def page_sizes(path: Path, column: int) -> Iterator[int]:
    """Bytes of the data pages of an uncompressed column chunk, from Thrift's compact page headers: field 2 is the
    uncompressed size, field 3 the compressed size; a header is taken to end where the next one starts right."""
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(column)
    data = path.read_bytes()[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size]
    at = 0
    while at < len(data):
        assert data[at : at + 3] == b"\x15\x00\x15"
        size = shift = 0
        for byte in data[at + 3 : at + 8]:
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        size >>= 1
        yield size
        ends = (at + head + size for head in range(10, 60))
        at = next(end for end in ends if end == len(data) or data[end : end + 3] == b"\x15\x00\x15")


def test_pages_stay_near_one_mebibyte_for_large_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    image = pa.array([rng.bytes(100_000) for _ in range(100)], pa.binary())
    piece = pa.record_batch([pa.array(range(100), pa.int64()), image], schema=SCHEMA)
    written(tmp_path / "pool", [piece], Limits())
    sizes = list(page_sizes(tmp_path / "pool/part-00000.parquet", 1))
    assert sum(sizes) >= 10_000_000
    assert max(sizes) <= 2 * MIB


def test_pool_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    source = save_images(tmp_path / "x.npy", 3)
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match=r"not empty \(it holds 'mine.txt'\).*`--overwrite`"):
        pack(source, tmp_path / "pool")
    with pytest.raises(ConfigError, match="is a file"):
        pack(source, tmp_path / "x.npy", overwrite=True)
    assert [path.name for path in (tmp_path / "pool").iterdir()] == ["mine.txt"]


def test_an_empty_pool_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    assert pack(save_images(tmp_path / "x.npy", 3), tmp_path / "pool").rows == 3


def test_overwriting_replaces_a_pool_of_pack(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pack(save_images(tmp_path / "x.npy", 30), pool, file_bytes=1, row_group_rows=10)
    (pool / ".DS_Store").write_bytes(b"mine")
    assert pack(save_images(tmp_path / "x.npy", 4), pool, overwrite=True).files == 1
    assert sorted(path.name for path in pool.iterdir()) == [".DS_Store", "part-00000.parquet"]
    assert pq.ParquetFile(pool / "part-00000.parquet").metadata.num_rows == 4


@pytest.mark.parametrize(
    "name", ["mine.parquet", "part-1.parquet", "part-00000.parquet.bak", "part-00007.parquet", "notes.txt"]
)
@pytest.mark.parametrize("kind", ["parquet", "bytes", "folder", "link"])
def test_overwriting_refuses_a_folder_with_anything_else(tmp_path: Path, name: str, kind: str) -> None:
    pool, source = tmp_path / "pool", save_images(tmp_path / "x.npy", 4)
    pack(source, pool)
    if kind == "parquet":
        pq.write_table(pa.table({"id": [1]}), pool / name)
    elif kind == "bytes":
        (pool / name).write_bytes(b"mine")
    elif kind == "folder":
        (pool / name).mkdir()
    else:
        (pool / name).symlink_to("part-00000.parquet")
    (pool / "z").touch()
    before = {path.name: path.lstat().st_mtime_ns for path in pool.iterdir()}
    with pytest.raises(ConfigError, match=rf"holds '{name}', which pack did not write.*choose another folder"):
        pack(source, pool, overwrite=True)
    assert {path.name: path.lstat().st_mtime_ns for path in pool.iterdir()} == before


def test_a_foreign_part_that_appears_while_overwriting_is_not_deleted(tmp_path: Path) -> None:
    pool, source = tmp_path / "pool", save_images(tmp_path / "x.npy", 4)
    pack(source, pool)
    foreign = pool / "part-00007.parquet"
    pack(source, pool, overwrite=True, progress=lambda *_: foreign.write_bytes(b"mine"))
    assert foreign.read_bytes() == b"mine"


def test_the_mark_disturbs_no_reader(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(120, dtype=np.float32).reshape(30, 2, 2))
    pack(tmp_path / "x.npy", tmp_path / "pool", file_bytes=1, row_group_rows=10)
    parts = sorted((tmp_path / "pool").iterdir())
    schemas = [pq.read_schema(part) for part in parts]
    assert len(parts) == 3
    assert all((pq.read_metadata(part).metadata or {})[b"poolscore.pack"] == b"1" for part in parts)
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert schemas[0].field("tensor").type == pa.fixed_shape_tensor(pa.float32(), (2, 2))
    assert pq.read_table(tmp_path / "pool").num_rows == 30


def test_an_interrupt_leaves_whole_parts_hidden_and_nothing_else(tmp_path: Path) -> None:
    source = save_images(tmp_path / "x.npy", 3000)

    def stop(done: int, total: int | None) -> None:
        if done > 1500:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun, match=r"pool: interrupted; the same command goes on after 1,500 rows$"):
        pack(source, tmp_path / "pool", file_bytes=1, row_group_rows=500, progress=stop)
    left = {path.name for path in (tmp_path / "pool").iterdir()}
    assert left == {
        ".pack.journal",
        ".set_aside.csv.tmp",
        *(f".part-0000{n}.parquet.tmp" for n in range(3)),
    }
    again = r"the same command begins again, for no file of 512 MiB was whole yet$"
    with pytest.raises(InterruptedRun, match=again):  # nothing whole: nothing stays
        pack(source, tmp_path / "other", progress=stop)
    assert not (tmp_path / "other").exists()


def test_an_error_while_overwriting_leaves_the_old_pool(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pack(save_images(tmp_path / "x.npy", 5), pool)

    def stop(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        pack(save_images(tmp_path / "x.npy", 9), pool, row_group_rows=2, overwrite=True, progress=stop)
    assert [path.name for path in pool.iterdir()] == ["part-00000.parquet"]
    assert pq.read_table(pool).num_rows == 5


KILLED = """
import os, sys
from poolscore.jobs.pack import pack
assert "torch" not in sys.modules and "ray" not in sys.modules
pack(sys.argv[1], sys.argv[2], file_bytes=1, row_group_rows=500, progress=lambda done, _: done > 1500 and os._exit(9))
"""


def test_a_killed_pack_leaves_hidden_names_only_and_can_be_repeated(tmp_path: Path) -> None:
    source, pool = save_images(tmp_path / "x.npy", 3000), tmp_path / "pool"
    assert subprocess.run([sys.executable, "-c", KILLED, source, pool], check=False).returncode == 9
    left = [path.name for path in pool.iterdir()]
    assert len(left) > 1
    assert all(name.startswith(".") and not name.endswith(".parquet") for name in left)
    assert pack(source, pool, fresh=True).rows == 3000
    assert [path.name for path in pool.iterdir()] == ["part-00000.parquet"]


def test_a_full_disk_stops_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_images(tmp_path / "x.npy", 100)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StoppedError, match="No space left on device"):
        pack(source, tmp_path / "pool")
    assert not (tmp_path / "pool").exists()


def test_limits_and_names_are_checked(tmp_path: Path) -> None:
    source = save_images(tmp_path / "x.npy", 2)
    with pytest.raises(ConfigError, match="row_group_rows must be at least 1, got 0"):
        pack(source, tmp_path / "pool", row_group_rows=0)
    with pytest.raises(ConfigError, match="must be different"):
        pack(source, tmp_path / "pool", id_column="image")
    with pytest.raises(ConfigError, match="'width' is a column"):
        pack(source, tmp_path / "pool", image_column="width")


def test_the_summary_tells_what_is_on_disk(tmp_path: Path) -> None:
    summary = pack(save_images(tmp_path / "x.npy", 25), tmp_path / "pool", file_bytes=1, row_group_rows=10)
    assert (summary.rows, summary.files) == (25, 3)
    assert summary.bytes == sum(path.stat().st_size for path in (tmp_path / "pool").iterdir())
    assert str(summary).startswith("Packed 25 rows in 3 files, ")
    odd = PackSummary(1, 1, 10, {"unreadable": 1}, ("a\nb.png",), {"id": "string"})
    assert str(odd) == (
        "Packed 1 row in 1 file, 0.0 MB. Columns: id (string). Left out: 1 unreadable. Could not be read: 'a\\nb.png'."
    )
