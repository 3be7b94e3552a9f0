"""Numbers of a Parquet column as they lie in the file: for columns written plain, without nulls or compression.

Score parts are written so (`engine/worker.py`). Reading such a column needs no decoding: the values of a page are its
last bytes. That is several times faster than a Parquet reader where a selection looks at every part twice. Any other
column gives None, and is read by Arrow.

Source: the Parquet format's `parquet.thrift` (PageHeader) and Thrift's compact protocol.
"""

from __future__ import annotations

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
class Chunk:
    """Where the pages of a column lie in a file, one for each row group."""

    start: int  # byte
    size: int  # bytes
    rows: int


def plain_chunks(metadata: pq.FileMetaData, column: str) -> list[Chunk] | None:
    """The chunks of a column; None: it is not plain, or nobody says that it has no nulls."""
    index = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}.get(column)
    if index is None:
        return None
    chunks = []
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(index)
        statistics = chunk.statistics
        no_nulls = statistics is not None and statistics.has_null_count and statistics.null_count == 0
        plain = chunk.compression == "UNCOMPRESSED" and set(chunk.encodings) <= PLAIN and not chunk.has_dictionary_page
        if not plain or not no_nulls or chunk.physical_type not in WIDTHS:
            return None
        chunks.append(Chunk(chunk.data_page_offset, chunk.total_compressed_size, chunk.num_values))
    return chunks


def read_plain(source: pa.NativeFile, chunks: list[Chunk], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """The values of a column.

    Args:
        source: the open file.
        chunks: of the column, from `plain_chunks`.
        dtype: of the values; its width is the column's.

    Returns:
        [N], not to be written to; None: the pages are not what their footer promised.
    """
    pages: list[NDArray[Any]] = []
    for chunk in chunks:
        data = source.read_at(chunk.size, chunk.start)
        at = rows = 0
        while at < len(data):
            header, at = _struct(data, at)
            described = header.get(_DATA_PAGES.get(header.get(1, -1), -1), {})
            size, count = header.get(3, -1), described.get(1, -1)
            if count < 0 or size < count * dtype.itemsize or at + size > len(data):
                return None
            at += size
            rows += count
            pages.append(np.frombuffer(data, dtype, count, at - count * dtype.itemsize))
        if rows != chunk.rows:
            return None
    return pages[0] if len(pages) == 1 else np.concatenate([np.empty(0, dtype), *pages])


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
