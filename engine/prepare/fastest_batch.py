"""`run.batch_size: auto`: the batch that is scored fastest and leaves room in memory, measured once per job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.probe import Inputs
from poolscore.engine.worker.shard import Scorer

CANDIDATES = (16, 32, 64, 128, 256, 512, 1024)  # rows
ENOUGH = 0.95  # of the best rate: the smallest batch with that is taken
LONGEST = 4.0  # seconds for a batch; longer ones are not tried
ROOM = 0.75  # of the GPU's memory, at most, is the model's: the rest is for what is copied ahead
REPEATS = 3  # the fastest counts


@dataclass(frozen=True)
class BatchSize:
    """What was chosen."""

    rows: int
    rows_per_call: int  # N·T rows in one tensor


def measure_batch_size(scorer: Scorer, inputs: Inputs, good: Sequence[int], most: int) -> BatchSize:
    """Score batches of several sizes.

    Args:
        inputs: tensors [N, …] on the device, of which the rows `good` stand for all others.
        most: rows of the largest shard.

    Raises:
        ConfigError: not even the smallest batch fits, one pass at a time.
    """
    device = scorer.decoder.device

    def seconds(rows: int, rows_per_call: int) -> float:
        scorer.model.rows_per_call = rows_per_call
        batch = {name: _repeated(x[good], rows) for name, x in inputs.items()}
        keys = torch.zeros(rows, dtype=torch.int64, device=device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        times = []
        for _ in range(1 + REPEATS):  # the first warms up
            started = time.monotonic()
            scorer.statistics(scorer.model.logits(batch, keys)).finite.cpu()
            times.append(time.monotonic() - started)
            if times[-1] > LONGEST:
                break
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
            if torch.cuda.max_memory_reserved(device) > ROOM * total:
                raise torch.OutOfMemoryError(f"{rows} rows leave too little room")
        return min(times)

    chosen = choose_batch_size(seconds, scorer.model.rows_per_call, most)
    scorer.model.rows_per_call = chosen.rows_per_call
    return chosen


def choose_batch_size(seconds: Callable[[int, int], float], rows_per_call: int, most: int) -> BatchSize:
    """The smallest batch that is about as fast as the fastest.

    Args:
        seconds: rows and rows_per_call → seconds for a batch; raises torch.OutOfMemoryError. Then the piece of the
            passes is halved, down to one pass; then the batch is too large.
        most: a larger batch than the next above so many rows would be padded.
    """
    rates: dict[BatchSize, float] = {}
    for rows in CANDIDATES:
        if rates and rows >= 2 * most:
            break
        tried = _fitting(seconds, rows, rows_per_call)
        if tried is None:
            break
        size, took = tried
        rates[size] = rows / took
        if took > LONGEST:
            break
    if not rates:
        raise ConfigError(
            f"run.batch_size: not even {CANDIDATES[0]} rows fit into memory, one pass at a time; give a smaller number"
        )
    return next(size for size, rate in rates.items() if rate >= ENOUGH * max(rates.values()))


def _fitting(seconds: Callable[[int, int], float], rows: int, rows_per_call: int) -> tuple[BatchSize, float] | None:
    while True:
        try:
            return BatchSize(rows, rows_per_call), seconds(rows, rows_per_call)
        except torch.OutOfMemoryError:
            if rows_per_call <= rows:
                return None
            rows_per_call = max(rows, rows_per_call // 2)


def _repeated(x: torch.Tensor, rows: int) -> torch.Tensor:
    return x.repeat(-(-rows // len(x)), *[1] * (x.ndim - 1))[:rows].clone()
