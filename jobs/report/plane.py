"""Rows by two scores at once, counted in cells. Memory: the cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolscore.jobs.report.axes import Axis

ACROSS, UP = 64, 44  # cells
PAIRS = (("expected_entropy", "bald"), ("prediction", "predictive_variance"))  # of classifiers; of one output

Values = NDArray[np.floating[Any]]


def _none() -> NDArray[np.int64]:
    return np.zeros((UP, ACROSS), np.int64)


@dataclass
class Plane:
    """Rows counted so far; a value outside an axis counts at its end."""

    names: tuple[str, str]  # of the scores across and up
    across: Axis
    up: Axis
    pool: NDArray[np.int64] = field(default_factory=_none)  # [UP, ACROSS] rows, the lowest scores first
    batch: NDArray[np.int64] = field(default_factory=_none)  # of them, those of the batch

    def add(self, across: Values, up: Values, chosen: NDArray[np.intp]) -> None:
        """Count a block of rows; `chosen` are the places of the batch's rows among them."""
        finite = np.isfinite(across) & np.isfinite(up)
        across, up = np.where(finite, across, self.across.low), np.where(finite, up, self.up.low)
        cells = _cell(across, self.across, ACROSS) + ACROSS * _cell(up, self.up, UP)
        self.pool += _counted(cells[finite])
        self.batch += _counted(cells[chosen][finite[chosen]])

    @property
    def rows(self) -> int:
        """With two finite scores."""
        return int(self.pool.sum())


def _cell(values: Values, axis: Axis, cells: int) -> NDArray[np.int64]:
    share = (values.astype(np.float64) - axis.low) / (axis.high - axis.low)
    return np.clip((share * cells).astype(np.int64), 0, cells - 1)


def _counted(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(cells, minlength=UP * ACROSS).reshape(UP, ACROSS).astype(np.int64)
