"""Finding the pool's files: which, in which order, and what is wrong with them in words."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool import find
from poolscore.engine.pool.find import find_files
from poolscore.engine.pool.footer import TAIL


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


def test_a_footer_longer_than_one_read(tmp_path: Path) -> None:
    columns = {f"{'c' * 60}{i:04}": [1] for i in range(1000)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert pq.read_metadata(tmp_path / "a.parquet").serialized_size > 2 * TAIL
    pool = find_files(str(tmp_path))
    assert (pool.rows, len(pool.schema)) == (1, 1000)


def test_pictures_that_are_compressed_twice_or_dictionary_encoded_are_seen(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 2000), np.uint8)
    noisy = pa.array([row.tobytes() for row in noise], pa.binary())
    blank = pa.array([bytes(2000) + bytes([i]) for i in range(20)], pa.binary())
    short = pa.array([row.tobytes()[:100] for row in noise], pa.binary())
    table = pa.table({"noisy": noisy, "blank": blank, "short": short, "text": ["é" * 900] * 20})
    found: dict[str, object] = {}
    for name, compression, dictionary in (("a", "snappy", True), ("b", "none", False), ("c", "zstd", False)):
        pq.write_table(table, tmp_path / f"{name}.parquet", compression=compression, use_dictionary=dictionary)
    for file in find_files(str(tmp_path)).table.to_pylist():
        found[file["path"][0]] = file["compressed_twice"], file["codecs"], sorted(file["dictionary"])
    assert found == {
        "a": (["noisy"], ["SNAPPY"], ["blank", "noisy"]),
        "b": ([], [], []),
        "c": (["noisy"], ["ZSTD"], []),
    }


def test_bad_files_are_left_out_if_that_is_asked_for(tmp_path: Path) -> None:
    for name in "abcd":
        write(tmp_path / f"{name}.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    (tmp_path / "c.parquet").unlink()
    (tmp_path / "c.parquet").symlink_to("nowhere")
    assert "b.parquet is no complete Parquet file" in refusal(tmp_path)
    with pytest.raises(ConfigError, match=r"; or leave such files out: pool\.bad_files: skip$"):
        find_files(str(tmp_path))
    pool = find_files(str(tmp_path), bad_files="skip")
    assert pool.table["path"].to_pylist() == ["a.parquet", "d.parquet"]
    assert list(pool.unreadable) == ["b.parquet", "c.parquet"]
    assert "is no complete Parquet file" in pool.unreadable["b.parquet"]
    assert "No such file" in pool.unreadable["c.parquet"]
    for name in "ad":
        (tmp_path / f"{name}.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"a\.parquet is no complete Parquet file"):  # nothing is left
        find_files(str(tmp_path), bad_files="skip")


def test_many_files_on_threads_keep_their_order(tmp_path: Path) -> None:
    for i in range(1500):  # several slices for each thread
        write(tmp_path / f"{i:04}.parquet", 1 + i % 7)
    pool = find_files(str(tmp_path))
    assert pool.table["path"].to_pylist() == [f"{i:04}.parquet" for i in range(1500)]
    assert pool.rows_F.tolist() == [1 + i % 7 for i in range(1500)]
    assert len(pool.table["schema"].combine_chunks().dictionary) == 1


def test_the_filter_prunes_folders_and_row_groups(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        write(tmp_path / f"day={day}" / "x.parquet", 30, row_group_size=10)
    (tmp_path / "day=3" / "x.parquet").write_bytes(b"nobody looks at this")
    pool = find_files(str(tmp_path), keep="day < 3 and id >= 20")
    assert (len(pool), pool.pruned, pool.read) == (2, 1, 2)
    assert pool.matches_G.tolist() == [False, False, True] * 2
    assert pool.schema == pa.schema([("id", pa.int64()), ("day", pa.int64())])
    pool.require_columns({"day": "pool.keep"})
    with pytest.raises(
        ConfigError, match=r"rules out every partition of .* \(3 files\); its folders say: day \(int64\)$"
    ):
        find_files(str(tmp_path), keep="day > 3")
    with pytest.raises(ConfigError, match=r"^pool.filter: column 'size' is not in day=1/x.parquet; it has: id, day$"):
        find_files(str(tmp_path), keep="day < 3 and size > 1", bad_files="skip")


def test_columns_must_be_there_and_of_one_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.5], "id": ["b"]}), tmp_path / "b.parquet")
    pool = find_files(str(tmp_path))
    pool.require_columns({"id": "pool.id"})
    with pytest.raises(ConfigError, match=r"^pool.keep: column 'x' is double in b.parquet but int64 in a.parquet"):
        pool.require_columns({"id": "pool.id", "x": "pool.keep"})
    with pytest.raises(ConfigError, match=r"^pool.input: column 'y' is not in a.parquet; it has: id, x$"):
        pool.require_columns({"y": "pool.input"})


class Elsewhere:
    """Workers on other machines: what goes there and comes back is pickled."""

    def __init__(self) -> None:
        self.tasks = 0

    def map(self, call: Any, common: Any, tasks: Any) -> Iterator[Any]:
        for task in tasks:
            self.tasks += 1
            there_call, there_common, there_task = pickle.loads(pickle.dumps((call, common, task)))
            yield pickle.loads(pickle.dumps(there_call(None, there_common, there_task)))


def many_files(folder: Path) -> Path:
    for i in range(23):
        columns = {"id": range(i, i + 3), "day" if i % 4 else "night": [f"d{i}"] * 3}
        pq.write_table(pa.table(columns), folder / f"{i:02d}.parquet", row_group_size=2)
    return folder


@pytest.mark.parametrize("keep", [None, "id > 12"])
def test_workers_read_the_footers_of_many_files_and_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str | None
) -> None:
    uri = str(many_files(tmp_path))
    (tmp_path / "05.parquet").write_bytes(b"no Parquet")
    here = find_files(uri, keep=keep, bad_files="skip")
    monkeypatch.setattr(find, "OF_WORKER", 7)
    workers = Elsewhere()
    few = find_files(uri, keep=keep, bad_files="skip", workers=lambda: nullcontext(workers))
    assert workers.tasks == 0  # not worth while
    monkeypatch.setattr(find, "FOR_WORKERS", 23)
    there = find_files(uri, keep=keep, bad_files="skip", workers=lambda: nullcontext(workers))
    assert workers.tasks == 4
    for pool in (few, there):
        assert pool.table.equals(here.table)
        assert pool.table["schema"].chunk(0).dictionary.equals(here.table["schema"].chunk(0).dictionary)
        assert pool.unreadable == here.unreadable
        assert list(pool.unreadable) == ["05.parquet"]
    with pytest.raises(ConfigError, match=r"05.parquet is no complete Parquet file.*pool.bad_files: skip"):
        find_files(uri, keep=keep, workers=lambda: nullcontext(workers))
    assert workers.tasks == 5  # the first of them found it
