"""Confidence intervals at 95 %, and what two groups differ by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance

Z = 1.959963984540054  # of the normal distribution, 95 % two-sided


@dataclass(frozen=True)
class Estimate:
    """A share or a mean of some rows, and its interval."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Contrast:
    """The batch, the control, and by how much the batch is larger."""

    batch: Estimate
    control: Estimate
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Of the two values."""
        return self.batch.value - self.control.value


def wilson(hits: int, rows: int) -> Estimate:
    """A share of rows > 0, by the score interval without continuity correction (Wilson 1927, JASA 22, 209-212; method 3
    of Newcombe 1998, Statistics in Medicine 17, 857-872)."""
    p = hits / rows
    middle, half = p + Z * Z / (2 * rows), Z * sqrt(p * (1 - p) / rows + Z * Z / (4 * rows * rows))
    scale = 1 + Z * Z / rows
    return Estimate(p, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale), rows)


def mean(values: Sequence[float]) -> Estimate:
    """The mean of values, by the normal approximation, which takes some 30 of them, and two at least."""
    value = fmean(values)
    half = Z * sqrt(variance(values) / len(values))
    return Estimate(value, value - half, value + half, len(values))


def contrast(batch: Estimate, control: Estimate) -> Contrast:
    """How much larger the batch's value is. Of shares it is the hybrid of two Wilson intervals (method 10 of Newcombe
    1998, Statistics in Medicine 17, 873-890); of means the same formula gives the usual one of unequal variances."""
    d = batch.value - control.value
    low = d - sqrt((batch.value - batch.low) ** 2 + (control.high - control.value) ** 2)
    high = d + sqrt((batch.high - batch.value) ** 2 + (control.value - control.low) ** 2)
    return Contrast(batch, control, low, high)
