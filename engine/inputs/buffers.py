"""Host memory that batches are decoded into, used again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolscore.engine.inputs.base import RowSpec


@dataclass
class Buffers:
    """One array [batch_size, …] for each input; `tensors` are the same memory."""

    arrays: dict[str, NDArray[Any]]
    tensors: dict[str, Tensor]
    copied: torch.cuda.Event | None = None  # the copy to the device; until then nobody may write into them


class BufferRing:
    """Buffers for batches of one shape. A set is made whenever none is free, so there are as many as the caller holds
    batches at once: those that the queues' budgets let wait, and one or two for each shard."""

    def __init__(self, specs: Mapping[str, RowSpec], batch_size: int, pinned: bool) -> None:
        self._specs = specs
        self._batch_size = batch_size
        self._pinned = pinned
        self._free: deque[Buffers] = deque()  # its ends are safe to use from several threads

    @property
    def nbytes(self) -> int:
        """Bytes of one set."""
        return sum(self._row_bytes(spec) for spec in self._specs.values()) * self._batch_size

    def take(self) -> Buffers:
        """A set that nobody uses; what it holds is left from before."""
        try:
            buffers = self._free.popleft()
        except IndexError:
            return self._make()
        if buffers.copied is not None:
            buffers.copied.synchronize()
        return buffers

    def give(self, buffers: Buffers) -> None:
        """Take a set back."""
        self._free.append(buffers)

    def _make(self) -> Buffers:
        tensors = {name: blank_rows(spec, self._batch_size) for name, spec in self._specs.items()}
        if self._pinned:  # only from such memory is a copy to the GPU asynchronous
            tensors = {name: x.pin_memory() for name, x in tensors.items()}
        return Buffers({name: x.numpy() for name, x in tensors.items()}, tensors)

    @staticmethod
    def _row_bytes(spec: RowSpec) -> int:
        return int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize


def blank_rows(spec: RowSpec, rows: int) -> Tensor:
    """Zeros, [rows, *shape], in ordinary memory."""
    return torch.from_numpy(np.zeros((rows, *spec.shape), dtype=spec.dtype))
