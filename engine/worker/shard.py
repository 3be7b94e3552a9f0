"""The heart: score one shard. Read → decode → infer → reduce; knows neither Ray nor the command line.

On a GPU the work of a block is queued without waiting for the block before it; scores come back on their own.

Legend: N rows of a block, T passes, C classes.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolscore.engine.config import Config
from poolscore.engine.errors import StoppedError
from poolscore.engine.inputs.batch import Bad, BatchDecoder
from poolscore.engine.machine.cores import read_ahead
from poolscore.engine.model.passes import McDropout
from poolscore.engine.pool.plan import Shard
from poolscore.engine.pool.read import Rows, ShardReader
from poolscore.engine.scores import SCORES, scores_of
from poolscore.engine.worker.device_clock import DeviceClock, Mark
from poolscore.engine.worker.feed import NO_ROWS, Blank, Feed
from poolscore.engine.worker.stages import Stages
from poolscore.kernels.random_score import uniform_from_keys
from poolscore.kernels.row_stats import RowStats, row_stats

ID = "\0id"  # the id beside the columns to keep, whatever their names
AT_ONCE = 2  # shards of a worker: the second is read ahead while the first is in the model
QUEUED = 3  # blocks that the device is given at most before the first of them is waited for


@dataclass(frozen=True)
class ScoredShard:
    """What became of the rows of a shard; every row is in exactly one of the two tables."""

    scores: pa.Table
    errors: pa.Table


@dataclass(frozen=True)
class Scorer:
    """What scoring a shard needs; made once per worker (`worker.py`)."""

    config: Config
    reader: ShardReader
    decoder: BatchDecoder
    model: McDropout
    stopped: threading.Event = field(default_factory=threading.Event)  # set: the shard at hand is given up
    feeds: weakref.WeakSet[Feed] = field(default_factory=weakref.WeakSet)  # in use
    lock: threading.Lock = field(default_factory=threading.Lock)  # of the feeds

    def stop(self) -> None:
        """Give up the shards at hand, also while their storage is silent. Called by another thread."""
        self.stopped.set()
        with self.lock:
            feeds = list(self.feeds)
        for feed in feeds:
            feed.close()

    def feed(
        self, shard: Shard, threaded: bool = False, blank: Blank = NO_ROWS, reader: ShardReader | None = None
    ) -> Feed:
        """Begin to read a shard, or what another reader gives of it; its blank rows are not decoded."""
        run = self.config.run
        budget = read_ahead(run, self.decoder.device.type == "cuda") // AT_ONCE
        feed = Feed(reader or self.reader, self.decoder, shard, run.batch_size, budget, threaded, blank)
        with self.lock:
            self.feeds.add(feed)
        if self.stopped.is_set():
            feed.close()
        return feed

    def score_shard(self, shard: Shard) -> ScoredShard:
        """Score the rows of a shard in the order of the pool. Every block goes through the model in one fixed shape.

        Raises:
            UnreadableShard: a file of the pool cannot be read.
        """
        with self.feed(shard) as feed:
            return self.collect(self.infer(feed))

    def infer(self, feed: Feed) -> Inferred:
        """Run the batches through the model. On a GPU the last of them may still be on their way when this returns."""
        inferred = Inferred(DeviceClock(self.decoder.device), feed.stages, feed.shard.rows)
        keep = list(self.config.pool.keep)
        for rows, batch in feed:
            if self.stopped.is_set():
                raise StoppedError("the worker was told to stop")
            start = inferred.clock.mark()
            inputs = self.decoder.to_device(batch)
            copied = inferred.clock.mark()
            logits_NTC = self.model.logits(inputs, self.decoder.padded_keys(rows))[: len(rows)]
            modelled = inferred.clock.mark()
            kept = rows.table.select(keep).append_column(ID, rows.ids)
            inferred.add(rows, kept, batch.bad, self.statistics(logits_NTC), (start, copied, modelled))
        if self.stopped.is_set():  # which ends the feed as well: this may be a part of the shard
            raise StoppedError("the worker was told to stop")
        return inferred

    def collect(self, inferred: Inferred) -> ScoredShard:
        """Wait for what `infer` began, and put it into tables."""
        inferred.finish()
        with inferred.stages.time("write"):
            identity, kept = _identity(inferred)
            table = pa.table({**identity, **self._score_columns(inferred), **kept})
            errors = pa.table(identity).take(pa.array(inferred.bad, pa.int64()))
            errors = errors.append_column("stage", pa.array([stage for stage, _ in inferred.bad.values()], pa.string()))
            errors = errors.append_column("error", pa.array([why for _, why in inferred.bad.values()], pa.string()))
            if inferred.bad:
                good = np.ones(inferred.rows, dtype=bool)
                good[list(inferred.bad)] = False
                table = table.filter(pa.array(good))
            return ScoredShard(table, errors)

    def statistics(self, logits_NTC: Tensor, scores: tuple[str, ...] | None = None) -> RowStats:
        """The scores of the task (or the ones named) from the logits."""
        model = self.config.model
        if scores is None:
            scores = scores_of(model.task, self.config.passes.count)
        return row_stats(
            logits_NTC,
            model.task.value,
            [name for name in scores if SCORES[name].from_logits],
            reduce=self.config.score.reduce,
            accurate_bald=self.config.score.accurate_bald,
            predicts_noise=model.predicts_noise,
        )

    def _score_columns(self, inferred: Inferred) -> dict[str, pa.Array]:
        columns: dict[str, pa.Array] = {}
        for name in scores_of(self.config.model.task, self.config.passes.count):
            if SCORES[name].from_logits:
                columns[name] = pa.array(inferred.column(name))
            else:
                keys = inferred.keys[: inferred.rows]
                columns[name] = pa.array(uniform_from_keys(keys, self.config.passes.seed))
        columns["prediction"] = _prediction(inferred.column("prediction"))
        confidence = inferred.column("confidence")
        columns["confidence"] = pa.nulls(inferred.rows, pa.float32()) if confidence is None else pa.array(confidence)
        return columns


class Inferred:
    """The results of a shard's blocks, on the host or on their way there.

    Every column has one buffer for the whole shard, and the columns of the pool that stay are written into one stream:
    small things kept from each block would lie between the large tensors that come and go, and the process would grow
    by those with every batch (seen with glibc 2.36).
    """

    def __init__(self, clock: DeviceClock, stages: Stages, room: int) -> None:
        self.clock = clock
        self.stages = stages
        self.rows = 0
        self.row_ids = np.empty(room, dtype=np.int64)
        self.keys = np.empty(room, dtype=np.uint64)
        self._sink = pa.BufferOutputStream()
        self._kept: pa.RecordBatchStreamWriter | None = None  # the columns to keep, and the id
        self.bad: Bad = {}  # by place in the shard
        self._columns: dict[str, Tensor] = {}
        self._queue: deque[tuple[Mark, ...]] = deque()  # of blocks that the device may be at
        self._last = clock.mark()

    def add(self, rows: Rows, kept: pa.Table, bad: Bad, stats: RowStats, marks: tuple[Mark, ...]) -> None:
        """A block that was queued on the device, and when it began, was copied, and left the model."""
        start, stop = self.rows, self.rows + len(rows)
        self.rows = stop
        self.row_ids[start:stop], self.keys[start:stop] = rows.row_ids, rows.keys
        if self._kept is None:
            self._kept = pa.ipc.new_stream(self._sink, kept.schema)
        self._kept.write_table(kept)
        self.bad |= {start + i: reason for i, reason in bad.items()}
        columns = {**stats.scores, "prediction": stats.prediction, "finite": stats.finite}
        if stats.confidence is not None:
            columns["confidence"] = stats.confidence
        for name, values in columns.items():
            if name not in self._columns:
                self._columns[name] = self._buffer(values)
            self._columns[name][start:stop].copy_(values, non_blocking=True)
        done = self.clock.mark()
        self._queue.append((self._last, *marks, done))
        self._last = done
        if len(self._queue) >= QUEUED:
            self._retire()

    def finish(self) -> None:
        """Wait for all blocks."""
        while self._queue:
            self._retire()
        for i in np.flatnonzero(self.column("finite") == 0).tolist():
            self.bad.setdefault(i, ("reduce", "the model's output is not finite"))
        self.bad = dict(sorted(self.bad.items()))

    def kept(self) -> pa.Table:
        """What `add` was given of all blocks."""
        assert self._kept is not None
        self._kept.close()
        return pa.ipc.open_stream(self._sink.getvalue()).read_all()

    def column(self, name: str) -> NDArray[np.generic] | None:
        """The values of all rows; None: there are none of this name."""
        values: NDArray[np.generic] | None = self._columns[name].numpy()[: self.rows] if name in self._columns else None
        return values

    def _buffer(self, values: Tensor) -> Tensor:
        """For the whole shard: float32, int64 or bool, pinned where it is filled from a GPU."""
        dtype = torch.float32 if values.is_floating_point() else values.dtype
        shape = (len(self.row_ids), *values.shape[1:])
        return torch.empty(shape, dtype=dtype, pin_memory=values.device.type == "cuda")

    def _retire(self) -> None:
        marks = self._queue.popleft()
        self.clock.wait(marks[-1])
        for stage, start, end in zip(("idle", "copy", "model", "reduce"), marks, marks[1:], strict=False):
            self.stages.seconds[stage] += self.clock.seconds(start, end)


def _identity(inferred: Inferred) -> tuple[dict[str, pa.ChunkedArray], dict[str, pa.ChunkedArray]]:
    """Columns by which rows are known, and columns of the pool that are kept."""
    whole = inferred.kept()
    kept = {name: whole[name] for name in whole.column_names}
    ids = kept.pop(ID)
    row_ids, keys = (pa.array(x[: inferred.rows]) for x in (inferred.row_ids, inferred.keys))
    return {"row_id": row_ids, "key": keys, "id": ids}, kept


def _prediction(values: NDArray[np.generic] | None) -> pa.Array:
    """Class number as int32, or the mean output: one float32, or a list of them."""
    assert values is not None
    if values.dtype.kind == "i":
        return pa.array(values.astype(np.int32))
    if values.shape[1] == 1:
        return pa.array(values[:, 0])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
