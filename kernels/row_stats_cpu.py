"""Scores of multiclass, binary and multilabel logits on the CPU, fast. See `row_stats.py` for the conventions.

The same results as `row_stats_reference`, within rounding; tests hold both against float64. Rows are cut into blocks
that stay in the cache, so memory beyond the logits and the results does not grow with N. The arithmetic is numpy's,
because on this work it beats torch's own operators on the CPU: a call costs a third, and exp, log and argmax take half
the time or less.

One thread: after a model has run, torch's idle threads spin on the other cores for a while, and two threads of numpy's
were slower than one (measured; `benchmarks/NOTES.md`).

Not `torch.compile`: it takes seconds and a C++ compiler in every worker process, and its code for one row is not its
code for many, so a row's bits would depend on its batch.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolscore.kernels.row_result import RowStats
from poolscore.kernels.row_stats_cpu_bernoulli import BERNOULLI_ELEMENTS, BernoulliBlock
from poolscore.kernels.row_stats_cpu_block import Block, BlockShape
from poolscore.kernels.row_stats_cpu_softmax import SOFTMAX_ELEMENTS, SoftmaxBlock

CPU_TASKS = ("multiclass", "binary", "multilabel")
CPU_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

BUFFER = 1024  # numbers; where its larger default holds several rows, numpy first copies what is broadcast to them


def row_stats_cpu(
    logits_NTC: Tensor, task: str, want: Collection[str], *, reduce: str = "sum", accurate_bald: bool = False
) -> RowStats:
    """`row_stats` for CPU logits [N, T, C] of CPU_DTYPES and CPU_TASKS. Arguments are not checked.

    A row's results have the same bits alone, in any batch and in any memory layout.

    Raises:
        ValueError: margin of multiclass with a single class.
    """
    N, T, C = logits_NTC.shape
    if task == "multiclass" and "margin" in want and C < 2:
        raise ValueError("margin needs at least 2 classes, got logits with C = 1")
    source_NTC = numpy_view(logits_NTC)
    dtype = np.dtype(np.float64 if logits_NTC.dtype == torch.float64 else np.float32)
    results: dict[str, NDArray[Any]] = {name: np.empty(N, dtype) for name in (*want, "confidence")}
    results |= {"prediction": np.empty(N, np.int64), "finite": np.empty(N, np.bool_)}

    shape = BlockShape.of(T, C, SOFTMAX_ELEMENTS if task == "multiclass" else BERNOULLI_ELEMENTS)
    rows = min(shape.rows, N)
    block: Block
    if task == "multiclass":
        block = SoftmaxBlock(shape, rows, C, dtype, accurate_bald)
    else:
        block = BernoulliBlock(shape, rows, C, dtype, reduce if task == "multilabel" else None, accurate_bald)
    with np.errstate(all="ignore"):  # it brings the buffer's size back, too
        np.setbufsize(BUFFER)
        for first in range(0, N, shape.rows):
            last = min(first + shape.rows, N)
            scores = block.score(shape.at_least_two(source_NTC[first:last]), want)
            for name, values_N in scores.items():
                results[name][first:last] = values_N[: last - first]
    tensors = {name: torch.from_numpy(values_N) for name, values_N in results.items()}
    wanted = {name: tensors[name] for name in want}
    return RowStats(wanted, tensors["prediction"], tensors["confidence"], tensors["finite"])


def numpy_view(logits_NTC: Tensor) -> NDArray[Any]:
    """The logits' own memory as an array. numpy has no bfloat16: its bits come as uint16."""
    logits_NTC = logits_NTC.detach()
    if logits_NTC.dtype == torch.bfloat16:
        return logits_NTC.view(torch.int16).numpy().view(np.uint16)
    array: NDArray[Any] = logits_NTC.numpy()
    return array
