"""Arrays [N, ...] → `id` (int64 0..n-1), `image` (PNG) or `tensor` (fixed shape), [`label`].

IDX and NumPy files both become `ArrayRows`, which are read in blocks of rows; what follows is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack.contract import (
    MAX_ROW_BYTES,
    PIECE_BYTES,
    PIECE_ROWS,
    Names,
    Packed,
    Source,
    file_fingerprint,
)
from poolscore.jobs.pack.picture import png_bytes

Array = NDArray[Any]


@dataclass(frozen=True)
class ArrayRows:
    """An array on disk, whose size was checked against its header.

    Attributes:
        file: where it lies.
        where: file (and key), named in errors.
        shape: (N, ...).
        dtype: any plain dtype and byte order.
        blocks: `blocks(n)` reads the rows in order, at most n at a time, each time from the start.
    """

    file: Path
    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[int], Iterator[Array]]

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize


def read_blocks(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], rows: int, where: str
) -> Iterator[Array]:
    """Reads C-ordered rows from a stream, `rows` at a time.

    Raises:
        ConfigError: the stream ends early.
    """
    row_bytes = prod(shape[1:]) * dtype.itemsize
    for start in range(0, shape[0], rows):
        count = min(rows, shape[0] - start)
        data = stream.read(count * row_bytes)
        if len(data) != count * row_bytes:
            raise ConfigError(f"{where} ends within row {start + len(data) // row_bytes}: fetch or write it again")
        yield np.frombuffer(data, dtype).reshape(count, *shape[1:])


def array_source(rows: ArrayRows, labels: ArrayRows | None, names: Names, *, as_tensor: bool) -> Source:
    """Pairs images or tensors with their labels.

    uint8 [N, H, W] and [N, H, W, C] with C in 1, 3, 4 become PNG images unless `as_tensor`; every other numeric array
    becomes a tensor column of its dtype in native byte order (bool as uint8; [N] as shape [1]). Integer labels become
    int64, floating ones float64.

    Raises:
        ConfigError: no rows, empty or huge rows, a dtype that is not numeric, labels of another length or shape.
    """
    _check_rows(rows)
    if labels is not None:
        _check_labels(labels, rows)
    column = pa.field(names.tensor, _tensor_type(rows))
    if _is_image(rows) and not as_tensor:
        column = pa.field(names.image, pa.binary())
    fields = [pa.field(names.id, pa.int64()), column]
    if labels is not None:
        fields.append(pa.field(names.label, pa.float64() if labels.dtype.kind == "f" else pa.int64()))
    schema = pa.schema(fields)
    files = [rows.file] if labels is None else [rows.file, labels.file]
    work = partial(_rows, schema, "" if labels is None else labels.where)
    return Source(schema, rows.shape[0], file_fingerprint(*files), partial(_pieces, rows, labels), work)


def _check_rows(rows: ArrayRows) -> None:
    if not rows.shape or rows.shape[0] == 0:
        raise ConfigError(f"{rows.where} holds no rows to pack: its shape is {list(rows.shape)}, [N, ...] is expected")
    if rows.dtype.kind not in "biuf" or rows.dtype.itemsize > 8:
        raise ConfigError(f"{rows.where} has dtype {rows.dtype}: integers, booleans or floats up to 64 bit are packed")
    if not 0 < rows.row_bytes <= MAX_ROW_BYTES:
        raise ConfigError(
            f"{rows.where} has rows of {rows.row_bytes} bytes (shape {list(rows.shape)}): "
            f"a row must hold 1 to {MAX_ROW_BYTES} bytes"
        )


def _check_labels(labels: ArrayRows, rows: ArrayRows) -> None:
    if not labels.shape or prod(labels.shape[1:]) != 1 or labels.dtype.kind not in "biuf" or labels.dtype.itemsize > 8:
        raise ConfigError(
            f"labels {labels.where} have shape {list(labels.shape)}, dtype {labels.dtype}: one number a row is expected"
        )
    if labels.shape[0] != rows.shape[0]:
        raise ConfigError(
            f"labels {labels.where} hold {labels.shape[0]} rows, {rows.where} holds {rows.shape[0]}: "
            "give the labels of this file"
        )


def _is_image(rows: ArrayRows) -> bool:
    shape = rows.shape
    return rows.dtype == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4)))


def _tensor_type(rows: ArrayRows) -> Any:
    dtype = np.dtype(np.uint8) if rows.dtype.kind == "b" else rows.dtype.newbyteorder("=")
    return pa.fixed_shape_tensor(pa.from_numpy_dtype(dtype), rows.shape[1:] or (1,))


_Block = tuple[int, Array, Array | None]  # its first row, rows, labels


def _pieces(rows: ArrayRows, labels: ArrayRows | None, start: int) -> Iterator[list[_Block]]:
    step = max(1, min(PIECE_ROWS, PIECE_BYTES // rows.row_bytes))
    label_blocks = repeat(None) if labels is None else labels.blocks(step)
    for number, (block, label_block) in enumerate(zip(rows.blocks(step), label_blocks, strict=False)):
        if number >= start:
            yield [(number * step, block, label_block)]


def _rows(schema: pa.Schema, labels_where: str, piece: Sequence[_Block]) -> Packed:
    first, block, labels = piece[0]
    data = schema.field(1).type
    ids = pa.array(np.arange(first, first + len(block), dtype=np.int64))
    columns = [ids, _pngs(block) if data == pa.binary() else _tensors(block, data)]
    if labels is not None:
        columns.append(_labels(labels, schema.field(2).type, labels_where))
    return Packed(pa.RecordBatch.from_arrays(columns, schema=schema), 1)


def _pngs(block_NHWC: Array) -> pa.Array[Any]:
    return pa.array([png_bytes(pixels) for pixels in block_NHWC], type=pa.binary())


def _tensors(block: Array, kind: Any) -> pa.Array[Any]:
    values = pa.array(np.ascontiguousarray(block, dtype=kind.value_type.to_pandas_dtype()).reshape(-1))
    tensors: pa.Array[Any] = pa.ExtensionArray.from_storage(
        kind, pa.FixedSizeListArray.from_arrays(values, prod(kind.shape))
    )
    return tensors


def _labels(block: Array, kind: Any, where: str) -> pa.Array[Any]:
    if block.dtype.kind == "u" and block.max() > np.iinfo(np.int64).max:
        raise ConfigError(f"labels {where} hold {block.max()}, which is beyond int64: give other labels")
    values: Array = block.reshape(-1).astype(kind.to_pandas_dtype())
    return pa.array(values)
