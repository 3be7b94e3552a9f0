"""The heart: score one shard. Read → decode → infer → reduce; knows neither Ray nor the command line.

On a GPU the work of a block is queued without waiting for the block before it; scores come back on their own.

Legend: N rows of a block, T passes, C classes.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from poolscore.engine.config import Config
from poolscore.engine.device_clock import DeviceClock, Mark
from poolscore.engine.errors import StoppedError
from poolscore.engine.feed import Feed
from poolscore.engine.inputs.batch import Bad, BatchDecoder, HostBatch
from poolscore.engine.model.passes import McDropout
from poolscore.engine.pool.plan import Shard
from poolscore.engine.pool.read import Rows, ShardReader
from poolscore.engine.scores import SCORES, Task, scores_of
from poolscore.engine.stages import Stages
from poolscore.kernels.random_score import uniform_from_keys
from poolscore.kernels.row_stats import RowStats, row_stats

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

    def feed(self, shard: Shard, threaded: bool = False) -> Feed:
        """Begin to read a shard."""
        run = self.config.run
        return Feed(self.reader, self.decoder, shard, run.batch_size, run.read_ahead, threaded)

    def score_shard(self, shard: Shard) -> ScoredShard:
        """Score the rows of a shard in the order of the pool. Every block goes through the model in one fixed shape.

        Raises:
            UnreadableShard: a file of the pool cannot be read.
        """
        with self.feed(shard) as feed:
            return self.collect(self.infer(feed))

    def infer(self, feed: Feed) -> Inferred:
        """Run the batches through the model. On a GPU the last of them may still be on their way when this returns."""
        inferred = Inferred(DeviceClock(self.decoder.device), feed.stages)
        keep = list(self.config.pool.keep)
        for rows, batch in feed:
            if self.stopped.is_set():
                raise StoppedError("the worker was told to stop")
            start = inferred.clock.mark()
            inputs = self.decoder.to_device(batch)
            copied = inferred.clock.mark()
            logits_NTC = self.model.logits(inputs, self.decoder.padded_keys(rows))[: len(rows)]
            modelled = inferred.clock.mark()
            inferred.add(rows.select(keep), batch, self.statistics(logits_NTC), (start, copied, modelled))
        return inferred

    def collect(self, inferred: Inferred) -> ScoredShard:
        """Wait for what `infer` began, and put it into tables."""
        inferred.finish()
        with inferred.stages.time("write"):
            rows = inferred.rows
            bad = inferred.bad
            columns = _identity(rows)
            columns |= self._score_columns(inferred, np.concatenate([part.keys for part in rows]))
            for name in self.config.pool.keep:
                columns[name] = _chunked([part.table[name] for part in rows])
            table = pa.table(columns)
            if bad:
                good = np.ones(table.num_rows, dtype=bool)
                good[list(bad)] = False
                table = table.filter(pa.array(good))
            return ScoredShard(table, _error_table(rows, bad))

    def statistics(self, logits_NTC: Tensor, scores: tuple[str, ...] | None = None) -> RowStats:
        """The scores of the task (or the ones named) from the logits."""
        model = self.config.model
        if scores is None:
            scores = scores_of(model.task, self.config.passes.count)
        return row_stats(
            logits_NTC,
            model.task.value,
            [name for name in scores if SCORES[name].from_logits],
            reduce=self.config.score.reduce if model.task is Task.MULTILABEL else "sum",
            predicts_noise=model.predicts_noise,
        )

    def _score_columns(self, inferred: Inferred, keys: NDArray[np.uint64]) -> dict[str, pa.Array]:
        columns: dict[str, pa.Array] = {}
        for name in scores_of(self.config.model.task, self.config.passes.count):
            if SCORES[name].from_logits:
                columns[name] = pa.array(inferred.column(name))
            else:
                columns[name] = pa.array(uniform_from_keys(keys, self.config.passes.seed))
        columns["prediction"] = _prediction(inferred.column("prediction"))
        has_confidence = "confidence" in inferred.columns
        columns["confidence"] = (
            pa.array(inferred.column("confidence")) if has_confidence else pa.nulls(len(keys), pa.float32())
        )
        return columns


class Inferred:
    """The results of a shard's blocks, on the host or on their way there."""

    def __init__(self, clock: DeviceClock, stages: Stages) -> None:
        self.clock = clock
        self.stages = stages
        self.rows: list[Rows] = []
        self.columns: dict[str, list[Tensor]] = {}  # by score, a tensor [N, …] for each block
        self._bad: list[Bad] = []
        self._queue: deque[tuple[HostBatch, tuple[Mark, ...]]] = deque()  # blocks that the device may be at
        self._last = clock.mark()

    def add(self, rows: Rows, batch: HostBatch, stats: RowStats, marks: tuple[Mark, Mark, Mark]) -> None:
        """A block that was queued on the device, and when it began, was copied, and left the model."""
        columns = {**stats.scores, "prediction": stats.prediction, "finite": stats.finite}
        if stats.confidence is not None:
            columns["confidence"] = stats.confidence
        for name, values in columns.items():
            values = values.float() if values.is_floating_point() else values
            # From a GPU this goes to pinned memory and does not wait.
            self.columns.setdefault(name, []).append(values.to("cpu", non_blocking=True))
        self.rows.append(rows)
        self._bad.append(batch.bad)
        done = self.clock.mark()
        self._queue.append((batch, (self._last, *marks, done)))
        self._last = done
        if len(self._queue) >= QUEUED:
            self._retire()

    def finish(self) -> None:
        """Wait for all blocks."""
        while self._queue:
            self._retire()

    def column(self, name: str) -> NDArray[np.generic]:
        """The values of all rows."""
        values: NDArray[np.generic] = np.concatenate([part.numpy() for part in self.columns[name]])
        return values

    @property
    def bad(self) -> Bad:
        """The rows that have no scores, by their place in the shard, in order."""
        bad: Bad = {}
        start = 0
        for rows, found in zip(self.rows, self._bad, strict=True):
            bad |= {start + i: reason for i, reason in found.items() if i < len(rows)}
            start += len(rows)
        for i in np.flatnonzero(self.column("finite") == 0).tolist():
            bad.setdefault(i, ("reduce", "the model's output is not finite"))
        return dict(sorted(bad.items()))

    def _retire(self) -> None:
        batch, marks = self._queue.popleft()
        self.clock.wait(marks[-1])
        batch.release()
        for stage, start, end in zip(("idle", "copy", "model", "reduce"), marks, marks[1:], strict=False):
            self.stages.seconds[stage] += self.clock.seconds(start, end)


def _identity(rows: list[Rows]) -> dict[str, pa.Array]:
    return {
        "row_id": pa.array(np.concatenate([part.row_ids for part in rows])),
        "key": pa.array(np.concatenate([part.keys for part in rows])),
        "id": _chunked([part.ids for part in rows]),
    }


def _chunked(parts: list[pa.Array | pa.ChunkedArray]) -> pa.ChunkedArray:
    chunks = [chunk for part in parts for chunk in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])]
    return pa.chunked_array(chunks, parts[0].type)


def _error_table(rows: list[Rows], bad: Bad) -> pa.Table:
    at = pa.array(bad, pa.int64())
    columns = {name: column.take(at) for name, column in _identity(rows).items()}
    columns["stage"] = pa.array([stage for stage, _ in bad.values()], pa.string())
    columns["error"] = pa.array([reason for _, reason in bad.values()], pa.string())
    return pa.table(columns)


def _prediction(values: NDArray[np.generic]) -> pa.Array:
    """Class number as int32, or the mean output: one float32, or a list of them."""
    if values.dtype.kind == "i":
        return pa.array(values.astype(np.int32))
    if values.shape[1] == 1:
        return pa.array(values[:, 0])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
