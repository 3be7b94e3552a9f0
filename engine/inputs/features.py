"""Numeric columns side by side, such as the features of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.config import FeaturesDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import Reasons, RowSpec, normalised

if TYPE_CHECKING:
    import torch


class FeaturesDecoder:
    """[N, columns], int64 on the host if it holds every column, else float64; in `dtype` for the model."""

    parallel = False  # Arrow and numpy take whole columns at a time

    def __init__(self, config: FeaturesDecode) -> None:
        self.columns = config.columns
        self._config = config

    def check(self, schema: pa.Schema) -> None:
        """See Decoder."""
        for column in self.columns:
            kind = schema.field(column).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
                raise ConfigError(
                    f"pool.input: column '{column}' has type {kind}; decode.kind 'features' reads numbers"
                )
        for name, values in (("mean", self._config.mean), ("std", self._config.std)):
            if len(values) not in (1, len(self.columns)):
                raise ConfigError(
                    f"pool.decode.{name}: has {len(values)} values, needs 1 or {len(self.columns)}, one a column"
                )

    def row_spec(self, table: pa.Table) -> RowSpec | None:
        """See Decoder."""
        kinds = [table.schema.field(column).type for column in self.columns]
        floating = any(pa.types.is_floating(kind) or pa.types.is_uint64(kind) for kind in kinds)
        return RowSpec((len(self.columns),), "float64" if floating else "int64")

    def decode(self, table: pa.Table, out: NDArray[Any]) -> Reasons:
        """See Decoder."""
        rows = table.num_rows
        null = np.zeros((rows, len(self.columns)), dtype=bool)
        for position, name in enumerate(self.columns):
            column = table[name]
            if column.null_count:
                null[:, position] = pc.is_null(column).to_numpy(zero_copy_only=False)
                kind = pa.float64() if out.dtype.kind == "f" else pa.int64()
                column = pc.cast(column, kind, safe=False).fill_null(0)
            out[:rows, position] = column.to_numpy()  # beyond 2^53 an integer is rounded to a float64
        wrong = null | ~np.isfinite(out[:rows]) if out.dtype.kind == "f" else null
        bad: Reasons = {}
        for i in np.flatnonzero(wrong.any(axis=1)).tolist():
            first = int(wrong[i].argmax())
            bad[i] = f"column '{self.columns[first]}' is {'null' if null[i, first] else 'NaN or infinite'}"
        out[list(bad)] = 0
        return bad

    def to_model(self, batch: torch.Tensor) -> torch.Tensor:
        """Normalise each column, then cast to the model's dtype."""
        import torch

        return normalised(batch, self._config.mean, self._config.std, axis=1).to(getattr(torch, self._config.dtype))
