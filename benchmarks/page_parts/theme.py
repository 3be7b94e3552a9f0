"""What is said of a benchmark's result: a table, and the ratios that a second run has to reproduce.

A theme is the first part of a result's file name: `THEME_HARDWARE_DATE.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]  # as it was written to JSON
OURS = "poolscore"


def _no_ratios(result: Result) -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class Theme:
    """A benchmark."""

    name: str
    title: str
    about: str
    table: Callable[[Result], str]  # Markdown
    ratios: Callable[[Result], dict[str, float]] = _no_ratios


def rows_to_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown. Floats keep three digits, thousands have commas."""
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
