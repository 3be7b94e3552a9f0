"""At a worker: rows inferred once more, and what the scores were made of.

Legend: N rows of a block, T passes, C classes, F features.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from poolscore.engine.config import Config
from poolscore.engine.errors import StoppedError, UnreadableShard
from poolscore.engine.inputs import build_decoders
from poolscore.engine.inputs.base import BadRow
from poolscore.engine.inputs.image import encoded_bytes
from poolscore.engine.inputs.thumbnail import picture_input, shrunken
from poolscore.engine.keys import IdSet
from poolscore.engine.pool.read import Rows, ShardReader
from poolscore.engine.run.task import LookAtLabelled
from poolscore.engine.scores import Task
from poolscore.engine.shortlist.read import FEATURES, LOG_PROBS, OUTPUTS, THUMBNAIL
from poolscore.engine.worker.feed import Feed
from poolscore.engine.worker.shard import Scorer


def log_probabilities(logits_NTC: Tensor, task: Task) -> Tensor:
    """Of each class in each pass, in nats; -inf where the model says that a class is impossible.

    Returns:
        [N, T, C']: multiclass C; binary 2, classes 0 and 1; multilabel 2 C: ln p of each label, then ln(1 - p).
        Regression: the outputs as they are.
    """
    match task:
        case Task.MULTICLASS:
            return logits_NTC.log_softmax(-1)
        case Task.BINARY:
            return torch.cat([logsigmoid(-logits_NTC), logsigmoid(logits_NTC)], -1)
        case Task.MULTILABEL:
            return torch.cat([logsigmoid(logits_NTC), logsigmoid(-logits_NTC)], -1)
        case Task.REGRESSION:
            return logits_NTC


def width_of(outputs: int, task: Task) -> int:
    """C' of so many outputs."""
    return 2 * outputs if task in (Task.BINARY, Task.MULTILABEL) else outputs


def look_again(scorer: Scorer, feed: Feed, whole: bool) -> tuple[pa.Table, dict[int, str]]:
    """Infer the rows of a feed.

    Args:
        whole: False: only their features.

    Returns:
        row_id, key, features and, of the whole, log_probs (or outputs) and thumbnail; and the rows that have none,
        row_id → why.

    Raises:
        StoppedError: the worker was told to stop.
        UnreadableShard: a file cannot be read.
    """
    tables: list[pa.Table] = []
    bad: dict[int, str] = {}
    for rows, batch in feed:
        if scorer.stopped.is_set():
            break
        bad |= {int(rows.row_ids[i]): why for i, (_, why) in batch.bad.items()}
        good = np.array([i for i in range(len(rows)) if i not in batch.bad], dtype=np.int64)
        columns = _inferred(scorer, scorer.decoder.to_device(batch), rows, whole)
        if whole:
            columns[THUMBNAIL] = _thumbnails(scorer.config, rows)
        identity = {"row_id": pa.array(rows.row_ids), "key": pa.array(rows.keys)}
        tables.append(pa.table({**identity, **columns}).take(pa.array(good)))
    if scorer.stopped.is_set():  # which ends the feed as well
        raise StoppedError("the worker was told to stop")
    return pa.concat_tables(tables), bad


def reader_of(task: LookAtLabelled, config: Config) -> ShardReader:
    """A reader of a task's rows."""
    columns = [column for decoder in build_decoders(config).values() for column in decoder.columns]
    return ShardReader(task.root, columns, None, IdSet(), task.choice).only(task.row_ids)


def require_rows(found: pa.Table, bad: dict[int, str], row_ids: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
    """Rows that were scored are there and are the same, but for those that cannot be decoded any more.

    Raises:
        UnreadableShard: not so.
    """
    left_M = ~np.isin(row_ids, list(bad))
    if not np.array_equal(found["row_id"], row_ids[left_M]) or not np.array_equal(found["key"], keys[left_M]):
        raise UnreadableShard("the pool holds other rows than those that were scored")


def _inferred(scorer: Scorer, inputs: dict[str, Tensor], rows: Rows, whole: bool) -> dict[str, pa.Array]:
    n, task = len(rows), scorer.config.model.task
    features_NF = scorer.model.features(inputs)[:n]
    if not whole:
        return {FEATURES: _lists(features_NF)}
    logits_NTC = scorer.model.logits(inputs, scorer.decoder.padded_keys(rows))[:n]
    name = OUTPUTS if task is Task.REGRESSION else LOG_PROBS
    return {name: _lists(log_probabilities(logits_NTC, task).flatten(1)), FEATURES: _lists(features_NF)}


def _lists(values_NF: Tensor) -> pa.Array:
    """One list of float32 a row, all of one length."""
    values = values_NF.float().cpu().numpy()
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _thumbnails(config: Config, rows: Rows) -> pa.Array:
    decode, edge = picture_input(config), config.shortlist.thumbnail
    if decode is None or decode.column is None or not edge:
        return pa.nulls(len(rows), pa.binary())
    pictures: list[bytes | None] = []
    for data in encoded_bytes(rows.table[decode.column]):
        try:
            pictures.append(None if data is None else shrunken(data, decode, edge).data)
        except BadRow:
            pictures.append(None)
    return pa.array(pictures, pa.binary())
