"""Numbers of a Parquet column as they lie in the file: for columns written plain, without nulls or compression.

Score parts are written so (`engine/worker/worker.py`). Reading such a column needs no decoding: the values of a page
are its last bytes. That is several times faster than a Parquet reader where a selection looks at every part twice. Any
other column gives None, and is read by Arrow.

Source: the Parquet format's `parquet.thrift` (PageHeader) and Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

PLAIN = {"PLAIN", "RLE"}  # RLE is of the levels that say where nulls are
WIDTHS = {"INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}
_DATA_PAGES = {0: 5, 3: 8}  # type of page → field of PageHeader that describes it
_BOOLEANS, _NUMBERS, _BINARY, _STRUCT = (1, 2), (4, 5, 6, 8), 8, 12  # types of fields; a binary begins with its length
HEADER = 1024  # bytes; that of a page of numbers is shorter


Pages = tuple[tuple[int, int], ...]  # of each page: where its values begin in the chunk, and how many they are


@dataclass(frozen=True)
class Chunk:
    """Where the pages of a column lie in a file of one row group."""

    start: int  # byte
    size: int  # bytes
    rows: int
    width: int  # of a value, bytes
    first: int | None = None  # of integers: the least, where the largest is rows - 1 more

    def read(self, source: pa.NativeFile, data: NDArray[np.uint8]) -> None:
        """Read all pages.

        Args:
            source: the open file.
            data: where the bytes go [size].

        Raises:
            OSError: the file is shorter than it was.
        """
        source.seek(self.start)
        if (read := source.readinto(data)) < self.size:
            raise OSError(f"it ends {self.size - read} bytes too early")

    def pages(self, data: NDArray[np.uint8]) -> Pages | None:
        """Where the values lie in these bytes; None: the pages are not what the footer promised."""
        try:
            pages = tuple(_pages(data, self.width))
        except IndexError:  # no page header, or one that goes on behind the end
            return None
        return pages if sum(count for _, count in pages) == self.rows else None


def plain_chunks(metadata: pq.FileMetaData, columns: Iterable[str]) -> dict[str, Chunk | None]:
    """Where columns lie; None: one is not plain, nobody says that it has no nulls, or there is not just one row group.

    Args:
        metadata: the footer.
        columns: that are not nested.
    """
    chunks: dict[str, Chunk | None] = dict.fromkeys(columns)
    if metadata.num_row_groups == 1 and metadata.num_rows:
        group = metadata.row_group(0)
        for found in map(group.column, range(group.num_columns)):
            if (name := found.path_in_schema) in chunks:
                chunks[name] = _plain_chunk(found)
    return chunks


def _plain_chunk(found: pq.ColumnChunkMetaData) -> Chunk | None:
    width = WIDTHS.get(found.physical_type)
    if width is None or found.compression != "UNCOMPRESSED" or not PLAIN.issuperset(found.encodings):
        return None
    statistics = found.statistics
    if statistics is None or statistics.null_count != 0:
        return None
    rows, first = found.num_values, None
    if found.physical_type == "INT64" and statistics.has_min_max and statistics.max - statistics.min == rows - 1:
        first = statistics.min
    return Chunk(found.data_page_offset, found.total_compressed_size, rows, width, first)


def _pages(data: NDArray[np.uint8], width: int) -> Iterator[tuple[int, int]]:
    """Where the values of each page begin, and how many they are; ends early where a page is of an unknown kind."""
    at = 0
    while at < len(data):
        header, length = _struct(data[at : at + HEADER].tobytes(), 0)
        described = header.get(_DATA_PAGES.get(header.get(1, -1), -1), {})
        size, count = header.get(3, -1), described.get(1, -1)
        at += length + size
        if count < 0 or size < count * width or at > len(data):
            return
        yield at - count * width, count


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol: its integers and structs by field number, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        number += head >> 4  # numbers that do not rise by 1 to 15 are written otherwise: there are none in page headers
        kind = head & 15
        if kind in _NUMBERS:
            value = shift = 0
            while (byte := data[at]) > 127:
                value |= (byte & 127) << shift
                shift += 7
                at += 1
            value |= byte << shift
            at += 1
            if kind == _BINARY:
                at += value
            else:
                fields[number] = (value >> 1) ^ -(value & 1)
        elif kind == _STRUCT:
            fields[number], at = _struct(data, at)
        elif kind not in _BOOLEANS:
            raise IndexError  # page headers hold nothing else
    return fields, at + 1
