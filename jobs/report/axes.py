"""An axis of a drawing: where a value lies on it, and round numbers along it.

Drawings are inline SVG. Widths are percentages and heights pixels, so that the text keeps its size on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

FULL = 100.0  # percent
TICKS = 7  # about so many


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, which lies above it."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Axis:
        """Just wide enough for the values, of which there is one at least."""
        known = list(values)
        low, high = min(known), max(known)
        if high > low:
            return cls(low, high)
        room = abs(low) / 10 or 1.0
        return cls(low - room, low + room)

    def place(self, value: float) -> float:
        """Percent of the way from low to high; values outside lie at an end."""
        return FULL * min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def ticks(self, about: int = TICKS) -> list[float]:
        """Round numbers, a step of 1, 2 or 5 apart."""
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def ticks_below(axis: Axis, y: int, about: int = TICKS) -> str:
    """Ticks and their numbers, as SVG, below a drawing of `y` pixels."""
    return "".join(
        f'<line class="axis" x1="{x:.3f}%" x2="{x:.3f}%" y1="{y}" y2="{y + 5}"/>'
        f'<text class="mid" x="{x:.3f}%" y="{y + 20}">{value:.6g}</text>'
        for value, x in ((value, axis.place(value)) for value in axis.ticks(about))
    )


def grid_line(y: float, text: str) -> str:
    """A line across a drawing at `y` pixels, and what it stands for on its left."""
    return (
        f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="end" x="-8" y="{y + 4:.1f}">{text}</text>'
    )
