"""The arithmetic of `row_stats_cpu.py`: the softmax scores of a block of rows, in numpy.

Shapes: N rows of the block, T passes, C classes. With z = logits - max, e = exp z, s = sum_c e and p = e/s,

    H[p] = ln s - (sum_c e z)/s     both terms >= 0: nothing cancels, one exp and no log per element

Two memory layouts, chosen by C alone: many classes lie side by side, as they come; with few classes the rows lie side
by side, because a loop over 10 numbers costs more than its arithmetic. The code for both is the same: numpy makes the
contiguous dimension its inner loop.

A row has the same bits in any batch, because the order of every float sum depends on T and C alone. `einsum` makes
these sums, over the contiguous dimension or in the order of the others, and always without a cast: with one, numpy
would cut them at multiples of its buffer's size. Its multiply-adds, and numpy's exp and log, do the rest of a vector
with a mask and not in another way, so that a number's place in a vector does not matter. A dimension of size 1 is
never an inner loop: a block whose rows lie side by side has at least two of them. Additions that have no inner order,
exact ones (maxima, counts) and elementwise ones need no such care.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Softmax: TypeAlias = tuple[Floats, Floats, Floats, Floats]  # of t passes: z, e [N, t, C], max_c logits, s [N, t]

ELEMENTS = 1 << 18  # of a block: two arrays of 1 MiB in float32; with smaller ones the calls would cost as much
FEW_CLASSES = 64  # up to here the rows lie side by side
SIDE_BY_SIDE = 256  # so many of them at least, where N allows; their first cache lines fit the level-1 cache
SEGMENT = 2048  # classes that einsum adds in one go: its error grows with their number
LOWEST = -1e30  # stands for -inf: exp gives 0 as well, and 0 · -1e30 is 0 where 0 · -inf would be NaN


@dataclass(frozen=True)
class BlockShape:
    """How many rows and passes are in memory at a time, and whether the rows lie side by side."""

    rows: int
    passes: int  # it orders sums, so like rows_inside it depends on T and C alone
    rows_inside: bool

    @classmethod
    def of(cls, T: int, C: int) -> BlockShape:
        """The shape for T passes over C classes."""
        rows_inside = C <= FEW_CLASSES
        least_rows = SIDE_BY_SIDE if rows_inside else 1
        # Votes are counted in bytes, and a product of 1000/log2(C) sums s <= C is below the largest float64.
        most_passes = min(T, 255, 1000 // C.bit_length())
        passes = max(1, min(most_passes, ELEMENTS // (least_rows * C)))
        return cls(max(least_rows, ELEMENTS // (passes * C)), passes, rows_inside)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Uninitialised array of [rows, …] in the block's layout."""
        if self.rows_inside:
            return np.moveaxis(np.empty((*shape[1:], shape[0]), dtype), -1, 0)
        return np.empty(shape, dtype)


class Block:
    """Scratch memory for up to `rows` rows of T passes over C classes, and the scores of such a block."""

    def __init__(self, T: int, C: int, rows: int, dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = BlockShape.of(T, C), dtype
        scratch = (max(rows, 2), self.shape.passes, C)
        self.z_NTC, self.e_NTC = self.shape.empty(scratch, dtype), self.shape.empty(scratch, dtype)

    def score(self, source_NTC: NDArray[Any], want: Collection[str]) -> dict[str, NDArray[Any]]:
        """The scores in `want`, prediction, confidence and finite of the block's rows, at least one: [rows] each."""
        rows, T, C = source_NTC.shape
        if rows == 1 and self.shape.rows_inside:
            source_NTC = np.broadcast_to(source_NTC, (2, T, C))
        N = len(source_NTC)
        mean_NC: Floats = self.shape.empty((N, C), self.dtype)
        mean_NC[:] = 0.0
        votes_NC = np.zeros((N, C), np.int32)
        expected_N, finite_N = np.zeros(N), np.ones(N, np.bool_)
        for softmax in self._softmaxes(source_NTC):
            z_NTC, e_NTC, top_NT, norm_NT = softmax
            finite_N &= np.isfinite(top_NT).all(axis=1)
            mean_NC += np.einsum("ntc,nt->nc", e_NTC, 1.0 / norm_NT)
            if "variation_ratio" in want:
                votes_NC += count_votes(z_NTC, self.shape.rows_inside)
            if "bald" in want or "expected_entropy" in want:
                expected_N += sum_entropies(z_NTC, e_NTC, norm_NT)
        mean_NC /= T

        scores = scores_of_mean(mean_NC, expected_N / T, want)
        if "variation_ratio" in want:
            scores["variation_ratio"] = (T - votes_NC.max(axis=1)) / T
        if "mean_std" in want:
            whole = self.shape.passes >= T  # then the last softmax holds all passes, still in scratch memory
            scores["mean_std"] = self._mean_std([softmax] if whole else self._softmaxes(source_NTC), mean_NC, T)
        return {name: values_N[:rows] for name, values_N in (scores | {"finite": finite_N}).items()}

    def _softmaxes(self, source_NTC: NDArray[Any]) -> Iterator[Softmax]:
        """The passes, as many at a time as the scratch memory holds; it is overwritten by the next ones."""
        N, T, _ = source_NTC.shape
        for first in range(0, T, self.shape.passes):
            x_NTC = source_NTC[:, first : first + self.shape.passes]
            z_NTC, e_NTC = self.z_NTC[:N, : x_NTC.shape[1]], self.e_NTC[:N, : x_NTC.shape[1]]
            if self.shape.rows_inside or x_NTC.dtype != self.dtype:
                load(x_NTC, z_NTC)
                x_NTC = z_NTC
            top_NT = x_NTC.max(axis=2)
            np.subtract(x_NTC, top_NT[:, :, None], out=z_NTC)
            np.exp(z_NTC, out=e_NTC)
            yield z_NTC, e_NTC, top_NT, sum_classes("ntc->nt", e_NTC)

    def _mean_std(self, softmaxes: Iterable[Softmax], mean_NC: Floats, T: int) -> Floats:
        """mean_c sqrt(mean_t (p_tc - mean_c)²), [N]. A second run over the passes: mean_t p² - mean² would cancel."""
        squares_NC = np.zeros_like(mean_NC)
        for z_NTC, e_NTC, _, norm_NT in softmaxes:
            np.multiply(e_NTC, (1.0 / norm_NT)[:, :, None], out=z_NTC)
            np.subtract(z_NTC, mean_NC[:, None, :], out=z_NTC)
            squares_NC += np.einsum("ntc,ntc->nc", z_NTC, z_NTC)
        std_N: Floats = sum_classes("nc->n", np.sqrt(squares_NC / T)) / mean_NC.shape[1]
        return std_N


def load(source: NDArray[Any], out: Floats) -> None:
    """Copy logits into float32 or float64; uint16 holds the bits of bfloat16, the upper half of a float32."""
    for first in range(0, len(source), SIDE_BY_SIDE):
        rows = slice(first, first + SIDE_BY_SIDE)
        if source.dtype == np.uint16:
            np.left_shift(source[rows], 16, out=out[rows].view(np.uint32), dtype=np.uint32)
        else:
            np.copyto(out[rows], source[rows])


def sum_classes(subscripts: str, *arrays: Floats) -> Floats:
    """einsum that sums over the last dimension, C, of all arrays."""
    C = arrays[0].shape[-1]
    total: Floats = np.einsum(subscripts, *(a[..., :SEGMENT] for a in arrays))
    for first in range(SEGMENT, C, SEGMENT):
        total += np.einsum(subscripts, *(a[..., first : first + SEGMENT] for a in arrays))
    return total


def sum_entropies(z_NTC: Floats, e_NTC: Floats, norm_NT: Floats) -> NDArray[np.float64]:
    """sum_t H[p_t], nats, [N]. One log per row, of the product of the sums s."""
    ez_NT = sum_classes("ntc,ntc->nt", e_NTC, z_NTC)
    if np.isnan(ez_NT).any():
        ez_NT = sum_classes("ntc,ntc->nt", e_NTC, np.maximum(z_NTC, LOWEST, out=z_NTC))
    product_N = np.multiply.reduce(norm_NT, axis=1, dtype=np.float64)
    entropies_N: NDArray[np.float64] = np.log(product_N)
    entropies_N -= np.einsum("nt->n", (ez_NT / norm_NT).astype(np.float64))
    return entropies_N


def count_votes(z_NTC: Floats, rows_inside: bool) -> NDArray[Any]:
    """The number of passes whose argmax, the lowest on ties, is each class: [N, C]."""
    N, _, C = z_NTC.shape
    if not rows_inside:
        cells_NT = z_NTC.argmax(axis=2) + C * np.arange(N)[:, None]
        return np.bincount(cells_NT.ravel(), minlength=N * C).reshape(N, C)
    highest_NTC = z_NTC == 0.0  # argmax is slow across the memory's order, and would be most of the time here
    if (np.add.reduce(highest_NTC.view(np.uint8), axis=2, dtype=np.uint8) > 1).any():
        highest_NTC[:, :, 1:] &= ~np.logical_or.accumulate(highest_NTC, axis=2)[:, :, :-1]
    votes_NC: NDArray[Any] = np.add.reduce(highest_NTC.view(np.uint8), axis=1, dtype=np.uint8)
    return votes_NC


def scores_of_mean(mean_NC: Floats, expected_N: Floats, want: Collection[str]) -> dict[str, NDArray[Any]]:
    """Prediction, confidence and the wanted scores that follow from the mean probabilities and mean_t H[p_t]."""
    prediction_N = mean_NC.argmax(axis=1)
    confidence_N = mean_NC.max(axis=1)
    scores = {"prediction": prediction_N, "confidence": confidence_N}
    if "entropy" in want or "bald" in want:
        log_NC = np.log(np.maximum(mean_NC, np.finfo(mean_NC.dtype).tiny))
        entropy_N = non_negative(-sum_classes("nc->n", np.multiply(mean_NC, log_NC, out=log_NC).astype(np.float64)))
        if "entropy" in want:
            scores["entropy"] = entropy_N
        if "bald" in want:
            scores["bald"] = non_negative(entropy_N - expected_N)
    if "expected_entropy" in want:
        scores["expected_entropy"] = non_negative(expected_N)
    if "least_confidence" in want:
        scores["least_confidence"] = non_negative(1.0 - confidence_N)
    if "margin" in want:
        rest_NC = mean_NC.copy(order="K")
        np.put_along_axis(rest_NC, prediction_N[:, None], -1.0, axis=1)
        scores["margin"] = non_negative(1.0 - (confidence_N - rest_NC.max(axis=1)))
    return scores


def non_negative(x_N: Floats) -> Floats:
    """Clamp rounding noise below zero, and turn -0.0 into 0.0."""
    clamped_N: Floats = np.maximum(x_N, 0.0) + 0.0
    return clamped_N
