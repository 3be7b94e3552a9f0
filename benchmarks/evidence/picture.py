"""Learning curves as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from curves import Curves, Seeds
from numpy.typing import NDArray


class Mark(NamedTuple):
    """A published point: so many labels to a quality."""

    method: str
    quality: float
    labels: float


def plot(curves: Curves, out: Path, title: str, quality: str, marks: Sequence[Mark] = ()) -> None:
    """Mean and range over the seeds, and diamonds for what is published. Nothing without matplotlib."""
    pyplot = matplotlib_or_none()
    if pyplot is None:
        return
    figure, axes = pyplot.subplots(figsize=(8, 5))
    draw(axes, curves, quality)
    for mark in marks:
        line = next((line for line in axes.get_lines() if str(line.get_label()).split(" (")[0] == mark.method), None)
        if line is not None:
            axes.plot(mark.labels, mark.quality, "D", color=line.get_color(), markeredgecolor="black")
    for goal in {mark.quality for mark in marks}:
        axes.axhline(goal, color="grey", linewidth=0.8, linestyle=":")
    axes.set_title(title)
    figure.savefig(out, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    print(out)


def plot_panels(curves: Curves, out: Path, title: str, quality: str) -> None:
    """A picture for each PANEL of the methods that are called PANEL/method."""
    panels: dict[str, dict[str, Seeds]] = {}
    for name, seeds in curves.items():
        panel, _, method = name.partition("/")
        panels.setdefault(panel, {})[method] = seeds
    _side_by_side(out, title, [(panel, of, "quality", quality) for panel, of in panels.items()])


def plot_measures(curves: Curves, out: Path, title: str, measures: Mapping[str, str]) -> None:
    """A picture for each measure; `measures`: name in the result → in words."""
    _side_by_side(out, title, [("", curves, name, words) for name, words in measures.items()])


def _side_by_side(out: Path, title: str, panels: Sequence[tuple[str, Curves, str, str]]) -> None:
    pyplot = matplotlib_or_none()
    if pyplot is None:
        return
    figure, rows = pyplot.subplots(1, len(panels), figsize=(4.5 * len(panels), 4), squeeze=False)
    for axes, (head, curves, measure, words) in zip(rows[0], panels, strict=True):
        draw(axes, curves, words, measure)
        axes.set_title(head)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    pyplot.close(figure)
    print(out)


def draw(axes: Any, curves: Curves, words: str, measure: str = "quality") -> None:
    """A line and a band a method."""
    for method, seeds in curves.items():
        labels, found = over_seeds(seeds, measure)
        (line,) = axes.plot(labels, np.nanmean(found, 0), label=f"{method} ({len(seeds)} seeds)")
        low, high = np.nanmin(found, 0), np.nanmax(found, 0)
        axes.fill_between(labels, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="labels", ylabel=words)
    axes.legend()
    axes.grid(alpha=0.3)


def over_seeds(seeds: Seeds, measure: str) -> tuple[Sequence[float], NDArray[np.float64]]:
    """Labels of the longest curve, and the measure [seeds, rounds]; NaN where a curve has not come so far."""
    labels = max((curve["labels"] for curve in seeds.values()), key=len)
    found = np.full((len(seeds), len(labels)), np.nan)
    for row, curve in zip(found, seeds.values(), strict=True):
        row[: len(curve[measure])] = curve[measure]
    return labels, found


def matplotlib_or_none() -> Any:
    """pyplot, or nothing and a word about it."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed (pip install 'poolscore[plots]')")
        return None
    return pyplot
