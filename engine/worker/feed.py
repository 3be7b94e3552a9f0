"""Step 3: the batches of a shard, fetched, read and decoded ahead of the device.

    storage ─fetch threads─► bytes ─reading thread─► rows ─decoding thread─► host batches ─► the device's thread

Each arrow is a queue with a budget of bytes. Blocks keep their order and their cut, so bits do not depend on threads,
budgets or the speed of storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from poolscore.engine.inputs.batch import BatchDecoder, HostBatch
from poolscore.engine.pool.plan import Shard
from poolscore.engine.pool.read import Rows, ShardReader
from poolscore.engine.worker.ahead import Ahead
from poolscore.engine.worker.stages import Stages

T = TypeVar("T")
Batch = tuple[Rows, HostBatch]
Blank = Mapping[int, tuple[str, str]]  # row_id → stage and reason: rows that are not to be decoded
NO_ROWS: Blank = {}


class Feed:
    """The batches of a shard, in order; fetched from now on. Close it, also after an error.

    Args:
        rows: of a block.
        budget: bytes: half of it for what is fetched, a quarter each for rows and for decoded batches.
        threaded: read and decode on threads, ahead; else by whoever asks for the next batch. Storage is asked ahead
            all the same.
        blank: rows whose slots stay zero, and which count as bad.
    """

    def __init__(
        self,
        reader: ShardReader,
        decoder: BatchDecoder,
        shard: Shard,
        rows: int,
        budget: int,
        threaded: bool,
        blank: Blank,
    ) -> None:
        self.shard = shard
        self._blank = blank
        self.stages = Stages()
        self._source = reader.ahead(shard, budget // 2)
        self._threads: list[Ahead[Rows] | Ahead[Batch]] = []
        self._blocks = reader.blocks(shard, rows, self._source)
        blocks = self.stages.each("read", self._blocks)
        if threaded:
            ahead = Ahead(blocks, budget // 4, lambda rows: rows.table.nbytes, "read")
            self._threads.append(ahead)
            batches = Ahead(self._decoded(decoder, ahead), budget // 4, _bytes, "decode")
            self._threads.append(batches)
            self._batches: Iterator[Batch] = batches
        else:
            self._batches = self._decoded(decoder, blocks)

    def __iter__(self) -> Iterator[Batch]:
        return self._batches

    @property
    def peak(self) -> int:
        """Bytes that the queues held, each at its fullest."""
        return self._source.peak + sum(thread.peak for thread in self._threads)

    @property
    def filtered(self) -> int:
        """Rows read so far that filter and sample leave out."""
        return self._blocks.filtered

    def close(self) -> None:
        """End the threads and let go of what they made. Another thread that waits for a batch is told by a
        StoppedError."""
        self._source.close()
        for thread in self._threads:
            thread.close()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decoded(self, decoder: BatchDecoder, blocks: Iterator[Rows]) -> Iterator[Batch]:
        for rows in blocks:
            with self.stages.time("decode"):
                batch = decoder.read(rows, self._blank_places(rows))
            yield rows, batch

    def _blank_places(self, rows: Rows) -> Blank:
        """The blank rows of a block, by their places in it."""
        if not self._blank:
            return {}
        return {i: self._blank[row_id] for i, row_id in enumerate(rows.row_ids.tolist()) if row_id in self._blank}


def _bytes(batch: Batch) -> int:
    """Of a batch and of the rows that it was decoded from, which are kept beside it."""
    rows, decoded = batch
    return int(rows.table.nbytes) + decoded.nbytes
