"""Numeric lists of one length: fixed-size lists, `arrow.fixed_shape_tensor`, or plain lists."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.config import TensorDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import Reasons, RowSpec, normalised, not_finite

if TYPE_CHECKING:
    import torch


class TensorDecoder:
    """[N, *shape] in the column's own dtype on the host; in `dtype`, normalised, for the model."""

    parallel = False  # Arrow and numpy take whole columns at a time

    def __init__(self, config: TensorDecode) -> None:
        assert config.column is not None
        self.columns = (config.column,)
        self._config = config

    def check(self, schema: pa.Schema) -> None:
        """See Decoder."""
        column = self.columns[0]
        kind = _storage(schema.field(column).type)
        values = kind.value_type if _is_list(kind) else None
        if values is None or not (pa.types.is_integer(values) or pa.types.is_floating(values)):
            raise ConfigError(
                f"pool.input: column '{column}' has type {schema.field(column).type}; decode.kind 'tensor' reads lists "
                "of numbers (fixed-size lists or arrow.fixed_shape_tensor)"
            )
        whole = schema.field(column).type
        if isinstance(whole, pa.FixedShapeTensorType) and whole.permutation not in (
            None,
            sorted(whole.permutation or ()),
        ):
            raise ConfigError(f"pool.input: column '{column}' has permuted axes; store them in their logical order")
        shape = self._config.shape
        if shape and pa.types.is_fixed_size_list(kind) and math.prod(shape) != kind.list_size:
            raise ConfigError(f"pool.decode.shape: {list(shape)} has {math.prod(shape)} values, not {kind.list_size}")

    def row_spec(self, table: pa.Table) -> RowSpec | None:
        """See Decoder."""
        spec = self._row_spec(table)
        for name, values in (("mean", self._config.mean), ("std", self._config.std)):
            if spec and len(values) not in (1, spec.shape[0]):
                raise ConfigError(
                    f"pool.decode.{name}: has {len(values)} values, needs 1 or {spec.shape[0]}, one for each entry of "
                    f"the first axis of {list(spec.shape)}"
                )
        return spec

    def _row_spec(self, table: pa.Table) -> RowSpec | None:
        kind = table.schema.field(self.columns[0]).type
        storage = _storage(kind)
        dtype = str(np.dtype(storage.value_type.to_pandas_dtype()))
        if self._config.shape:
            return RowSpec(self._config.shape, dtype)
        if isinstance(kind, pa.FixedShapeTensorType):
            return RowSpec(tuple(kind.shape), dtype)
        if pa.types.is_fixed_size_list(storage):
            return RowSpec((storage.list_size,), dtype)
        lengths = [n for n in pc.list_value_length(table[self.columns[0]]).to_pylist() if n]
        return RowSpec((lengths[0],), dtype) if lengths else None

    def decode(self, table: pa.Table, out: NDArray[Any]) -> Reasons:
        """See Decoder."""
        column = table[self.columns[0]].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        lengths = pc.list_value_length(column)
        expected = math.prod(out.shape[1:])
        bad: Reasons = {}
        for i, length in enumerate(lengths.to_pylist()):
            if not length:
                bad[i] = "null" if length is None else "an empty list"
            elif length != expected:
                bad[i] = f"{length} values, expected {expected}"
        good = np.array([i for i in range(len(column)) if i not in bad], dtype=np.int64)
        values = pc.list_flatten(column.take(pa.array(good)))
        holes = pc.is_null(values).to_numpy(zero_copy_only=False).reshape(len(good), expected).any(axis=1)
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False).reshape(len(good), *out.shape[1:])
        wrong = not_finite(numbers)
        for i in good[holes]:
            bad[int(i)] = "null among the values"
        for i in good[wrong & ~holes]:
            bad[int(i)] = "NaN or infinity among the values"
        fine = ~(holes | wrong)
        out[good[fine]] = numbers[fine]
        out[list(bad)] = 0
        return bad

    def to_model(self, batch: torch.Tensor) -> torch.Tensor:
        """Cast to the model's dtype and normalise along the first axis of a row."""
        import torch

        x = batch.to(getattr(torch, self._config.dtype))
        return normalised(x, self._config.mean, self._config.std, axis=min(1, x.ndim - 1))


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
