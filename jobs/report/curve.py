"""Curves as inline SVG, with the spread over seeds: for pages that work without script.

Colours and dashes of the arms are in style.css: they can be told apart in greys, too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poolscore.engine.words import amount
from poolscore.jobs.report.axes import FULL, Axis, grid_line, ticks_below
from poolscore.jobs.report.text import esc, number

HEIGHT = 260  # pixels
INNER = 1000  # units of the lines' own width, which is stretched to the drawing's
ARMS = 6  # styles in style.css; further arms begin again
NAME = 60  # characters

Curves = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]  # arm → seed → points


@dataclass(frozen=True)
class Point:
    """An arm at one place, over the seeds that have a value there."""

    x: float
    mean: float
    least: float
    most: float
    seeds: int


def curves_svg(curves: Curves, x: str, y: str) -> str:
    """A line chart: for each arm its mean over the seeds, and a band from the least to the largest of them.

    Args:
        curves: arm → seed → (x, y) points, in any order; those that are not finite are left out.
        x, y: names of the axes, with their units.

    Returns:
        HTML of a card with the drawing and its legend; "" where there is no point. All text is escaped.
    """
    arms = {name: points for name, seeds in curves.items() if (points := spread_of(seeds))}
    if not arms:
        return ""
    every = [point for points in arms.values() for point in points]
    across = Axis.of(point.x for point in every)
    up = Axis.of(value for point in every for value in (point.least, point.most))
    label = f"{y} over {x}. " + "; ".join(_last_words(name, points) for name, points in arms.items())
    legend = "".join(f'<li class="arm-{i % ARMS}">{_swatch()}{esc(name, NAME)}</li>' for i, name in enumerate(arms))
    return "".join(
        [
            f'<div class="card plot curves"><svg width="100%" height="{HEIGHT}" role="img" ',
            f'aria-label="{esc(label, 1000)}">',
            *(grid_line(_y(value, up), f"{value:.6g}") for value in up.ticks(5)),
            f'<line class="axis" x1="0" x2="100%" y1="{HEIGHT}" y2="{HEIGHT}"/>',
            ticks_below(across, HEIGHT),
            *(_arm(i % ARMS, name, points, across, up) for i, (name, points) in enumerate(arms.items())),
            f'<text class="name" x="-48" y="-18">{esc(y, NAME)}</text>',
            f'<text class="name mid" x="50%" y="{HEIGHT + 42}">{esc(x, NAME)}</text>',
            f'</svg><ul class="legend">{legend}</ul></div>',
        ]
    )


def spread_of(seeds: Mapping[str, Sequence[tuple[float, float]]]) -> list[Point]:
    """An arm's points in ascending order of x. A seed that ended early says nothing of what comes later."""
    at: dict[float, list[float]] = defaultdict(list)
    for points in seeds.values():
        for x, y in points:
            if math.isfinite(x) and math.isfinite(y):
                at[x].append(y)
    return [Point(x, math.fsum(ys) / len(ys), min(ys), max(ys), len(ys)) for x, ys in sorted(at.items())]


def _last_words(name: str, points: Sequence[Point]) -> str:
    last = points[-1]
    return f"{name} ends at {_said(last)}"


def _said(point: Point) -> str:
    """A point in words."""
    spread = f", {number(point.least)} to {number(point.most)} over {amount(point.seeds, 'seed')}"
    return f"{number(point.mean)} at {point.x:.6g}" + (spread if point.seeds > 1 else "")


def _arm(style: int, name: str, points: Sequence[Point], across: Axis, up: Axis) -> str:
    """Band, line, and a dot at each point whose title tells it in words."""
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
        f'<polygon points="{" ".join([*upper, *lower])}"/><polyline points="{" ".join(mean)}"/></svg>{dots}</g>'
    )


def _at(x: float, y: float, across: Axis, up: Axis) -> str:
    return f"{across.place(x) * INNER / FULL:.1f},{_y(y, up):.1f}"


def _y(value: float, up: Axis) -> float:
    return HEIGHT * (1 - up.place(value) / FULL)


def _swatch() -> str:
    return '<svg width="30" height="10" aria-hidden="true"><polyline points="0,5 30,5"/></svg>'
