"""What a driver at work tells in run.json besides the journal: its workers, what they hold, and how fast it goes.

And its events. Written by the driver every few seconds, for `status`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from poolscore.engine.run.observer import Observer

if TYPE_CHECKING:
    from poolscore.engine.run.coordinator import State
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.engine.run.events import RunEvent
    from poolscore.engine.run.limits import Limits

RECENT = 300.0  # seconds over which the pace is taken
SAMPLE = 5.0  # seconds between two samples of it


def at_stage(stage: str, **more: int) -> dict[str, Any]:
    """The entry while no shard is scored: what the driver does instead, in a word, and how far it is."""
    return {"at": round(time.time(), 3), "stage": stage, **more}


class Live:
    """The entry `live` of run.json. The pace counts from the first worker: starting is no part of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()  # time and rows done

    def of(self, state: State) -> dict[str, Any]:
        """To be asked again and again."""
        now, rows = self._clock(), state.totals.rows
        if state.workers and (not self._samples or now - self._samples[-1][0] >= SAMPLE):
            self._samples.append((now, rows))
        while len(self._samples) > 1 and now - self._samples[1][0] >= RECENT:
            self._samples.popleft()
        return {
            "at": round(time.time(), 3),
            "workers": state.workers,
            "in_flight": state.in_flight,
            "retried": state.retried,
            "rows_per_second": self._pace(now, rows),
        }

    def _pace(self, now: float, rows: int) -> float | None:
        """Rows per second of the last minutes; None until a shard is done."""
        if not self._samples:
            return None
        began, before = self._samples[0]
        return round((rows - before) / (now - began), 3) if rows > before and now > began else None


class Keeper(Observer):
    """Keeps run.json up to date."""

    def __init__(self, run: RunDirectory, limits: Limits) -> None:
        self._run, self._limits, self._live = run, limits, Live()

    def event(self, event: RunEvent) -> None:
        self._run.note(event)

    def progress(self, state: State) -> None:
        self._limits.count(state.workers)
        self._run.keep_up(held_seconds=self._limits.spent, live=self._live.of(state))
