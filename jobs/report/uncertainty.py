"""The uncertainty map: how the pool lies by two scores, and where in it the batch lies. One of the scores says what a
single pass is unsure of (no label changes that), the other what the passes disagree about (labels can).

Drawn in cells, so that its size does not grow with the pool.
"""

from __future__ import annotations

import math

import numpy as np

from poolscore.engine.words import amount
from poolscore.jobs.report.axes import FULL, grid_line, ticks_below
from poolscore.jobs.report.distribution import Distribution
from poolscore.jobs.report.facts import Facts
from poolscore.jobs.report.plane import ACROSS, UP, Plane
from poolscore.jobs.report.text import count, esc, rows
from poolscore.jobs.report.words import words_of

HEIGHT = 360  # pixels
LEVELS = 5  # greys in style.css
LEAST, MOST = 2.6, 6.5  # pixels: radius of a mark


def section(facts: Facts, distribution: Distribution) -> str:
    """Nothing for tasks that have no two such scores."""
    plane = distribution.plane
    if plane is None or not plane.rows:
        return ""
    across, up = (words_of(name) for name in plane.names)
    drawn = facts.selection is not None and facts.selection.method == "topk" and facts.config.score.reduce == "sum"
    cutoff = facts.selection.cutoff if facts.selection and drawn else None
    return f"""
<section aria-labelledby="map">
<h2 id="map">Uncertainty map</h2>
<p class="lead">The pool by <strong>{esc(across.title.lower())}</strong> ({esc(across.meaning)}) and
<strong>{esc(up.title)}</strong> ({esc(up.meaning)}). Each mark is one or more rows of the batch.</p>
<div class="card plot map">{svg(plane, facts.score, cutoff)}{_legend(plane)}</div>
</section>"""


def svg(plane: Plane, score: str, cutoff: float | None) -> str:
    """The drawing; `cutoff` is the least value of `score` in the batch."""
    words = [words_of(name) for name in plane.names]
    titles = [f"{each.title} ({each.unit})" if each.unit else each.title for each in words]
    filled, marked = int((plane.pool > 0).sum()), int((plane.batch > 0).sum())
    label = (
        f"{titles[1]} over {titles[0]} of {rows(plane.rows)}, which lie in {amount(filled, 'cell')} of "
        f"{ACROSS * UP}; the batch lies in {marked} of them"
    )
    return "".join(
        [
            f'<svg width="100%" height="{HEIGHT}" role="img" aria-label="{esc(label, 500)}">',
            *(grid_line(HEIGHT * (1 - plane.up.place(value) / FULL), f"{value:.6g}") for value in plane.up.ticks()),
            f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {ACROSS} {UP}" preserveAspectRatio="none">',
            *(f'<path class="level-{i}" d="{path}"/>' for i, path in enumerate(_paths(plane)) if path),
            _cutoff(plane, score, cutoff),
            "</svg>",
            *_marks(plane),
            f'<line class="axis" x1="0" x2="100%" y1="{HEIGHT}" y2="{HEIGHT}"/>',
            ticks_below(plane.across, HEIGHT),
            f'<text class="name" x="-48" y="-18">{esc(titles[1])}</text>',
            f'<text class="name mid" x="50%" y="{HEIGHT + 42}">{esc(titles[0])}</text>',
            "</svg>",
        ]
    )


def edges_of(most: int) -> list[int]:
    """The least rows of a cell of each level, on a logarithmic scale; fewer levels where cells hold few rows."""
    return sorted({round(most ** (i / LEVELS)) for i in range(LEVELS)})


def _paths(plane: Plane) -> list[str]:
    """Of each level its cells, neighbours in a row as one rectangle."""
    levels = np.digitize(plane.pool, edges_of(int(plane.pool.max())))  # 0: no row
    paths: list[list[str]] = [[] for _ in range(LEVELS)]
    for row, line in enumerate(levels[::-1]):  # the largest values are on top
        starts = np.flatnonzero(np.diff(line, prepend=-1))
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), ACROSS], strict=True):
            if line[start]:
                paths[line[start] - 1].append(f"M{start} {row}h{stop - start}v1H{start}z")
    return ["".join(path) for path in paths]


def _marks(plane: Plane) -> list[str]:
    """A disc in each cell with rows of the batch, of an area that grows with their number."""
    most = max(int(plane.batch.max()), 1)
    marks = []
    for row, column in np.argwhere(plane.batch).tolist():
        here = int(plane.batch[row, column])
        radius = LEAST + (MOST - LEAST) * math.sqrt((here - 1) / most)
        x, y = FULL * (column + 0.5) / ACROSS, HEIGHT * (1 - (row + 0.5) / UP)
        said = f"{rows(here)} of the batch, {rows(int(plane.pool[row, column]))} of the pool"
        marks.append(f'<circle cx="{x:.2f}%" cy="{y:.1f}" r="{radius:.1f}"><title>{said}</title></circle>')
    return marks


def _cutoff(plane: Plane, score: str, cutoff: float | None) -> str:
    """Where the score is as in the last row of the batch; in units of cells. Entropy is the sum of the two."""
    if cutoff is None or score not in (*plane.names, "entropy"):
        return ""

    def at(across: float, up: float) -> tuple[float, float]:
        x = ACROSS * (across - plane.across.low) / (plane.across.high - plane.across.low)
        return x, UP * (1 - (up - plane.up.low) / (plane.up.high - plane.up.low))

    if score == plane.names[0]:
        ends = at(cutoff, plane.up.low), at(cutoff, plane.up.high)
    elif score == plane.names[1]:
        ends = at(plane.across.low, cutoff), at(plane.across.high, cutoff)
    else:
        ends = at(plane.across.low, cutoff - plane.across.low), at(cutoff - plane.up.low, plane.up.low)
    (x1, y1), (x2, y2) = ends
    return f'<line class="cutoff" x1="{x1:.3f}" x2="{x2:.3f}" y1="{y1:.3f}" y2="{y2:.3f}"/>'


def _legend(plane: Plane) -> str:
    most = int(plane.pool.max())
    edges = edges_of(most)
    lasts = [*(edge - 1 for edge in edges[1:]), most]
    greys = "".join(
        f'<li><svg width="14" height="14" aria-hidden="true"><path class="level-{i}" d="M0 0h14v14H0z"/></svg>'
        f"{count(first)}{f' to {count(last)}' if last > first else ''}</li>"
        for i, (first, last) in enumerate(zip(edges, lasts, strict=True))
    )
    mark = '<li><svg width="14" height="14" aria-hidden="true"><circle cx="7" cy="7" r="5"/></svg>the batch</li>'
    return f'<ul class="legend"><li>rows in a cell:</li>{greys}{mark}</ul>'
