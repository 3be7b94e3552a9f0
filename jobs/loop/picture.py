"""`curve.png`, where matplotlib is installed (the extra `plots`)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from poolscore.engine.storage.local import LocalStorage
from poolscore.jobs.loop.curve import Point, metrics_of
from poolscore.jobs.report.curve import spread_of, tails_of

PICTURE = "curve.png"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(root: Path, points: Sequence[Point]) -> str | None:
    """A panel for each metric: mean over the seeds by arm, and the band from the least to the largest. None: nothing
    to draw."""
    names = metrics_of(points)
    if not names:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(names), 4.4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for arm in dict.fromkeys(point.arm for point in points):
            seeds: dict[str, list[tuple[float, float]]] = {}
            for point in points:
                if point.arm == arm and metric in point.metrics:
                    seeds.setdefault(str(point.seed), []).append((point.labels, point.metrics[metric]))
            spread = spread_of(seeds)
            x = [point.x for point in spread]
            axes.plot(x, [point.mean for point in spread], marker=".", label=f"{arm} ({len(seeds)} seeds)")
            axes.fill_between(x, [p.least for p in spread], [p.most for p in spread], alpha=0.2)
            for tail in tails_of(seeds):  # of seeds that go on where others have ended
                axes.plot(*zip(*tail, strict=True), color=axes.lines[-1].get_color(), linewidth=0.7, alpha=0.6)
        axes.set(xlabel="labels", ylabel=metric)
        axes.legend()
    LocalStorage(root).publish(PICTURE, lambda file: figure.savefig(file, format="png", dpi=120))
    return str(root / PICTURE)
