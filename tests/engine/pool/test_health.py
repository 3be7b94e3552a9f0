"""What footers tell about the shape of a pool."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from poolscore.engine.pool.footer import read_footer
from poolscore.engine.pool.health import FileHealth, PoolHealth, look


def images(rows: int, size: int = 2000) -> pa.Table:
    rng = np.random.default_rng(rows)
    return pa.table({"id": [f"r{n}" for n in range(rows)], "image": [rng.bytes(size) for _ in range(rows)]})


def looked(path: Path, table: pa.Table, **options: Any) -> FileHealth:
    pq.write_table(table, path, **options)
    return look(pq.read_metadata(path))


def kinds(*files: FileHealth) -> list[str]:
    health = PoolHealth()
    for number, file in enumerate(files):
        health.add(f"f{number}", file)
    return [finding.kind for finding in health.findings()]


def test_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    table = images(100)
    file = looked(
        tmp_path / "a.parquet",
        table,
        row_group_size=40,
        use_dictionary=False,
        compression="none",
        write_statistics=["id"],
    )
    assert file.group_rows == (40, 40, 20)
    assert file.rows == 100
    assert 0 <= (tmp_path / "a.parquet").stat().st_size - file.bytes < 5000
    assert 40 * 2000 < file.group_bytes[0] < 41 * 2000
    assert file.codecs == {"id": "UNCOMPRESSED", "image": "UNCOMPRESSED"}
    assert pickle.loads(pickle.dumps(file)) == file


def test_pictures_with_a_codec_or_a_dictionary_are_found_and_text_is_not(tmp_path: Path) -> None:
    table = images(50)
    assert kinds(looked(tmp_path / "a", table, compression="none", use_dictionary=["id"])) == []
    assert kinds(looked(tmp_path / "b", table, compression="zstd", use_dictionary=["id"])) == ["compressed_twice"]
    assert kinds(looked(tmp_path / "c", table, compression="none", use_dictionary=True)) == ["dictionary_encoded"]
    struct = pa.table({"image": pa.StructArray.from_arrays([table["image"].combine_chunks()], ["bytes"])})
    file = looked(tmp_path / "d", struct, compression="snappy", use_dictionary=False)
    assert file.compressed_twice == ("image.bytes",)
    text = pa.table({"text": pa.array([value.hex() for value in table["image"].to_pylist()])})
    assert kinds(looked(tmp_path / "e", text, compression="zstd", use_dictionary=False)) == []
    zeros = pa.table({"raw": pa.array([bytes(5000)] * 50)})  # a codec that saves something is none too many
    assert kinds(looked(tmp_path / "f", zeros, compression="zstd", use_dictionary=False)) == []


def test_huge_row_groups_are_named_with_the_first_file_and_the_advice() -> None:
    health = PoolHealth()
    health.add("a.parquet", FileHealth(10**9, (10,), (10**6,), "s"))
    health.add("b.parquet", FileHealth(10**9, (10, 10, 10), (257 * 10**6, 10**6, 700 * 10**6), "s"))
    (finding,) = health.findings("photos/")
    assert finding.kind == "huge_row_groups"
    assert str(finding) == (
        "2 of 4 row groups over 256 MB, up to 700 MB (first: b.parquet): repack it: `poolscore pack photos/ NEW`"
    )


def test_tiny_files_and_row_groups_count_when_there_are_many() -> None:
    tiny, fine = FileHealth(10_000, (5,), (9_000,), "s"), FileHealth(500 * 10**6, (5,), (30 * 10**6,), "s")
    assert kinds(*[tiny] * 16) == ["tiny_files"]
    assert kinds(*[tiny] * 15) == []
    assert kinds(*[tiny] * 16, *[fine] * 17) == []
    assert kinds(FileHealth(500 * 10**6, (5,) * 16, (9_000,) * 16, "s")) == ["tiny_row_groups"]


def test_schemas_that_differ_and_files_without_rows(tmp_path: Path) -> None:
    one = looked(tmp_path / "a", pa.table({"x": [1]}))
    same = looked(tmp_path / "b", pa.table({"x": [2]}).replace_schema_metadata({"a": "b"}))
    other = looked(tmp_path / "c", pa.table({"x": ["1"]}))
    empty = looked(tmp_path / "d", pa.table({"x": pa.array([], pa.null())}))
    assert kinds(one, same) == []
    assert kinds(one, same, other) == ["differing_schemas"]
    assert kinds(one, empty) == ["files_without_rows"]


def test_nulls_and_empty_values_come_from_statistics(tmp_path: Path) -> None:
    health = PoolHealth()
    table = pa.table({"a": ["", None, "x"], "b": [None, None, 1]})
    health.add("a", looked(tmp_path / "a", table, row_group_size=2))
    assert health.nulls == {"a": 1, "b": 2}
    assert list(health.empty) == ["a"]
    health = PoolHealth()
    health.add("a", looked(tmp_path / "a", table, write_statistics=["b"]))
    assert health.nulls == {"b": 2}


def test_plan_and_doctor_judge_columns_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = pa.array([rng.bytes(2000) for _ in range(40)], pa.binary())
    columns = {
        "picture": pictures,
        "page": pa.array([b"<p>" * 700] * 40, pa.binary()),  # a codec saves much
        "short": pa.array([rng.bytes(20) for _ in range(40)], pa.binary()),
        "text": pa.array(["words " * 200] * 40),
    }
    for i, codec in enumerate(("none", "zstd", {"picture": "snappy"})):
        path = tmp_path / f"{i}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=20, compression=codec, use_dictionary=["picture"])
        seen, planned = look(pq.read_metadata(path)), read_footer(fs.LocalFileSystem(), str(tmp_path), path.name)
        assert (seen.compressed_twice, seen.dictionary) == (planned.compressed_twice, planned.dictionary)
        assert planned.compressed_twice == (("picture",) if codec != "none" else ())
        assert [seen.codecs[column] for column in planned.compressed_twice] == list(planned.codecs)
