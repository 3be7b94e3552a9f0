"""Several decoders together: from rows of the pool to the tensors that the model takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import Decoder, Reasons, RowSpec
from poolscore.engine.inputs.buffers import BufferRing, Buffers, blank_rows
from poolscore.engine.pool.read import Rows
from poolscore.engine.reasons import by_kind

SAMPLE_ROWS = 1000  # read, at most, in search of a row that can be decoded
# Chunks of rows that threads take: enough of them to share unequal rows out, none so small that handing it over counts.
CHUNKS_PER_THREAD, LEAST_CHUNK = 2, 4

Bad = dict[int, tuple[str, str]]  # row of a block → stage and reason


class HostBatch:
    """A block of rows, decoded on the host. Its arrays are lent, and belong to the next batch after `release`."""

    def __init__(self, buffers: Buffers, ring: BufferRing, bad: Bad) -> None:
        self.bad = bad  # rows that cannot be decoded; their slots are zero
        self.nbytes = ring.nbytes
        self._buffers: Buffers | None = buffers
        self._ring = ring

    @property
    def buffers(self) -> Buffers:
        """What the rows were decoded into."""
        assert self._buffers is not None, "this batch was released"
        return self._buffers

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """By input, [batch_size, …]."""
        return self.buffers.arrays

    def release(self) -> None:
        """The buffers may be used again. Again is allowed, and does nothing."""
        buffers, self._buffers = self._buffers, None
        if buffers is not None:
            self._ring.give(buffers)


class BatchDecoder:
    """Decodes blocks of rows into batches of one fixed size: `read` on the host, `to_device` behind it.

    Args:
        threads: that decode. A row's bits do not depend on them.
    """

    def __init__(
        self,
        decoders: Mapping[str, Decoder],
        specs: Mapping[str, RowSpec],
        batch_size: int,
        device: torch.device,
        threads: int = 1,
    ) -> None:
        self._decoders = decoders
        self._specs = specs
        self._batch_size = batch_size
        self.device = device
        on_gpu = device.type == "cuda"
        self._ring = BufferRing({name: specs[name] for name in decoders}, batch_size, pinned=on_gpu)
        self._copies = torch.cuda.Stream(device) if on_gpu else None
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "poolscore-decode") if threads > 1 else None

    def close(self) -> None:
        """End the threads; nothing can be decoded any more."""
        if self._pool is not None:
            self._pool.shutdown()

    def decode(self, rows: Rows) -> tuple[dict[str, Tensor], Bad]:
        """The model's inputs by name, [batch_size, …] each, contiguous, on the device; and the rows that have none."""
        batch = self.read(rows)
        return _contiguous(self.to_device(batch)), batch.bad

    def read(self, rows: Rows, blank: Mapping[int, tuple[str, str]] | None = None) -> HostBatch:
        """Decode up to `batch_size` rows on the host. May run in another thread, ahead of the device.

        The slots of bad rows, and those behind the last row, are zero: no row's place depends on its neighbours.

        Args:
            blank: rows that are bad without being looked at: no decoder sees them.
        """
        blank = blank or {}
        bad: Bad = {int(i): ("read", "id is null") for i in np.flatnonzero(rows.ids.is_null())} | dict(blank)
        buffers = self._ring.take()
        for name, decoder in self._decoders.items():
            out = buffers.arrays[name]
            out[len(rows) :] = 0
            out[list(blank)] = 0
            for start, stop in _between(sorted(blank), len(rows)):
                part = rows.table.slice(start, stop - start)
                for i, reason in self._decode(decoder, part, out[start:stop]).items():
                    bad.setdefault(start + i, ("decode", f"{name}: {reason}" if name else reason))
        return HostBatch(buffers, self._ring, bad)

    def to_device(self, batch: HostBatch) -> dict[str, Tensor]:
        """The model's inputs by name, [batch_size, …] each; pictures lie channels last. Copies, and releases the batch.

        On a GPU the copy runs on a stream of its own, beside what the model is doing.
        """
        inputs: dict[str, Tensor] = {}
        for name, tensor in self._copied(batch.buffers).items():
            inputs |= self._to_model(name, tensor)
        batch.release()
        return inputs

    def blank(self, rows: int) -> dict[str, Tensor]:
        """Inputs of zero-filled rows, on the device: what a model can be traced with where no row is at hand."""
        inputs: dict[str, Tensor] = {}
        for name in self._decoders:
            inputs |= self._to_model(name, blank_rows(self._specs[name], rows).to(self.device))
        return _contiguous(inputs)

    def padded_keys(self, rows: Rows) -> Tensor:
        """int64 [batch_size] on the device: the bits of the rows' keys, zero behind the last row."""
        keys = torch.zeros(self._batch_size, dtype=torch.int64, pin_memory=self._copies is not None)
        keys.numpy()[: len(rows)] = rows.keys.view(np.int64)
        return keys.to(self.device, non_blocking=True)

    def _decode(self, decoder: Decoder, table: pa.Table, out: NDArray[Any]) -> Reasons:
        if self._pool is None or not decoder.parallel:
            return decoder.decode(table, out)
        size = max(LEAST_CHUNK, -(-table.num_rows // (CHUNKS_PER_THREAD * self._threads)))
        starts = range(0, table.num_rows, size)
        parts = self._pool.map(lambda at: decoder.decode(table.slice(at, size), out[at : at + size]), starts)
        return {start + i: reason for start, part in zip(starts, parts, strict=True) for i, reason in part.items()}

    def _copied(self, buffers: Buffers) -> dict[str, Tensor]:
        if self._copies is None:
            return buffers.tensors
        with torch.cuda.stream(self._copies):
            copies = {name: x.to(self.device, non_blocking=True) for name, x in buffers.tensors.items()}
            buffers.copied = self._copies.record_event()
        models = torch.cuda.current_stream(self.device)
        models.wait_event(buffers.copied)
        for x in copies.values():
            x.record_stream(models)  # its memory is the model's stream's to free
        return copies

    def _to_model(self, name: str, batch: Tensor) -> dict[str, Tensor]:
        given = self._decoders[name].to_model(batch)
        named = given if isinstance(given, dict) else {name: given}
        if self._copies is not None:
            return named
        lent = batch.untyped_storage().data_ptr()  # the buffer, which will hold other rows soon
        return {name: x.clone() if x.untyped_storage().data_ptr() == lent else x for name, x in named.items()}


def _contiguous(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What any model can be traced with and run on."""
    return {name: x.contiguous() for name, x in inputs.items()}


def _between(blank: Sequence[int], rows: int) -> Iterator[tuple[int, int]]:
    """The ranges of a block that lie between its blank rows."""
    for before, after in pairwise([-1, *blank, rows]):
        if before + 1 < after:
            yield before + 1, after


def find_row_specs(decoders: Mapping[str, Decoder], blocks: Iterable[Rows]) -> dict[str, RowSpec]:
    """What a decoded row looks like, for each input, read off the first rows that can be decoded.

    Raises:
        ConfigError: none of the first rows can be; names the commonest reason.
    """
    specs: dict[str, RowSpec] = {}
    seen = 0
    reasons: list[str] = []
    for rows in blocks:
        for name, decoder in decoders.items():
            if name not in specs and (spec := decoder.row_spec(rows.table)) is not None:
                specs[name] = spec
        if len(specs) == len(decoders):
            return specs
        for name in decoders.keys() - specs.keys():
            nothing = np.zeros((len(rows), 0, 0, 0))  # a shape that no row has
            reasons += decoders[name].decode(rows.table, nothing).values()
        seen += len(rows)
        if seen >= SAMPLE_ROWS:
            break
    (reason, _), *_ = [*by_kind((reason, 1) for reason in reasons).most_common(1), ("no rows", 0)]
    raise ConfigError(f"pool.input: none of the first {seen} rows can be decoded; the commonest reason: {reason}")
