"""What moves while something is done: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from poolscore.engine.words import amount
from poolscore.jobs.show.terminal import console, duration, warn

if TYPE_CHECKING:
    from poolscore.engine.pool.plan import Plan
    from poolscore.engine.run.coordinator import State
    from poolscore.engine.run.errands import ErrandState

PLAIN_LINE_EVERY = 10.0  # seconds


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for rows done of rows in all, or a line now and then; gives the function to call with both."""
    with Bars(
        SpinnerColumn(),
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task(what, total=None)
        began = last_line = time.monotonic()
        first: int | None = None

        def update(rows: int, total: int | None) -> None:
            nonlocal last_line, first
            first = rows if first is None else first  # what an earlier try did does not count for the rate
            bars.update(task, completed=rows, total=total)
            now = time.monotonic()
            if not console.is_terminal and now - last_line >= PLAIN_LINE_EVERY:
                last_line = now
                of_all = "" if total is None else f" of {total:,}"
                rate = (rows - first) / (now - began)
                console.print(f"{what}: {rows:,}{of_all} rows  {rate:,.0f} rows/s", soft_wrap=True)

        yield update


class Progress:
    """Rows, rows/s, time left and rejected rows of a run."""

    def __init__(self, plan: Plan) -> None:
        self._rows = plan.rows
        self._first: tuple[float, int] | None = None
        self._last_line = -PLAIN_LINE_EVERY
        self._refused = 0  # workers that were told of
        self._bars = Bars(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows  {task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("starting workers", total=self._rows)

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, state: State) -> None:
        """Called by the run."""
        now = time.monotonic()
        rows = state.totals.rows
        if self._first is None and state.workers:
            self._first = now, rows  # what an earlier call scored does not count for the rate
        for refused in state.refused[self._refused :]:
            warn(f"{refused}; it is not used: its scores would differ in their last bits (run.allow_mixed)")
        self._refused = len(state.refused)
        text = self._describe(state, now)
        self._bars.update(self._task, completed=rows, description=text)
        finished = rows >= self._rows
        if not console.is_terminal and (finished or now - self._last_line >= PLAIN_LINE_EVERY):
            self._last_line = now
            console.print(f"{rows:,} of {self._rows:,} rows  {text}", soft_wrap=True)

    def shortlist(self, state: ErrandState) -> None:
        """Called while the shortlist is made."""
        text = f"shortlist: {state.done:,} of {amount(state.of, 'task')}  {amount(state.workers, 'worker')}"
        self._bars.update(self._task, completed=self._rows, description=text)
        now = time.monotonic()
        if not console.is_terminal and (state.done == state.of or now - self._last_line >= PLAIN_LINE_EVERY):
            self._last_line = now
            console.print(text, soft_wrap=True)

    def _describe(self, state: State, now: float) -> str:
        if self._first is None:
            return "starting workers"
        began, at = self._first
        rate = (state.totals.rows - at) / (now - began) if now > began else 0.0
        left = f"{duration((self._rows - state.totals.rows) / rate)} left" if rate else "…"
        parts = [f"{rate:,.0f} rows/s", left, amount(state.workers, "worker")]
        parts += [f"{state.totals.rejected:,} rejected"] if state.totals.rejected else []
        parts += [f"{state.retried} retried"] if state.retried else []
        parts += [f"{amount(state.set_aside, 'shard')} set aside"] if state.set_aside else []
        parts += [f"{amount(state.bisected, 'shard')} searched for fatal rows"] if state.bisected else []
        return "  ".join(parts)
