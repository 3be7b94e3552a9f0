"""What the blocks of `row_stats_cpu.py` share: their shape and layout, loading logits, sums in a fixed order.

Two memory layouts, chosen by C alone: many classes lie side by side, as they come; with few classes the rows lie side
by side, because a loop over 10 numbers costs more than its arithmetic. The code for both is the same: numpy makes the
contiguous dimension its inner loop.

A row has the same bits in any batch, because the order of every float sum depends on T and C alone. `einsum` makes
these sums, over the contiguous dimension or in the order of the others, and always without a cast: with one, numpy
would cut them at multiples of its buffer's size. Its multiply-adds, and numpy's exp and logarithms, do the rest of a
vector with a mask and not in another way, so that a number's place in a vector does not matter. A dimension of size 1
is never an inner loop: a block whose rows lie side by side has at least two of them. What has no inner order needs no
such care: exact additions (counts), maxima, and elementwise operations.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]

FEW_CLASSES = 64  # up to here the rows lie side by side
SIDE_BY_SIDE = 256  # so many of them at least, where N allows; their first cache lines fit the level-1 cache
SEGMENT = 2048  # classes that einsum adds in one go: its error grows with their number


class Block(Protocol):
    """Scratch memory for some rows, and their scores."""

    def score(self, source_NTC: NDArray[Any], want: Collection[str]) -> dict[str, NDArray[Any]]:
        """The scores in `want`, prediction, confidence and finite, [N] each. Rows side by side: at least two."""
        ...


@dataclass(frozen=True)
class BlockShape:
    """How many rows and passes are in memory at a time, and whether the rows lie side by side."""

    rows: int
    passes: int  # it orders sums, so like rows_inside it depends on T and C alone
    rows_inside: bool

    @classmethod
    def of(cls, T: int, C: int, elements: int) -> BlockShape:
        """The shape for T passes over C classes, in arrays of about so many elements."""
        rows_inside = C <= FEW_CLASSES
        least_rows = SIDE_BY_SIDE if rows_inside else 1
        # Votes are counted in bytes, and a product of 1000/log2(C) sums s <= C is below the largest float64.
        most_passes = min(T, 255, 1000 // C.bit_length())
        passes = max(1, min(most_passes, elements // (least_rows * C)))
        return cls(max(least_rows, elements // (passes * C)), passes, rows_inside)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Uninitialised array of [rows, …] in the block's layout."""
        if self.rows_inside:
            return np.moveaxis(np.empty((*shape[1:], shape[0]), dtype), -1, 0)
        return np.empty(shape, dtype)

    def scratch(self, rows: int, C: int, dtype: DTypeLike) -> NDArray[Any]:
        """Memory for the passes of up to `rows` rows over C classes."""
        return self.empty((max(rows, 2), self.passes, C), dtype)

    def at_least_two(self, source_NTC: NDArray[Any]) -> NDArray[Any]:
        """A single row twice, where the rows lie side by side."""
        if self.rows_inside and len(source_NTC) == 1:
            return np.broadcast_to(source_NTC, (2, *source_NTC.shape[1:]))
        return source_NTC


def load(source: NDArray[Any], out: Floats) -> None:
    """Copy logits into float32 or float64; uint16 holds the bits of bfloat16, the upper half of a float32."""
    for first in range(0, len(source), SIDE_BY_SIDE):
        rows = slice(first, first + SIDE_BY_SIDE)
        if source.dtype == np.uint16:
            np.left_shift(source[rows], 16, out=out[rows].view(np.uint32), dtype=np.uint32)
        else:
            np.copyto(out[rows], source[rows])


def sum_last(subscripts: str, *arrays: Floats) -> Floats:
    """einsum that sums over the last dimension of all arrays."""
    total: Floats = np.einsum(subscripts, *(a[..., :SEGMENT] for a in arrays))
    for first in range(SEGMENT, arrays[0].shape[-1], SEGMENT):
        total += np.einsum(subscripts, *(a[..., first : first + SEGMENT] for a in arrays))
    return total


def dot_last(a: Floats, b: Floats) -> Floats:
    """Scalar products over the last dimension. BLAS takes half the time of einsum where that dimension is contiguous,
    and up to SEGMENT numbers it neither starts threads nor looks at their alignment."""
    if a.strides[-1] != a.itemsize:
        return sum_last("ntc,ntc->nt", a, b)
    total: Floats = np.vecdot(a[..., :SEGMENT], b[..., :SEGMENT])
    for first in range(SEGMENT, a.shape[-1], SEGMENT):
        total += np.vecdot(a[..., first : first + SEGMENT], b[..., first : first + SEGMENT])
    return total


def kl_terms(p: Floats, q: Floats) -> Floats:
    """p ln(p/q) - p + q >= 0, elementwise: `kl_terms.py` in numpy."""
    tiny = np.finfo(p.dtype).tiny
    d = p - q
    v = d / np.maximum(p + q, tiny)
    square = v * v
    series = np.zeros_like(v)
    for k in range(p.itemsize, 0, -1):
        series += 1 / (2 * k + 1)
        series *= square
    series *= 1 + v
    series += v
    far = np.log(np.maximum(p, tiny) / np.maximum(q, tiny))
    far *= p
    far -= d
    terms: Floats = np.where(np.abs(v) <= 0.125, np.multiply(d, series, out=series), far)
    return terms


def non_negative(x: Floats) -> Floats:
    """Clamp rounding noise below zero, and turn -0.0 into 0.0."""
    clamped: Floats = np.maximum(x, 0.0) + 0.0
    return clamped
