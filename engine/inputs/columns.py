"""Values of text and binary columns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, repeat

import numpy as np
import pyarrow as pa


def value_views(column: pa.ChunkedArray) -> Iterator[memoryview | None]:
    """The bytes of each value of a binary or text column, where they lie: nothing is copied."""
    if pa.types.is_binary_view(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.large_binary())
    for chunk in column.chunks:
        yield from _views(chunk)


def _views(values: pa.Array) -> Iterator[memoryview | None]:
    if not len(values):  # such an array may lack its buffers
        return
    large = pa.types.is_large_binary(values.type) or pa.types.is_large_string(values.type)
    _, offsets, content = values.buffers()
    ends = np.frombuffer(offsets, np.int64 if large else np.int32)[values.offset : values.offset + len(values) + 1]
    data = memoryview(content or b"").cast("B")
    is_there = values.is_valid().to_pylist() if values.null_count else repeat(True, len(values))
    for (start, end), there in zip(pairwise(ends.tolist()), is_there, strict=True):
        yield data[start:end] if there else None
