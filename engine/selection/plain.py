"""Numbers of a Parquet column as they lie in the file: for columns written plain, without nulls or compression.

Score parts are written so (`engine/worker.py`). Reading such a column needs no decoding: the values of a page are its
last bytes. That is several times faster than a Parquet reader where a selection looks at every part twice. Any other
column gives None, and is read by Arrow.

Source: the Parquet format's `parquet.thrift` (PageHeader) and Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

PLAIN = {"PLAIN", "RLE"}  # RLE is of the levels that say where nulls are
WIDTHS = {"INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}
_DATA_PAGES = {0: 5, 3: 8}  # type of page → field of PageHeader that describes it
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
_INTEGERS = (4, 5, 6)


@dataclass(frozen=True)
class Pages:
    """Where the values of a column lie in a file."""

    start: int  # of the bytes that hold them all
    size: int
    width: int  # of a value, bytes
    values: tuple[tuple[int, int], ...]  # of each page: where its values begin in these bytes, and how many they are

    @property
    def rows(self) -> int:
        """Values in all pages."""
        return sum(count for _, count in self.values)

    def read(self, source: pa.NativeFile, data: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Read the values of all rows.

        Args:
            source: the open file.
            data: scratch [size].
            out: where the values go [rows].

        Raises:
            OSError: the file is shorter than it was.
        """
        source.seek(self.start)
        if (read := source.readinto(data)) < self.size:
            raise OSError(f"it ends {self.size - read} bytes too early")
        np.concatenate([np.frombuffer(data, out.dtype, count, at) for at, count in self.values], out=out)


def plain_pages(source: pa.NativeFile, metadata: pq.FileMetaData, column: str) -> Pages | None:
    """Where a column of one row group lies; None: it is not plain, or nobody says that it has no nulls.

    Args:
        source: the open file.
        metadata: its footer.
        column: a column that is not nested.
    """
    if metadata.num_row_groups != 1 or not metadata.num_rows:
        return None
    group = metadata.row_group(0)
    indices = [i for i, name in enumerate(metadata.schema.names) if name == column]
    chunk = next((c for c in map(group.column, indices) if c.path_in_schema == column), None)
    if chunk is None or chunk.physical_type not in WIDTHS or chunk.compression != "UNCOMPRESSED":
        return None
    statistics = chunk.statistics
    if not set(chunk.encodings) <= PLAIN or statistics is None or statistics.null_count != 0:
        return None
    data = source.read_at(chunk.total_compressed_size, chunk.data_page_offset)
    width = WIDTHS[chunk.physical_type]
    pages = tuple(_pages(data, width))
    if sum(count for _, count in pages) != chunk.num_values:
        return None
    return Pages(chunk.data_page_offset, len(data), width, pages)


def _pages(data: bytes, width: int) -> Iterator[tuple[int, int]]:
    """Where the values of each page begin, and how many they are; ends early where a page is of an unknown kind."""
    at = 0
    while at < len(data):
        header, at = _struct(data, at)
        described = header.get(_DATA_PAGES.get(header.get(1, -1), -1), {})
        size, count = header.get(3, -1), described.get(1, -1)
        at += size
        if count < 0 or size < count * width or at > len(data):
            return
        yield at - count * width, count


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol: its integers and structs by field number, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        kind = head & 15
        if kind in _INTEGERS:
            fields[number], at = _integer(data, at)
        elif kind == _STRUCT:
            fields[number], at = _struct(data, at)
        elif kind == _BINARY:
            length, at = _varint(data, at)
            at += length
        elif kind not in (_TRUE, _FALSE):
            at += {_BYTE: 1, _DOUBLE: 8}.get(kind, len(data))  # a page header has no lists: such a one is not read
    return fields, at + 1


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
