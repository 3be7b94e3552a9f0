"""The heart: score one shard. Read → decode → infer → reduce; knows neither Ray nor the command line.

Legend: N rows of a block, T passes, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolscore.engine.config import Config
from poolscore.engine.inputs.batch import Bad, BatchDecoder
from poolscore.engine.model.passes import McDropout
from poolscore.engine.pool.plan import Shard
from poolscore.engine.pool.read import Rows, ShardReader
from poolscore.engine.scores import SCORES, Task, scores_of
from poolscore.kernels.random_score import uniform_from_keys
from poolscore.kernels.row_stats import RowStats, row_stats


@dataclass(frozen=True)
class ScoredBlock:
    """What became of up to `batch_size` rows; every row is in exactly one of the two tables."""

    scores: pa.Table
    errors: pa.Table


@dataclass(frozen=True)
class Scorer:
    """What scoring a shard needs; made once per worker (`worker.py`)."""

    config: Config
    reader: ShardReader
    decoder: BatchDecoder
    model: McDropout

    def score_shard(self, shard: Shard) -> Iterator[ScoredBlock]:
        """Score the rows of a shard, block by block, in the order of the pool. Every block goes through the model in
        one fixed shape.

        Raises:
            UnreadableShard: a file of the pool cannot be read.
        """
        for rows in self.reader.blocks(shard, self.config.run.batch_size):
            inputs, bad = self.decoder.decode(rows)
            logits_NTC = self.model.logits(inputs, self.decoder.padded_keys(rows))[: len(rows)]
            yield self._reduce(rows, bad, logits_NTC)

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
            accurate_bald=self.config.score.accurate_bald,
            predicts_noise=model.predicts_noise,
        )

    def _reduce(self, rows: Rows, bad: Bad, logits_NTC: Tensor) -> ScoredBlock:
        stats = self.statistics(logits_NTC)
        for i in torch.nonzero(~stats.finite.cpu()).flatten().tolist():
            bad.setdefault(i, ("reduce", "the model's output is not finite"))
        good = np.array([i not in bad for i in range(len(rows))], dtype=bool)
        return ScoredBlock(self._score_table(rows, stats, good), _error_table(rows, bad))

    def _score_table(self, rows: Rows, stats: RowStats, good: NDArray[np.bool_]) -> pa.Table:
        columns = _identity(rows)
        for name in scores_of(self.config.model.task, self.config.passes.count):
            if SCORES[name].from_logits:
                columns[name] = pa.array(stats.scores[name].float().cpu().numpy())
            else:
                columns[name] = pa.array(uniform_from_keys(rows.keys, self.config.passes.seed))
        columns["prediction"] = _prediction(stats.prediction)
        confidence = stats.confidence
        columns["confidence"] = (
            pa.nulls(len(rows), pa.float32()) if confidence is None else pa.array(confidence.float().cpu().numpy())
        )
        for name in self.config.pool.keep:
            columns[name] = rows.table[name]
        return pa.table(columns).filter(pa.array(good))


def _identity(rows: Rows) -> dict[str, pa.Array]:
    return {"row_id": pa.array(rows.row_ids), "key": pa.array(rows.keys), "id": rows.ids}


def _error_table(rows: Rows, bad: Bad) -> pa.Table:
    order = sorted(bad)
    at = pa.array(order, pa.int64())
    columns = {name: column.take(at) for name, column in _identity(rows).items()}
    columns["stage"] = pa.array([bad[i][0] for i in order], pa.string())
    columns["error"] = pa.array([bad[i][1] for i in order], pa.string())
    return pa.table(columns)


def _prediction(prediction: Tensor) -> pa.Array:
    """Class number as int32, or the mean output: one float32, or a list of them."""
    values = prediction.cpu().numpy()
    if values.dtype.kind == "i":
        return pa.array(values.astype(np.int32))
    values = values.astype(np.float32)
    if values.shape[1] == 1:
        return pa.array(values[:, 0])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
