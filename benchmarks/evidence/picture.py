"""Learning curves as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from curves import Curves


def plot(
    curves: Curves,
    goals: Sequence[float],
    theirs: Mapping[str, Mapping[str, Sequence[float | None]]],
    out: Path,
    title: str,
) -> None:
    """Mean and range over the seeds; a diamond where the authors' median reaches a goal. Nothing without matplotlib."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed (pip install 'poolscore[plots]')")
        return
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for method, seeds in curves.items():
        labels = next(iter(seeds.values()))["labels"]
        quality = np.array([curve["quality"] for curve in seeds.values()])
        (line,) = axes.plot(labels, quality.mean(0), label=f"{method} ({len(seeds)} seeds)")
        axes.fill_between(labels, quality.min(0), quality.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
        medians = {goal: theirs.get(method, {}).get(str(goal), (None, None))[1] for goal in goals}
        for goal, median in medians.items():
            if median is not None:
                axes.plot(median, goal, "D", color=line.get_color(), markeredgecolor="black")
    for goal in goals:
        axes.axhline(goal, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="labels", ylabel="test accuracy", title=f"{title}; diamonds: the authors' medians")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    print(out)
