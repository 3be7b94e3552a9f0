"""`loop_report.html`: the learning curves of a loop, one self-contained page in the style of a run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from poolscore.jobs.loop.curve import Point, metrics_of
from poolscore.jobs.loop.folders import DONE, RUN, SCORED, TRAINED, Round
from poolscore.jobs.report import REPORT, page
from poolscore.jobs.report.curve import curves_svg
from poolscore.jobs.report.text import count, duration, esc, number

CHARTS = 4  # metrics that have a drawing


@dataclass(frozen=True)
class Told:
    """What the page tells: all of it of the loop as it stands."""

    root: Path
    points: Sequence[Point]
    ended: Mapping[str, str | None]  # 'ARM/seed-S' → why; None: it goes on
    target: str | None  # labels to it, in words
    pool: str
    asked: str  # in words


def html(told: Told) -> str:
    """The whole page; all that comes from users is escaped."""
    return page.page(title=f"poolscore loop: {told.pool}", sections=[_heading(told), _curves(told), _rounds(told)])


def _heading(told: Told) -> str:
    over = all(why is not None for why in told.ended.values())
    state, kind = ("ended", "good") if over else ("goes on", "warn")
    ends = "".join(
        f"<div><dt>{esc(name)}</dt><dd>{esc(why or 'goes on', 500)}</dd></div>" for name, why in told.ended.items()
    )
    target = f"<p><strong>{esc(told.target[0].upper() + told.target[1:], 1000)}</strong></p>" if told.target else ""
    return f"""
<header>
<p class="over">poolscore loop <span class="chip {kind}">{state}</span></p>
<h1>Learning curves</h1>
<p class="lead">From <strong><bdi>{esc(told.pool)}</bdi></strong>: {esc(told.asked, 500)}.</p>
{target}
<dl class="facts">{ends}</dl>
</header>"""


def _curves(told: Told) -> str:
    names = metrics_of(told.points)
    seeds = len({point.seed for point in told.points})
    band = " The line is the mean over the seeds as far as all have come, the band goes from the least to the largest."
    lead = (
        f"Each point is a model, trained on the labels so far.{band * (seeds > 1)}"
        if names
        else "The training returned no metrics."
    )
    charts = "".join(curves_svg(_points_of(told, name), "labels", name) for name in names[:CHARTS])
    more = f"<p>Further metrics are in curve.csv: {esc(', '.join(names[CHARTS:]), 500)}.</p>" if names[CHARTS:] else ""
    return f"""
<section aria-labelledby="curves">
<h2 id="curves">Quality over labels</h2>
<p class="lead">{lead}</p>
{charts}{more}
</section>"""


def _points_of(told: Told, metric: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Arm → seed → (labels, metric)."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for point in told.points:
        if metric in point.metrics:
            seeds = curves.setdefault(point.arm, {})
            seeds.setdefault(str(point.seed), []).append((point.labels, point.metrics[metric]))
    return curves


def _rounds(told: Told) -> str:
    names = metrics_of(told.points)
    heads = "".join(f'<th scope="col" class="num">{esc(name)}</th>' for name in ("round", "labels", *names))
    lines = "".join(_line(told, point, names) for point in told.points)
    return f"""
<section aria-labelledby="rounds">
<h2 id="rounds">Rounds</h2>
<div class="card scroll tall" tabindex="0" role="region" aria-label="Rounds"><table>
<thead><tr><th scope="col">arm, seed</th>{heads}<th scope="col" class="num">trained in</th>
<th scope="col" class="num">batch</th><th scope="col">run</th></tr></thead>
<tbody>{lines}</tbody></table></div>
</section>"""


def _line(told: Told, point: Point, names: Sequence[str]) -> str:
    at = Round(told.root, point.arm, point.seed, point.round)
    done, there = at.read(DONE) or {}, at.path(RUN) / REPORT
    batch = done.get("batch")
    answered = f"{count(batch['labelled'])} of {count(batch['rows'])} labelled" if batch else "–"
    look = at.read(SCORED) or {}
    note = " (look at it)" if look.get("exit_code") else ""
    link = f'<a href="{esc(quote(f"{at.place}/{RUN}/{REPORT}"), 1000)}">report</a>{note}' if there.exists() else "–"
    values = "".join(
        f'<td class="num">{number(point.metrics[name]) if name in point.metrics else "–"}</td>' for name in names
    )
    trained = (at.read(TRAINED) or {}).get("seconds")
    return (
        f'<tr><th scope="row">{esc(point.arm)}, {point.seed}</th><td class="num">{point.round}</td>'
        f'<td class="num">{count(point.labels)}</td>{values}'
        f'<td class="num">{duration(trained) if trained is not None else "–"}</td>'
        f'<td class="num">{answered}</td><td>{link}</td></tr>'
    )
