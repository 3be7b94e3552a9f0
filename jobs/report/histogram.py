"""The histogram of the selecting score, as inline SVG, and small ones of the other scores with their table."""

from __future__ import annotations

import math

from poolscore.jobs.report.axes import FULL, grid_line, ticks_below
from poolscore.jobs.report.distribution import Distribution, Spread
from poolscore.jobs.report.facts import Facts
from poolscore.jobs.report.text import count, esc, key, number, percent, rows, short
from poolscore.jobs.report.words import words_of

HEIGHT, SMALL = 240, 90  # pixels
LEFT, RIGHT = 20, 60  # percent: where the name of the cut-off changes sides
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
<ul class="small plot">{"".join(small(*one) for one in distribution.spreads.items() if one[0] != facts.score)}</ul>
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
            *(grid_line(_y(value, top, HEIGHT), short(value)) for value in _count_ticks(top)),
            *_bars(spread, top, HEIGHT),
            f'<line class="axis" x1="0" x2="100%" y1="{HEIGHT}" y2="{HEIGHT}"/>',
            ticks_below(spread.axis, HEIGHT),
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
        text += f"; the batch, {percent(selected, spread.rows)} of what was scored, reaches down to {number(cutoff)}"
    return f"{text}. Rows of {key('pool', 'the pool')}, and of them {key('batch', 'the batch')}."


def _bars(spread: Spread, top: int, height: int) -> list[str]:
    """A bar a bin, before it one of the batch's rows in it; they are counted from the same ground."""
    width = FULL / len(spread.batch)
    bars = []
    for i, (of_pool, of_batch) in enumerate(zip(spread.drawn.tolist(), spread.batch.tolist(), strict=True)):
        if not of_pool:
            continue
        low, high = (spread.low + (spread.high - spread.low) * edge / len(spread.batch) for edge in (i, i + 1))
        said = f"{number(low)} to {number(high)}: {rows(of_pool)}"
        said += f", {count(of_batch)} of the batch" if of_batch else ""
        rects = ""
        for kind, here in (("pool", of_pool), ("batch", of_batch)):
            if here:
                y = _y(here, top, height)
                at = f'x="{i * width:.3f}%" y="{y:.1f}" width="{width:.3f}%" height="{height - y:.1f}"'
                rects += f'<rect class="{kind}" {at}/>'
        bars.append(f"<g><title>{said}</title>{rects}</g>")
    return bars


def _cutoff(spread: Spread, cutoff: float | None, selected: int, unit: str) -> str:
    if cutoff is None:
        return ""
    x = spread.axis.place(cutoff)
    side = "start" if x < LEFT else "mid" if x < RIGHT else "end"  # of the line, so that it fits narrow screens
    label = f"cut-off {number(cutoff)}{' ' + unit if unit == 'nats' else ''}, row {count(selected)}"
    return (
        f'<line class="cutoff" x1="{x:.3f}%" x2="{x:.3f}%" y1="-6" y2="{HEIGHT}"/>'
        f'<text class="cutoff {side}" x="{x:.3f}%" y="-12">{esc(label)}</text>'
    )


def _count_ticks(top: int) -> list[int]:
    """Powers of ten; with 2 and 5 between them where there are few."""
    steps = (1, 2, 5) if top < 100 else (1,)
    return [step * 10**power for power in range(12) for step in steps if step * 10**power <= top]


def _y(value: int, top: int, height: int) -> float:
    return height * (1 - (math.log10(value) + FLOOR) / (math.log10(top) + FLOOR))


def small(score: str, spread: Spread) -> str:
    """A score beside those that the batch was selected by."""
    words = words_of(score)
    top = max(int(spread.drawn.max()), 1)
    unit = f" <small>{esc(words.unit)}</small>" if words.unit else ""
    return "".join(
        [
            f'<li class="card"><h3>{esc(words.title)}{unit}</h3>',
            f'<svg width="100%" height="{SMALL + 24}" role="img" aria-label="Histogram of {esc(words.title)}">',
            *_bars(spread, top, SMALL),
            f'<line class="axis" x1="0" x2="100%" y1="{SMALL}" y2="{SMALL}"/>',
            ticks_below(spread.axis, SMALL, 4),
            "</svg></li>",
        ]
    )


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
