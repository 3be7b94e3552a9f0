"""Several decoders together: from rows of the pool to the tensors that the model takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import Decoder, RowSpec
from poolscore.engine.pool.read import Rows

SAMPLE_ROWS = 1000  # read, at most, in search of a row that can be decoded

Bad = dict[int, tuple[str, str]]  # row of a block → stage and reason


class HostBatch:
    """A block of rows, decoded on the host."""

    def __init__(self, arrays: dict[str, NDArray[Any]], bad: Bad) -> None:
        self.arrays = arrays  # by input, [batch_size, …]
        self.bad = bad  # rows that cannot be decoded; their slots are zero

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def release(self) -> None:
        """The device has its copy."""


class BatchDecoder:
    """Decodes blocks of rows into batches of one fixed size."""

    def __init__(
        self, decoders: Mapping[str, Decoder], specs: Mapping[str, RowSpec], batch_size: int, device: torch.device
    ) -> None:
        self._decoders = decoders
        self._specs = specs
        self._batch_size = batch_size
        self.device = device

    def decode(self, rows: Rows) -> tuple[dict[str, Tensor], Bad]:
        """The model's inputs by name, [batch_size, …] each, on the device; and the rows that have none.

        Their slots, and those behind the last row, are zero-filled: no row's place depends on its neighbours.
        """
        batch = self.read(rows)
        return self.to_device(batch), batch.bad

    def read(self, rows: Rows) -> HostBatch:
        """Decode on the host."""
        bad: Bad = {int(i): ("read", "id is null") for i in np.flatnonzero(rows.ids.is_null())}
        arrays: dict[str, NDArray[Any]] = {}
        for name, decoder in self._decoders.items():
            arrays[name] = self._buffer(name, self._batch_size)
            for i, reason in decoder.decode(rows.table, arrays[name]).items():
                bad.setdefault(i, ("decode", f"{name}: {reason}" if name else reason))
        return HostBatch(arrays, bad)

    def to_device(self, batch: HostBatch) -> dict[str, Tensor]:
        """The model's inputs, on the device."""
        return {name: self._to_model(name, array) for name, array in batch.arrays.items()}

    def blank(self, rows: int) -> dict[str, Tensor]:
        """Inputs of zero-filled rows, on the device: what a model can be traced with where no row is at hand."""
        return {name: self._to_model(name, self._buffer(name, rows)) for name in self._decoders}

    def padded_keys(self, rows: Rows) -> Tensor:
        """int64 [batch_size] on the device: the bits of the rows' keys, zero behind the last row."""
        keys = np.zeros(self._batch_size, dtype=np.int64)
        keys[: len(rows)] = rows.keys.view(np.int64)
        return torch.from_numpy(keys).to(self.device)

    def _buffer(self, name: str, rows: int) -> NDArray[Any]:
        return np.zeros((rows, *self._specs[name].shape), dtype=self._specs[name].dtype)

    def _to_model(self, name: str, buffer: NDArray[Any]) -> Tensor:
        return self._decoders[name].to_model(torch.from_numpy(buffer).to(self.device))


def find_row_specs(decoders: Mapping[str, Decoder], blocks: Iterable[Rows]) -> dict[str, RowSpec]:
    """What a decoded row looks like, for each input, read off the first rows that can be decoded.

    Raises:
        ConfigError: none of the first rows can be; names the commonest reason.
    """
    specs: dict[str, RowSpec] = {}
    seen = 0
    reasons: Counter[str] = Counter()
    for rows in blocks:
        for name, decoder in decoders.items():
            if name not in specs and (spec := decoder.row_spec(rows.table)) is not None:
                specs[name] = spec
        if len(specs) == len(decoders):
            return specs
        for name in decoders.keys() - specs.keys():
            nothing = np.zeros((len(rows), 0))
            reasons.update(decoders[name].decode(rows.table, nothing).values())
        seen += len(rows)
        if seen >= SAMPLE_ROWS:
            break
    reason = reasons.most_common(1)[0][0] if reasons else "no rows"
    raise ConfigError(f"pool.input: none of the first {seen} rows can be decoded; the commonest reason: {reason}")
