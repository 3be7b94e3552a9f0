"""Pictures of results, for RESULTS.md. Matplotlib is not a dependency: `pip install 'poolscore[evidence]'`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from page_parts.theme import OURS, Result


def peers(result: Result, out: Path) -> None:
    """Rates of all contestants, end to end, on a logarithmic axis; a panel a workload."""
    measured = {name: one for name, one in result["results"].items() if "error" not in one}
    height = -(-len(measured) // 2)
    figure = Figure(figsize=(10.4, 3.6 * height), layout="constrained")
    for place, (name, one) in enumerate(measured.items(), 1):
        axes = figure.add_subplot(height, 2, place)
        rates = {who: found["rows_per_s"] for who, found in one["contestants"].items()}
        names = sorted(rates, key=lambda who: rates[who])
        bars = axes.barh(names, [rates[who] for who in names])
        for bar, who in zip(bars, names, strict=True):
            bar.set_color("tab:blue" if who.startswith(OURS) else "tab:gray")
        axes.set_xscale("log")
        axes.set_xlabel("rows/s")
        axes.set_title(f"{name}, T={one['passes']}")
    figure.savefig(out, dpi=100)


def scaling(result: Result, out: Path) -> None:
    """Efficiency over workers."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([one["workers"] for one in result["results"]], [one["efficiency"] for one in result["results"]], "o-")
    axes.axhline(result["targets"]["efficiency"], linestyle=":", color="tab:gray")
    axes.set_xscale("log", base=2)
    axes.set_ylim(0.9, 1.0)
    axes.set_xlabel("simulated workers")
    axes.set_ylabel("efficiency")
    figure.savefig(out, dpi=100)


PLOTS: dict[str, Callable[[Result, Path], None]] = {"peers": peers, "scaling": scaling}


def draw(result: Result, out: Path, theme: str) -> None:
    """The picture of a result, where its theme has one."""
    if theme in PLOTS:
        PLOTS[theme](result, out)
