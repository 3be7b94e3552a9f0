"""Columns of numbers as they lie in a file, against Arrow's reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.errors import StoppedError
from poolscore.engine.selection.parts import Part, Reader
from poolscore.engine.selection.plain import plain_chunks

PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False}


def write(path: Path, rows: int, **options: Any) -> pa.Table:
    random = np.random.default_rng(rows)
    table = pa.table(
        {
            "row_id": np.arange(rows),
            "key": random.integers(0, 2**64, rows, np.uint64),
            "bald": random.random(rows, np.float32),
            "info": pa.array([{"key": i} for i in range(rows)], pa.struct([("key", pa.int64())])),
        }
    )
    pq.write_table(table, path, **{**PLAIN, **options})
    return table


def read(path: Path, column: str) -> np.ndarray[Any, Any]:
    with Reader().opened(Part(0, str(path), 0, 0, 0.0)) as file:
        return np.array(file.numbers(column))


@pytest.mark.parametrize("rows", [1, 1000, 70_000])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data_page_size": 1000, "write_batch_size": 100},
        {"data_page_version": "2.0"},
        {"write_statistics": ["bald"]},
        {"write_page_checksum": True},
        {"write_page_index": True},
        {"row_group_size": 300},
        {"compression": "zstd"},
        {"use_dictionary": True},
        {"use_byte_stream_split": ["bald"]},
    ],
    ids=str,
)
def test_the_numbers_are_those_of_arrow(tmp_path: Path, rows: int, options: dict[str, Any]) -> None:
    table = write(tmp_path / "a.parquet", rows, **options)
    for column in ("row_id", "key", "bald"):
        assert read(tmp_path / "a.parquet", column).tolist() == table[column].to_pylist()
    places = np.flatnonzero(np.random.default_rng(0).random(rows) < 0.01)
    with Reader().opened(Part(0, str(tmp_path / "a.parquet"), 0, 0, 0.0)) as file:
        assert file.keys(places).tolist() == table["key"].to_numpy()[places].tolist()


def test_which_columns_are_plain(tmp_path: Path) -> None:
    def plain(**options: Any) -> bool:
        write(tmp_path / "a.parquet", 1000, **options)
        return plain_chunks(pq.read_metadata(tmp_path / "a.parquet"), ["bald"])["bald"] is not None

    assert plain()
    assert plain(data_page_version="2.0", data_page_size=100)
    assert not plain(compression="zstd")
    assert not plain(use_dictionary=True)
    assert not plain(row_group_size=300)
    assert not plain(write_statistics=False)  # nobody says that there are no nulls


@pytest.mark.parametrize("row_ids", [[7, 8, 9, 10], [7, 8, 10, 11], [7]], ids=str)
def test_row_ids_without_a_gap_are_not_read(tmp_path: Path, row_ids: list[int]) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"row_id": row_ids, "key": pa.array(row_ids, pa.uint64())}), path, **PLAIN)
    places = np.flatnonzero(np.array(row_ids) > 8) if len(row_ids) > 1 else np.zeros(1, np.intp)
    read: list[str] = []
    with Reader().opened(Part(0, str(path), 0, 0, 0.0)) as file:
        numbers = file.numbers
        file.numbers = lambda column: read.append(column) or numbers(column)  # type: ignore[method-assign, func-returns-value]
        assert file.row_ids(places).tolist() == [row_ids[i] for i in places]
    assert read == (["row_id"] if 9 not in row_ids and len(row_ids) > 1 else [])


def test_nulls_and_no_rows_are_left_to_arrow(tmp_path: Path) -> None:
    pq.write_table(pa.table({"bald": pa.array([1.0, None], pa.float32())}), tmp_path / "a.parquet", **PLAIN)
    assert np.isnan(read(tmp_path / "a.parquet", "bald")).tolist() == [False, True]
    write(tmp_path / "b.parquet", 0)
    assert read(tmp_path / "b.parquet", "bald").shape == (0,)


def test_a_file_that_is_not_what_its_footer_says(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, 1000)
    chunk = plain_chunks(pq.read_metadata(path), ["key"])["key"]
    assert chunk is not None
    data = bytearray(path.read_bytes())
    data[chunk.start : chunk.start + 40] = bytes([0x1B] * 40)
    path.write_bytes(data)
    with pytest.raises(StoppedError, match="cannot be read"):
        read(path, "key")
