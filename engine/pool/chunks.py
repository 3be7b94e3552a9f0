"""Where the bytes of a row group's columns lie, cut into requests."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import pyarrow.parquet as pq

REQUEST = 8 << 20  # bytes, at most, of one read
GAP = 1 << 20  # bytes between two column chunks that are read along rather than asked past


class Request:
    """Consecutive bytes of a file."""

    def __init__(self, offset: int, length: int, needed: int, place: float = 0.0) -> None:
        self.offset, self.length = offset, length
        self.place = place  # share of its columns in the row group that lies before it, about
        self.unread = needed  # of the columns in use
        self.done = False  # read, or not needed any more
        self.data: Future[memoryview] | None = None  # None: not sent


def requests_of(footer: pq.FileMetaData, row_group: int, columns: Sequence[str]) -> list[Request]:
    """The columns' chunks of a row group, in the order in which they are read side by side."""
    if row_group >= footer.num_row_groups:
        return []  # the file has changed, as its reader will find
    chunks: list[tuple[int, int]] = []  # start, end
    for chunk in _chunks(footer.row_group(row_group), columns):
        first = chunk.dictionary_page_offset
        start = chunk.data_page_offset if first is None else min(first, chunk.data_page_offset)
        chunks.append((start, start + chunk.total_compressed_size))
    requests: list[Request] = []
    for extent in _extents(sorted(chunks)):
        start, end = extent[0][0], extent[-1][1]
        for offset in range(start, end, REQUEST):
            stop = min(offset + REQUEST, end)
            needed = sum(max(0, min(stop, last) - max(offset, first)) for first, last in extent)
            requests.append(Request(offset, stop - offset, needed, (offset - start) / (end - start)))
    return sorted(requests, key=lambda request: request.place)


def bytes_of_row(footer: pq.FileMetaData, row_group: int, columns: Sequence[str]) -> int:
    """Uncompressed bytes of a row, on average over the row group."""
    if row_group >= footer.num_row_groups:
        return 0
    group = footer.row_group(row_group)
    total: int = sum(chunk.total_uncompressed_size for chunk in _chunks(group, columns))
    return total // max(1, int(group.num_rows))


def _chunks(group: pq.RowGroupMetaData, columns: Sequence[str]) -> list[pq.ColumnChunkMetaData]:
    """Of the columns named, and of what lies inside them."""
    names = frozenset(columns)

    def wanted(path: str) -> bool:  # 'image.bytes' lies in the column 'image'; a column may have a dot in its own name
        return any(path[:end] in names for end in (*(i for i, c in enumerate(path) if c == "."), len(path)))

    chunks = (group.column(i) for i in range(group.num_columns))
    return [chunk for chunk in chunks if wanted(chunk.path_in_schema)]


def _extents(chunks: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Small chunks that lie close together share requests; a long one is read beside the others."""
    extents: list[list[tuple[int, int]]] = []
    for start, end in chunks:
        together = extents and start - extents[-1][-1][1] <= GAP and end - extents[-1][0][0] <= REQUEST
        if together:
            extents[-1].append((start, end))
        elif end > start:
            extents.append([(start, end)])
    return extents
