"""The learning curves, read from the folders of the rounds: as points, as CSV, and how many labels a target took."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from poolscore.engine.config.loop import TargetConfig
from poolscore.jobs.loop.folders import DONE, TRAINED, Round
from poolscore.jobs.loop.training_process import TAKEN

NOT_REACHED = "not reached"


@dataclass(frozen=True)
class Point:
    """A model that was trained."""

    arm: str
    seed: int
    round: int
    labels: int
    metrics: dict[str, float]


def read_points(root: Path, arms: Sequence[str], seeds: Sequence[int]) -> list[Point]:
    """All of a loop, by arm, seed and round."""
    return [point for arm in arms for seed in seeds for point in _of_curve(root, arm, seed)]


def _of_curve(root: Path, arm: str, seed: int) -> list[Point]:
    points: list[Point] = []
    for number in count():
        at = Round(root, arm, seed, number)
        trained = at.read(TRAINED)
        if trained is None:
            return points
        points.append(Point(arm, seed, number, trained["labels"], trained["metrics"]))
    raise AssertionError


def metrics_of(points: Sequence[Point]) -> list[str]:
    """Their names, as they came."""
    return list(dict.fromkeys(name for point in points for name in point.metrics))


def as_csv(points: Sequence[Point]) -> bytes:
    """arm, seed, round, labels, and a column for each metric. The same rounds give the same bytes."""
    names = metrics_of(points)
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*TAKEN, *names])
    for point in points:
        values = [point.metrics.get(name, "") for name in names]
        table.writerow([point.arm, point.seed, point.round, point.labels, *values])
    return out.getvalue().encode()


def labels_to(points: Sequence[Point], target: TargetConfig, seeds: Sequence[int]) -> dict[str, list[int | None]]:
    """Labels of the first model that reached a target, by arm, of each seed that has a point; None: none did."""
    found: dict[str, list[int | None]] = {}
    for arm in dict.fromkeys(point.arm for point in points):
        for seed in seeds:
            curve = [point for point in points if (point.arm, point.seed) == (arm, seed)]
            good = (p.labels for p in curve if target.metric in p.metrics and target.reached(p.metrics[target.metric]))
            if curve:
                found.setdefault(arm, []).append(next(good, None))
    return found


def in_words(labels: dict[str, list[int | None]], target: TargetConfig) -> str:
    """'labels to accuracy of at least 0.9: bald 120 / 130 / 150, random 190 / 200 / not reached', fewest first."""

    def of(arm: str) -> str:
        ordered = sorted(labels[arm], key=lambda n: (n is None, n))
        return f"{arm} {' / '.join(NOT_REACHED if n is None else f'{n:,}' for n in ordered)}"

    return f"labels to {target}: {', '.join(map(of, labels))}"


def endings(root: Path, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, str | None]:
    """'ARM/seed-S' → why the curve ended; None: it has not."""
    found: dict[str, str | None] = {}
    for arm in arms:
        for seed in seeds:
            last = max((p.round for p in _of_curve(root, arm, seed)), default=0)
            done = Round(root, arm, seed, last).read(DONE)
            found[f"{arm}/seed-{seed}"] = done["stopped"] if done is not None else None
    return found
