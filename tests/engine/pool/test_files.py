"""Finding the pool's files: which, in which order, and what is wrong with them in words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.files import find_files


def write(path: Path, rows: int = 3, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": range(rows)}), path, **options)
    return path


def paths(uri: object) -> list[str]:
    found: list[str] = find_files(str(uri)).table["path"].to_pylist()
    return found


def refusal(uri: object) -> str:
    with pytest.raises(ConfigError) as caught:
        find_files(str(uri), "some.key")
    message = str(caught.value)
    assert message.startswith("some.key: ")
    assert "\n" not in message
    return message.removeprefix("some.key: ")


def test_one_file_is_a_pool(tmp_path: Path) -> None:
    path = write(tmp_path / "_odd name ü.data", 7, row_group_size=3)
    pool = find_files(str(path))
    assert pool.root == str(tmp_path)
    (file,) = pool.table.to_pylist()
    assert (file["path"], file["group_rows"], file["matches"]) == ("_odd name ü.data", [3, 3, 1], [True] * 3)
    assert (file["bytes"], file["modified"]) == (path.stat().st_size, path.stat().st_mtime_ns)
    assert (pool.rows, pool.bytes, len(pool), pool.first) == (7, path.stat().st_size, 1, "_odd name ü.data")
    assert pool.schema.names == ["id"]


def test_a_folder_is_searched_in_depth_and_sorted_by_relative_path(tmp_path: Path) -> None:
    expected = ["B.parquet", "a b/x.parquet", "a.PARQUET", "a/z.pq", "day=1/x.parquet", "day=10/x.parq", "ü/ö.parquet"]
    for name in reversed(expected):
        write(tmp_path / "pool" / name)
    for name in (".hidden.parquet", "_tmp.parquet", ".cache/x.parquet", "a/_log/x.parquet", "notes.txt"):
        write(tmp_path / "pool" / name)
    assert paths(tmp_path / "pool") == expected == sorted(expected)
    assert paths(f"{tmp_path}/pool/") == expected


def test_a_folder_below_a_hidden_one_is_searched(tmp_path: Path) -> None:
    write(tmp_path / ".data" / "_pool" / "x.parquet")
    assert paths(tmp_path / ".data" / "_pool") == ["x.parquet"]
    assert paths(tmp_path / ".data" / "_pool" / "*.parquet") == ["x.parquet"]


def test_folders_named_like_files_are_folders(tmp_path: Path) -> None:
    write(tmp_path / "spark.parquet" / "part-0.parquet")
    assert paths(tmp_path) == ["spark.parquet/part-0.parquet"]
    assert paths(tmp_path / "*.parquet" / "*") == ["spark.parquet/part-0.parquet"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.parquet", ["x.parquet"]),
        ("*/x.parquet", ["a/x.parquet", "b/x.parquet"]),
        ("**/*.parquet", ["a/x.parquet", "b/c/y.parquet", "b/x.parquet", "x.parquet"]),
        ("b/**/*.parquet", ["c/y.parquet", "x.parquet"]),
        ("[ab]/x.parquet", ["a/x.parquet", "b/x.parquet"]),
        ("b/?/y.*", ["c/y.parquet"]),
    ],
)
def test_a_glob_is_relative_to_its_fixed_part(tmp_path: Path, pattern: str, found: list[str]) -> None:
    for name in ("x.parquet", "a/x.parquet", "b/x.parquet", "b/c/y.parquet", "_skip/x.parquet", ".x.parquet"):
        write(tmp_path / name)
    assert paths(tmp_path / pattern) == found


def test_brackets_may_be_part_of_a_name(tmp_path: Path) -> None:
    write(tmp_path / "pool[1]" / "x.parquet")
    assert paths(tmp_path / "pool[1]") == ["x.parquet"]
    assert paths(tmp_path / "pool[1]" / "x.parquet") == ["x.parquet"]


def test_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert refusal(tmp_path) == f"no Parquet file at {tmp_path}"
    assert refusal(tmp_path / "none") == f"there is nothing at {tmp_path}/none"
    assert refusal(tmp_path / "none" / "*.parquet").startswith("no Parquet file at")
    assert "is no glob" in refusal(tmp_path / "**x")
    assert "no storage of this kind" in refusal("hdfs://bucket/pool")


def test_a_pool_without_rows_is_refused_but_empty_files_are_not(tmp_path: Path) -> None:
    for name in ("a", "c", "e"):
        pq.write_table(pa.table({"id": pa.nulls(0)}), tmp_path / f"{name}.parquet")
    assert refusal(tmp_path) == f"the pool at {tmp_path} has no rows (3 files)"
    write(tmp_path / "b.parquet")
    write(tmp_path / "d.parquet")
    pool = find_files(str(tmp_path))
    assert pool.rows_F.tolist() == [0, 3, 0, 3, 0]
    assert pool.schema.field("id").type == pa.int64()
    pool.require_columns({"id": "pool.id"})


def test_broken_files_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "a.parquet", 100).read_bytes()
    broken = tmp_path / "b.parquet"
    for data in (b"", b"PAR1", good[:-1], good[: len(good) // 2], b"id,x\n1,2\n", good[:-8] + b"\xff\xff\xff\x7fPAR1"):
        broken.write_bytes(data)
        assert str(broken) in refusal(tmp_path)
    broken.unlink()
    broken.symlink_to(tmp_path / "nowhere")
    assert str(broken) in refusal(tmp_path)


def test_a_flipped_byte_in_a_footer_gives_a_pool_or_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": range(50), "text": ["é"] * 50, "list": [[1.0]] * 50}), path)
    good = path.read_bytes()
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    random = np.random.default_rng(0)
    messages: list[str] = []
    for _ in range(300):
        data = bytearray(good)
        data[random.integers(footer, len(good))] ^= random.integers(1, 256)
        path.write_bytes(data)
        try:
            find_files(str(path))
        except ConfigError as error:
            messages.append(str(error))
    assert 50 < len(messages) < 300
    assert not any("\n" in message for message in messages)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    try:
        os.rename(write(tmp_path / "a.parquet"), os.fsencode(tmp_path) + b"/\xff.parquet")  # noqa: PTH104
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert "rename it" in refusal(tmp_path)


def test_the_fingerprint_tells_contents_of_equal_size_apart(tmp_path: Path) -> None:
    def described(values: list[int]) -> tuple[int, str]:
        pq.write_table(pa.table({"id": values}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
        (file,) = find_files(str(tmp_path)).table.to_pylist()
        return file["bytes"], file["fingerprint"]

    one, same, other = described([1, 2, 3]), described([1, 2, 3]), described([1, 2, 4])
    assert one == same
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_columns_must_be_there_and_of_one_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.5], "id": ["b"]}), tmp_path / "b.parquet")
    pool = find_files(str(tmp_path))
    pool.require_columns({"id": "pool.id"})
    with pytest.raises(ConfigError, match=r"^pool.keep: column 'x' is double in b.parquet but int64 in a.parquet"):
        pool.require_columns({"id": "pool.id", "x": "pool.keep"})
    with pytest.raises(ConfigError, match=r"^pool.input: column 'y' is not in a.parquet; it has: id, x$"):
        pool.require_columns({"y": "pool.input"})
