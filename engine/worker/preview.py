"""A try on a sample of the pool: what a night of it will take, what will hold it up, and what it would pick.

The sample is scored by the very pipeline of a worker, on the device that the job would use.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs import build_decoders
from poolscore.engine.inputs.base import RowSpec
from poolscore.engine.inputs.batch import BatchDecoder
from poolscore.engine.machine.cores import with_decode_threads
from poolscore.engine.pool.plan import Plan, Shard
from poolscore.engine.reasons import by_kind
from poolscore.engine.selection.near_duplicates import near_duplicate_rate
from poolscore.engine.worker.profile import numeric_settings
from poolscore.engine.worker.shard import Scorer
from poolscore.engine.worker.stages import bounding_stage

PLACES = 64  # row groups that a sample is read from, at least, where there are so many
PICKED = 48  # rows that stand for the selection, at most
SHARE = 20  # and at most one of so many sampled rows
REPEATS = 5  # of the batch on which T passes are compared with one


@dataclass(frozen=True)
class Preview:
    """What became of a sample."""

    device: str
    on_gpu: bool
    rows: int  # read; without the excluded ones
    scored: int
    rejected: Mapping[str, int]  # reason → rows
    seconds: float  # for all of them, on one worker, its stages overlapped
    cpu_seconds: float  # of the whole process
    stages: Mapping[str, float]  # seconds of each
    bounded_by: str | None
    passes_cost: float  # T passes, in units of one, by the clock
    picks: pa.Table  # the best rows, as in scores/, best first
    inputs: pa.Table  # the columns that they were decoded from, in the same order
    near_duplicates: float  # share of the picks
    near_duplicates_at_random: float  # the same of as many random rows of the sample

    @property
    def rows_per_second(self) -> float:
        """Of one worker, from storage to scores."""
        return self.rows / self.seconds


def draw_sample(plan: Plan, rows: int, seed: int) -> Shard:
    """About `rows` rows of the pool as one shard: the first rows of PLACES row groups drawn by the seed, or of as many
    as there are. Rows from anywhere would each cost the reading of a row group, and the time to read would say nothing
    of a whole run."""
    sizes, row_ids = plan.pieces["rows"].to_numpy(), plan.pieces["row_id"].to_numpy()
    order = np.random.default_rng(seed).permutation(len(sizes))
    rows = min(rows, int(sizes.sum()))
    run = -(-rows // min(PLACES, len(sizes)))
    while np.minimum(sizes, run).sum() < rows:  # some row groups are shorter
        run *= 2
    taken = np.minimum(sizes[order], run)
    enough = int(np.searchsorted(np.cumsum(taken), rows)) + 1
    pieces = [replace(plan.shards.piece_of(int(row_ids[i])), rows=min(int(sizes[i]), run)) for i in order[:enough]]
    pieces.sort(key=lambda piece: piece.row_id)
    return Shard(0, pieces[0].row_id, sum(piece.rows for piece in pieces), tuple(pieces))


def with_cores(scorer: Scorer, specs: Mapping[str, RowSpec], cores: int) -> Scorer:
    """The scorer of `prepare_job`, which decodes on one thread, as a worker with so many cores has it."""
    config, device = scorer.config, scorer.decoder.device
    run = with_decode_threads(config.run, cores, device.type == "cuda")
    threads = max(1, run.decode_threads or 0)
    decoder = BatchDecoder(build_decoders(config), specs, config.run.batch_size, device, threads)
    return replace(scorer, decoder=decoder)


def preview(scorer: Scorer, sample: Shard, device: str) -> Preview:
    """Score a sample and look at it.

    Raises:
        ConfigError: no row of it could be scored.
        UnreadableShard: a file of the pool cannot be read.
    """
    config = scorer.config
    with numeric_settings(config.run.threads):
        cpu, started = time.process_time(), time.monotonic()
        with scorer.feed(sample, threaded=True) as feed:
            result = scorer.collect(scorer.infer(feed))
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        rejected = by_kind((reason, 1) for reason in result.errors["error"].to_pylist())
        if not result.scores.num_rows:
            raise ConfigError(
                f"plan --preview: none of {sample.rows} rows could be scored"
                + (f"; the commonest reason: {rejected.most_common(1)[0][0]}" if rejected else "")
            )
        best = _best(result.scores, config.selected_by, sample.rows)
        rng = np.random.default_rng(config.passes.seed)
        control = rng.choice(result.scores["row_id"].to_numpy(), size=best.num_rows, replace=False)
        seen = _look_again(scorer, sample, [*best["row_id"].to_pylist()], control.tolist())
        return Preview(
            device=device,
            on_gpu=scorer.decoder.device.type == "cuda",
            rows=result.scores.num_rows + result.errors.num_rows,
            scored=result.scores.num_rows,
            rejected=rejected,
            seconds=seconds,
            cpu_seconds=cpu,
            stages=dict(feed.stages.seconds),
            bounded_by=bounding_stage(feed.stages.seconds),
            passes_cost=seen.passes_cost,
            picks=best,
            inputs=seen.inputs,
            near_duplicates=near_duplicate_rate(seen.of_picked, seen.centre),
            near_duplicates_at_random=near_duplicate_rate(seen.of_control, seen.centre),
        )


def _best(scores: pa.Table, by: str, sampled: int) -> pa.Table:
    order = [(by, "descending"), ("key", "ascending")]
    return scores.sort_by(order).slice(0, max(2, min(PICKED, sampled // SHARE)))


@dataclass(frozen=True)
class _Seen:
    inputs: pa.Table
    of_picked: NDArray[np.float32]
    of_control: NDArray[np.float32]
    centre: NDArray[np.float64]
    passes_cost: float


def _look_again(scorer: Scorer, sample: Shard, picked: list[int], control: list[int]) -> _Seen:
    """Features at the frontier, and the inputs, of a few rows of the sample. It is read once more: keeping the features
    of all rows could take more memory than a worker has."""
    wanted = set(picked) | set(control)
    features: dict[int, NDArray[np.float32]] = {}
    inputs: dict[int, pa.Table] = {}
    total_F: NDArray[np.float64] | None = None
    rows_seen, cost = 0, float("nan")
    for rows in scorer.reader.blocks(sample, scorer.config.run.batch_size):
        if not len(rows):
            continue
        batch, bad = scorer.decoder.decode(rows)
        features_NF = scorer.model.features(batch)[: len(rows)].float().cpu().numpy()
        good = [i for i in range(len(rows)) if i not in bad]
        sums = features_NF[good].sum(axis=0, dtype=np.float64)
        total_F = sums if total_F is None else total_F + sums
        rows_seen += len(good)
        for i in good:
            if (row_id := int(rows.row_ids[i])) in wanted:
                features[row_id] = features_NF[i].copy()  # a view would keep those of all rows
                inputs[row_id] = rows.table.take([i])
        if cost != cost:
            cost = _passes_cost(scorer, batch, scorer.decoder.padded_keys(rows))
    assert total_F is not None
    return _Seen(
        inputs=pa.concat_tables([inputs[i] for i in picked]),
        of_picked=np.stack([features[i] for i in picked]),
        of_control=np.stack([features[i] for i in control]),
        centre=total_F / rows_seen,
        passes_cost=cost,
    )


def _passes_cost(scorer: Scorer, inputs: Mapping[str, Tensor], keys: Tensor) -> float:
    """Median time of T passes over that of one, in turn, scores included."""

    def seconds(count: int) -> float:
        started = time.monotonic()
        scorer.statistics(scorer.model.logits(inputs, keys, count), ()).finite.cpu()
        return time.monotonic() - started

    both = [(seconds(1), seconds(scorer.config.passes.count)) for _ in range(REPEATS)][1:]
    one, all_passes = zip(*both, strict=True)
    return float(median(all_passes) / median(one))
