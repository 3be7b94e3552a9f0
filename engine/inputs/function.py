"""A function of the user, called for each row."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.config import FunctionDecode
from poolscore.engine.imports import import_name
from poolscore.engine.inputs.base import BadRow, Reasons, RowSpec, decode_each, put_row

if TYPE_CHECKING:
    import torch

# What numpy and torch have in common.
DTYPES = ("float16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64")

ALONE = threading.Lock()  # nobody promised that the user's function may be called by two threads at once


class FunctionDecoder:
    """[N, *shape] exactly as the function gives it, on the host and for the model."""

    parallel = False

    def __init__(self, config: FunctionDecode) -> None:
        assert config.column is not None
        self.columns = (config.column,)
        self._function = import_name(config.function, "pool.decode.function")

    def check(self, schema: pa.Schema) -> None:
        """See Decoder. Any column will do: the function says what it takes."""

    def row_spec(self, table: pa.Table) -> RowSpec | None:
        """See Decoder."""
        for value in table[self.columns[0]].drop_null().to_pylist():
            try:
                row = self._decode_one(value)
            except BadRow:
                continue
            return RowSpec(row.shape, str(row.dtype))
        return None

    def decode(self, table: pa.Table, out: NDArray[Any]) -> Reasons:
        """See Decoder."""
        with ALONE:  # a worker decodes two shards at a time
            return decode_each(table[self.columns[0]].to_pylist(), out, self._decode_into)

    def to_model(self, batch: torch.Tensor) -> torch.Tensor:
        """See Decoder."""
        return batch

    def _decode_into(self, value: Any, slot: NDArray[Any]) -> None:
        put_row(self._decode_one(value), slot)

    def _decode_one(self, value: Any) -> NDArray[Any]:
        try:
            row = np.asarray(self._function(value))
        except Exception as error:
            raise BadRow(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
        if str(row.dtype) not in DTYPES:
            raise BadRow(f"the function gave {row.dtype}, not one of {', '.join(DTYPES)}")
        if row.dtype.kind == "f" and not np.isfinite(row).all():
            raise BadRow("NaN or infinity among the values")
        return row
