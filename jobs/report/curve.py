"""Curves as inline SVG, with the spread over seeds: for pages that work without script.

Colours and dashes of the arms are in style.css: they can be told apart in greys, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from poolscore.engine.words import amount
from poolscore.jobs.report.axes import FULL, Axis, grid_line, ticks_below
from poolscore.jobs.report.text import esc, number

HEIGHT = 260  # pixels
INNER = 1000  # units of the lines' own width, which is stretched to the drawing's
ARMS = 6  # styles in style.css; further arms begin again
NAME = 60  # characters

Seeds = Mapping[str, Sequence[tuple[float, float]]]  # seed → points
Curves = Mapping[str, Seeds]  # by arm


@dataclass(frozen=True)
class Point:
    """An arm at one place, over the seeds that have a value there."""

    x: float
    mean: float
    least: float
    most: float
    seeds: int


@dataclass(frozen=True)
class Arm:
    """What is drawn of it."""

    points: Sequence[Point]
    tails: Sequence[Sequence[tuple[float, float]]]

    def places(self) -> Iterator[tuple[float, float]]:
        """All that must lie inside the drawing."""
        for point in self.points:
            yield from ((point.x, point.least), (point.x, point.most))
        for tail in self.tails:
            yield from tail


def curves_svg(curves: Curves, x: str, y: str, from_zero: bool = False) -> str:
    """A line chart: for each arm its mean over the seeds as far as all have come, a band from the least to the largest
    of them, and beyond that a thin line for each seed that goes on.

    Args:
        curves: arm → seed → (x, y) points, in any order; those that are not finite are left out.
        x, y: names of the axes, with their units.
        from_zero: the axis of y has its 0, as suits a rate.

    Returns:
        HTML of a card with the drawing and its legend; "" where there is no point. All text is escaped.
    """
    arms = {name: Arm(spread_of(seeds), tails_of(seeds)) for name, seeds in curves.items() if _curves(seeds)}
    if not arms:
        return ""
    places = [place for arm in arms.values() for place in arm.places()]
    across, up = Axis.of(x for x, _ in places), Axis.of([*(y for _, y in places), *([0.0] * from_zero)])
    label = f"{y} over {x}. " + "; ".join(_last_words(name, arm) for name, arm in arms.items())
    legend = "".join(f'<li class="arm-{i % ARMS}">{_swatch()}{esc(name, NAME)}</li>' for i, name in enumerate(arms))
    return "".join(
        [
            f'<div class="card plot curves"><svg width="100%" height="{HEIGHT}" role="img" ',
            f'aria-label="{esc(label, 1000)}">',
            *(grid_line(_y(value, up), f"{value:.6g}") for value in up.ticks(5)),
            f'<line class="axis" x1="0" x2="100%" y1="{HEIGHT}" y2="{HEIGHT}"/>',
            ticks_below(across, HEIGHT),
            *(_arm(i % ARMS, name, arm, across, up) for i, (name, arm) in enumerate(arms.items())),
            f'<text class="name" x="-48" y="-18">{esc(y, NAME)}</text>',
            f'<text class="name mid" x="50%" y="{HEIGHT + 42}">{esc(x, NAME)}</text>',
            f'</svg><ul class="legend">{legend}</ul></div>',
        ]
    )


def spread_of(seeds: Seeds) -> list[Point]:
    """An arm's points in ascending order of x, where all of its seeds have come: a mean over those that happen to go on
    would compare others than before. Between its own points a seed counts by the straight line."""
    curves, (first, last) = _curves(seeds), shared_range(seeds)
    at = sorted({x for curve in curves for x, _ in curve if first <= x <= last})
    values = [[_value(curve, x) for curve in curves] for x in at]
    return [Point(x, math.fsum(ys) / len(ys), min(ys), max(ys), len(ys)) for x, ys in zip(at, values, strict=True)]


def tails_of(seeds: Seeds) -> list[list[tuple[float, float]]]:
    """What single seeds have beyond the last point that all of them have come to; each begins there."""
    last = shared_range(seeds)[1]
    tails = []
    for curve in _curves(seeds):
        if curve[-1][0] > last:
            begin = [(last, _value(curve, last))] if last >= curve[0][0] else []
            tails.append([*begin, *(point for point in curve if point[0] > last)])
    return tails


def shared_range(seeds: Seeds) -> tuple[float, float]:
    """From where to where all seeds have points; the end is before the begin where nowhere."""
    curves = _curves(seeds)
    first = max((curve[0][0] for curve in curves), default=math.inf)
    last = min((curve[-1][0] for curve in curves), default=-math.inf)
    return (first, last) if first <= last else (first, -math.inf)


def _value(curve: Sequence[tuple[float, float]], at: float) -> float:
    x, y = zip(*curve, strict=True)
    return float(np.interp(at, x, y))


def _curves(seeds: Seeds) -> list[list[tuple[float, float]]]:
    """Finite points in ascending order, of seeds that have any."""
    finite = ({x: y for x, y in points if math.isfinite(x) and math.isfinite(y)} for points in seeds.values())
    return [sorted(curve.items()) for curve in finite if curve]


def _last_words(name: str, arm: Arm) -> str:
    return f"{name} ends at {_said(arm.points[-1])}" if arm.points else f"{name} has no point that all seeds share"


def _said(point: Point) -> str:
    """A point in words."""
    spread = f", {number(point.least)} to {number(point.most)} over {amount(point.seeds, 'seed')}"
    return f"{number(point.mean)} at {point.x:.6g}" + (spread if point.seeds > 1 else "")


def _arm(style: int, name: str, arm: Arm, across: Axis, up: Axis) -> str:
    """Band, line, and a dot at each point whose title tells it in words; thin lines where single seeds go on."""
    points = arm.points
    tails = "".join(
        f'<polyline class="tail" points="{" ".join(_at(x, y, across, up) for x, y in tail)}"/>' for tail in arm.tails
    )
    upper = [_at(point.x, point.most, across, up) for point in points]
    lower = [_at(point.x, point.least, across, up) for point in reversed(points)]
    mean = [_at(point.x, point.mean, across, up) for point in points]
    dots = "".join(
        f'<circle cx="{across.place(point.x):.3f}%" cy="{_y(point.mean, up):.1f}" r="3">'
        f"<title>{esc(f'{name}: {_said(point)}')}</title></circle>"
        for point in points
    )
    return (
        f'<g class="arm-{style}">'
        f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {INNER} {HEIGHT}" preserveAspectRatio="none">'
        f'<polygon points="{" ".join([*upper, *lower])}"/><polyline points="{" ".join(mean)}"/>{tails}</svg>{dots}</g>'
    )


def _at(x: float, y: float, across: Axis, up: Axis) -> str:
    return f"{across.place(x) * INNER / FULL:.1f},{_y(y, up):.1f}"


def _y(value: float, up: Axis) -> float:
    return HEIGHT * (1 - up.place(value) / FULL)


def _swatch() -> str:
    return '<svg width="30" height="10" aria-hidden="true"><polyline points="0,5 30,5"/></svg>'
