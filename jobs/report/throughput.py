"""How fast the run went: over time, and each worker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.words import amount
from poolscore.engine.worker import stages
from poolscore.jobs.report.axes import FULL, Axis, grid_line, ticks_below
from poolscore.jobs.report.facts import Facts
from poolscore.jobs.report.pace import SLICES, Pace, WorkerPace, pace_of, workers_of
from poolscore.jobs.report.text import count, duration, esc, number, rows

HEIGHT, LOW = 140, 50  # pixels: of rows per second, and of workers
UNITS = ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0)
LINES = 24  # workers in the table
PAUSES = 20  # that are drawn
NAME = 60  # characters of a worker's name
SLOW = 0.5  # of the median's rows per second: such workers are pointed out


def section(facts: Facts) -> str:
    """Both; nothing where nothing is scored."""
    workers = workers_of(facts.reports.values())
    if not workers:
        return ""
    pace = pace_of(facts.reports.values())
    return f"""
<section aria-labelledby="throughput">
<h2 id="throughput">Throughput</h2>
<p class="lead">{_lead(facts, pace, workers)}</p>
{"" if pace is None else drawing(pace)}
{_table(workers)}
</section>"""


def drawing(pace: Pace) -> str:
    """Rows per second over time and, where there were several, the workers that were at work."""
    unit, seconds = next((u for u in UNITS if pace.seconds >= 2 * u[1]), UNITS[-1])
    label = f"Rows per second of all workers over {duration(pace.seconds)}; at most {_rate(pace.rows_per_second.max())}"
    several = bool(pace.workers.max() > 1.5)
    top = LOW + 40 if several else 0  # pixels: where the rows begin
    parts = [
        f'<div class="card plot"><svg width="100%" height="{top + HEIGHT}" role="img" aria-label="{esc(label, 500)}">',
        _bars(pace, pace.workers, 0, LOW, "workers at work") if several else "",
        _bars(pace, pace.rows_per_second, top, HEIGHT, "rows/s"),
        *(_pause(at, length, pace.seconds, top + HEIGHT) for at, length in pace.pauses[:PAUSES]),
        ticks_below(Axis(0.0, pace.seconds / seconds), top + HEIGHT),
        f'<text class="name mid" x="50%" y="{top + HEIGHT + 42}">{unit} at work</text></svg></div>',
    ]
    return "".join(parts)


def _lead(facts: Facts, pace: Pace | None, workers: Sequence[WorkerPace]) -> str:
    told = []
    if pace is not None:
        at_work = rows(round(float(pace.rows_per_second.mean() * pace.seconds)))
        told.append(f"{at_work} in {duration(pace.seconds)}, {_rate(float(pace.rows_per_second.mean()))} rows/s")
    if pace is not None and pace.pauses:
        told.append(f"{amount(len(pace.pauses), 'pause')} left out, {duration(sum(s for _, s in pace.pauses))} in all")
    if pace is None:
        told.append("An older version wrote this run, and did not note when its shards were scored")
    elif pace.unknown:
        told.append(f"{amount(pace.unknown, 'shard')} of an older version, without a time, not drawn")
    if (timed := stages.in_words(facts.totals.stages)) is not None:
        told.append(f"Stages: {timed}")
    return esc(". ".join(told) + ".", 1000)


def _bars(pace: Pace, values: NDArray[np.float64], top: int, height: int, name: str) -> str:
    """A bar for each slice, from `top` pixels on."""
    most = float(values.max()) or 1.0
    width, low = FULL / SLICES, top + height
    ticks = [tick for tick in Axis(0.0, most).ticks(3) if tick]
    grid = "".join(grid_line(low - height * tick / most, f"{tick:.6g}") for tick in ticks)
    bars = "".join(
        f"<g><title>{_when(pace, i)}: {_rate(value)} {name}</title>"
        f'<rect class="pace" x="{i * width:.3f}%" y="{low - height * value / most:.1f}" '
        f'width="{width:.3f}%" height="{height * value / most:.1f}"/></g>'
        for i, value in enumerate(values.tolist())
        if value > 0
    )
    axis = f'<line class="axis" x1="0" x2="100%" y1="{low}" y2="{low}"/>'
    return f'{grid}{bars}{axis}<text class="name" x="-48" y="{top - 14}">{name}</text>'


def _rate(value: float) -> str:
    return count(round(value)) if value >= 100 else number(value)


def _when(pace: Pace, i: int) -> str:
    return f"{duration(pace.seconds * i / SLICES)} to {duration(pace.seconds * (i + 1) / SLICES)}"


def _pause(at: float, length: float, whole: float, height: int) -> str:
    x = FULL * at / whole
    return (
        f"<g><title>pause of {duration(length)}</title>"
        f'<line class="cutoff" x1="{x:.3f}%" x2="{x:.3f}%" y1="0" y2="{height}"/></g>'
    )


def _table(workers: Sequence[WorkerPace]) -> str:
    """The slowest first: one that is much slower than the others holds up the end of the run."""
    fastest = workers[-1].rows_per_second or 1.0
    median = workers[len(workers) // 2].rows_per_second
    lines = "".join(_line(worker, fastest, worker.rows_per_second < SLOW * median) for worker in workers[:LINES])
    left = len(workers) - LINES
    more = f'<p class="muted">and {count(left)} faster ones.</p>' if left > 0 else ""
    return f"""<div class="card scroll" tabindex="0" role="region" aria-label="Workers">
<table class="balance workers"><thead><tr><th scope="col">worker, slowest first</th><td></td>
<th scope="col" class="num">rows/s</th><th scope="col" class="num">rows</th>
<th scope="col" class="num">shards</th><th scope="col" class="num">at work</th></tr>
</thead><tbody>{lines}</tbody></table></div>
{more}"""


def _line(worker: WorkerPace, fastest: float, slow: bool) -> str:
    width = FULL * worker.rows_per_second / fastest
    note = ' <span class="chip warn">slow</span>' if slow else ""
    numbers = (_rate(worker.rows_per_second), count(worker.rows), count(worker.shards), duration(worker.seconds))
    cells = "".join(f'<td class="num">{text}</td>' for text in numbers)
    return (
        f'<tr><th scope="row"><bdi>{esc(worker.name, NAME)}</bdi>{note}</th>'
        f'<td class="bars"><span class="bar pool" style="width:{width:.2f}%"></span></td>{cells}</tr>'
    )
