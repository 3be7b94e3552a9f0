"""Scores of a softmax over C classes on the CPU, fast. See `row_stats.py` for the table, the sources and conventions.

The same results as `row_stats_softmax.py`, within rounding; tests hold both against float64. Rows are cut into blocks
that stay in a core's cache, so memory beyond the logits and the results does not grow with N. The arithmetic is numpy's
(`row_stats_cpu_block.py`), because on this work it beats torch's own operators on the CPU: a call costs a third, exp,
log and argmax take half the time or less, and it starts no threads of its own. torch splits every exp over its threads
and waits for the slowest; here a thread takes a whole share of the rows, and waits for nobody until the end.

Not `torch.compile`: it takes seconds and a C++ compiler in every worker process, and its code for one row is not its
code for many, so a row's bits would depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolscore.kernels.row_result import RowStats
from poolscore.kernels.row_stats_cpu_block import Block, BlockShape

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
BLOCKS_OF_A_THREAD = 4  # at least: a millisecond or two; starting a thread takes 0.1 ms
MOST_THREADS = 4  # each has its own scratch memory, and a thread needs Python's lock between two of numpy's calls
BUFFER = 1024  # numbers; where its larger default holds several rows, numpy first copies what is broadcast to them


def softmax_stats_cpu(logits_NTC: Tensor, want: Collection[str]) -> RowStats:
    """Scores, argmax and its probability for CPU logits [N, T, C] of one of DTYPES, T >= 1, C >= 1, any strides.

    A row is finite unless a pass holds NaN, +inf, or -inf in all classes. A row's results have the same bits alone, in
    any batch, in any memory layout and with any number of threads. Up to `torch.get_num_threads()` threads are used.

    Raises:
        ValueError: margin with a single class.
    """
    N, T, C = logits_NTC.shape
    if "margin" in want and C < 2:
        raise ValueError("margin needs at least 2 classes, got logits with C = 1")
    source_NTC = numpy_view(logits_NTC)
    dtype = np.dtype(np.float64 if logits_NTC.dtype == torch.float64 else np.float32)
    shape = BlockShape.of(T, C)
    results: dict[str, NDArray[Any]] = {name: np.empty(N, dtype) for name in (*want, "confidence")}
    results |= {"prediction": np.empty(N, np.int64), "finite": np.empty(N, np.bool_)}

    def score(first: int, last: int) -> None:
        block = Block(T, C, min(shape.rows, last - first), dtype)
        with np.errstate(all="ignore"):  # it brings the buffer's size back, too
            np.setbufsize(BUFFER)
            for start in range(first, last, shape.rows):
                stop = min(start + shape.rows, last)
                for name, values_N in block.score(source_NTC[start:stop], want).items():
                    results[name][start:stop] = values_N

    in_shares(score, N, shape.rows)
    tensors = {name: torch.from_numpy(values_N) for name, values_N in results.items()}
    scores = {name: tensors[name] for name in want}
    return RowStats(scores, tensors["prediction"], tensors["confidence"], tensors["finite"])


def numpy_view(logits_NTC: Tensor) -> NDArray[Any]:
    """The logits' own memory as an array. numpy has no bfloat16: its bits come as uint16."""
    logits_NTC = logits_NTC.detach()
    if logits_NTC.dtype == torch.bfloat16:
        return logits_NTC.view(torch.int16).numpy().view(np.uint16)
    array: NDArray[Any] = logits_NTC.numpy()
    return array


def in_shares(score: Callable[[int, int], None], N: int, block_rows: int) -> None:
    """score(first, last) for consecutive shares of the N rows, in threads where there is work for several."""
    blocks = -(-N // block_rows)
    threads = max(1, min(torch.get_num_threads(), MOST_THREADS, blocks // BLOCKS_OF_A_THREAD))
    share = -(-blocks // threads) * block_rows
    if threads == 1:
        score(0, N)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(score, first, min(first + share, N)) for first in range(share, N, share)]
        score(0, share)
        for other in others:
            other.result()
