"""The histogram of the selecting score, as inline SVG, and the table of the other scores.

Widths are percentages and heights pixels, so that the text keeps its size on a narrow screen.
"""

from __future__ import annotations

import math

from poolscore.jobs.report.axes import FULL, Axis
from poolscore.jobs.report.distribution import Distribution, Spread
from poolscore.jobs.report.facts import Facts
from poolscore.jobs.report.text import count, esc, number, percent, rows
from poolscore.jobs.report.words import words_of

HEIGHT = 240  # pixels
FLOOR = 0.35  # decades below one row, so that a single row can be seen


def section(facts: Facts, distribution: Distribution) -> str:
    """Where the batch comes from."""
    spread = distribution.spreads.get(facts.score)
    if spread is None:
        return ""
    cutoff = facts.selection.cutoff if facts.selection else None
    selected = facts.selection.rows if facts.selection else 0
    return f"""
<section aria-labelledby="scores">
<h2 id="scores">Scores over the pool</h2>
<p class="lead">{_lead(facts.score, spread, cutoff, selected)}</p>
<div class="card plot">{svg(facts.score, spread, cutoff, selected)}</div>
<details>
<summary>All scores of this run</summary>
{_table(distribution, facts.score)}
</details>
</section>"""


def svg(score: str, spread: Spread, cutoff: float | None, selected: int) -> str:
    """The drawing; `cutoff` is the score of the last of `selected` rows."""
    words = words_of(score)
    unit = f" ({words.unit})" if words.unit else ""
    top = max(int(spread.drawn.max()), 1)
    label = f"Histogram of {words.title} over {rows(spread.rows)}, counts on a logarithmic axis"
    return "".join(
        [
            f'<svg width="100%" height="{HEIGHT}" role="img" aria-label="{esc(label)}">',
            *(_count_tick(value, top) for value in _count_ticks(top)),
            *_bars(spread, cutoff, top),
            f'<line class="axis" x1="0" x2="100%" y1="{HEIGHT}" y2="{HEIGHT}"/>',
            *(_score_tick(value, spread.axis) for value in spread.axis.ticks()),
            _cutoff(spread, cutoff, selected, words.unit),
            '<text class="name" x="-48" y="-30">rows, log scale</text>',
            f'<text class="name mid" x="50%" y="{HEIGHT + 42}">{esc(words.title)}{esc(unit)}</text>',
            "</svg>",
        ]
    )


def _lead(score: str, spread: Spread, cutoff: float | None, selected: int) -> str:
    words = words_of(score)
    text = f"<strong>{esc(words.title)}</strong>"
    if words.meaning:
        text += f": {esc(words.meaning)}"
    text += f". The median over {rows(spread.rows)} is about {spread.median:.3g}"
    if cutoff is not None:
        text += f"; the batch begins at {number(cutoff)}, the upper {percent(selected, spread.rows)} of what was scored"
    return text + "."


def _bars(spread: Spread, cutoff: float | None, top: int) -> list[str]:
    """One bar a bin; the one that the cut-off falls into is drawn in two colours."""
    drawn = spread.drawn
    width = FULL / len(drawn)
    at = FULL + 1 if cutoff is None else spread.axis.place(cutoff)
    bars = []
    for i, rows_in_bin in enumerate(drawn.tolist()):
        if not rows_in_bin:
            continue
        left, right = i * width, (i + 1) * width
        middle = min(max(at, left), right)
        y = _y(rows_in_bin, top)
        low, high = (spread.low + (spread.high - spread.low) * edge / len(drawn) for edge in (i, i + 1))
        parts = [("pool", left, middle), ("batch", middle, right)]
        rects = "".join(
            f'<rect class="{kind}" x="{x:.3f}%" y="{y:.1f}" width="{end - x:.3f}%" height="{HEIGHT - y:.1f}"/>'
            for kind, x, end in parts
            if end > x
        )
        bars.append(f"<g><title>{number(low)} to {number(high)}: {rows(rows_in_bin)}</title>{rects}</g>")
    return bars


def _cutoff(spread: Spread, cutoff: float | None, selected: int, unit: str) -> str:
    if cutoff is None:
        return ""
    x = spread.axis.place(cutoff)
    side = "start" if x < FULL / 3 else "mid" if x < FULL * 2 / 3 else "end"
    label = f"cut-off {number(cutoff)}{' ' + unit if unit == 'nats' else ''}, row {count(selected)}"
    return (
        f'<line class="cutoff" x1="{x:.3f}%" x2="{x:.3f}%" y1="-6" y2="{HEIGHT}"/>'
        f'<text class="cutoff {side}" x="{x:.3f}%" y="-12">{esc(label)}</text>'
    )


def _count_tick(value: int, top: int) -> str:
    y = _y(value, top)
    return (
        f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="end" x="-8" y="{y + 4:.1f}">{count(value)}</text>'
    )


def _count_ticks(top: int) -> list[int]:
    """Powers of ten; with 2 and 5 between them where there are few."""
    steps = (1, 2, 5) if top < 100 else (1,)
    return [step * 10**power for power in range(12) for step in steps if step * 10**power <= top]


def _score_tick(value: float, axis: Axis) -> str:
    x = axis.place(value)
    return (
        f'<line class="axis" x1="{x:.3f}%" x2="{x:.3f}%" y1="{HEIGHT}" y2="{HEIGHT + 5}"/>'
        f'<text class="mid" x="{x:.3f}%" y="{HEIGHT + 20}">{value:.6g}</text>'
    )


def _y(value: int, top: int) -> float:
    return HEIGHT * (1 - (math.log10(value) + FLOOR) / (math.log10(top) + FLOOR))


def _table(distribution: Distribution, score: str) -> str:
    lines = []
    for name, spread in distribution.spreads.items():
        words = words_of(name)
        chosen = ' class="chosen"' if name == score else ""
        unit = f" <small>{esc(words.unit)}</small>" if words.unit else ""
        numbers = "".join(
            f'<td class="num">{v}</td>'
            for v in (number(spread.least), f"{spread.median:.3g}", number(spread.mean), number(spread.most))
        )
        lines.append(
            f'<tr{chosen}><th scope="row">{esc(words.title)}{unit}</th>{numbers}<td>{esc(words.meaning)}</td></tr>'
        )
    heads = "".join(f'<th scope="col" class="num">{name}</th>' for name in ("min", "median, about", "mean", "max"))
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="All scores">
<table><thead><tr><th scope="col">score</th>{heads}<th scope="col">what it says</th></tr></thead>
<tbody>{"".join(lines)}</tbody></table></div>"""
