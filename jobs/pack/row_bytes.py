"""How many bytes of data each row of a table has."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_OFFSET_BYTES = 4


def row_bytes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Bytes of data of each row, [N]; the same however the rows are cut into batches."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        sizes += _cell_bytes(column)
    return sizes


def _cell_bytes(cells: pa.Array) -> NDArray[np.int64] | int:
    if isinstance(cells, pa.ExtensionArray):
        return _cell_bytes(cells.storage)
    kind = cells.type
    if pa.types.is_binary_view(kind) or pa.types.is_string_view(kind):
        cells, kind = cells.cast(pa.large_binary()), pa.large_binary()
    if pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_binary(kind) or _is_large_text(kind):
        lengths: NDArray[np.int64] = pc.binary_length(cells).fill_null(0).to_numpy(zero_copy_only=False)
        return lengths.astype(np.int64) + _OFFSET_BYTES
    if pa.types.is_struct(kind):
        return sum((_cell_bytes(part) for part in cells.flatten()), np.zeros(len(cells), np.int64))
    width = _width(kind)
    if width is not None:
        return width
    return np.fromiter((cells.slice(row, 1).nbytes for row in range(len(cells))), np.int64, len(cells))


def _width(kind: pa.DataType) -> int | None:
    """Bytes of a cell of a type of fixed width; None of others."""
    if pa.types.is_fixed_size_list(kind):
        width = _width(kind.value_type)
        return None if width is None else width * kind.list_size
    try:
        return -(-int(kind.bit_width) // 8)
    except ValueError:
        return 0 if pa.types.is_null(kind) else None


def _is_large_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind))
