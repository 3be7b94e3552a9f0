"""Who is told what a run does: its directory, the log, metrics. The coordinator knows no more of them than this."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from poolscore.engine import log

if TYPE_CHECKING:
    from poolscore.engine.run.coordinator import State
    from poolscore.engine.run.events import RunEvent
    from poolscore.engine.run.journal import ShardReport


class Observer:
    """Does nothing with what it is told. Called on one thread; must not take long."""

    def report(self, report: ShardReport) -> None:
        """A shard counts from now on."""

    def event(self, event: RunEvent) -> None:
        """Something happened."""

    def progress(self, state: State) -> None:
        """How far the run is: after each change, and about once a second."""

    def end(self) -> None:
        """No more shard is scored in this call."""


class Together(Observer):
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def report(self, report: ShardReport) -> None:
        for observer in self._observers:
            observer.report(report)

    def event(self, event: RunEvent) -> None:
        for observer in self._observers:
            observer.event(event)

    def progress(self, state: State) -> None:
        for observer in self._observers:
            observer.progress(state)

    def end(self) -> None:
        for observer in self._observers:
            observer.end()


class ShardLines(Observer):
    """A line of the log for each shard that counts."""

    def report(self, report: ShardReport) -> None:
        rejected = f", {report.rejected:,} rejected" if report.rejected else ""
        took = f"in {report.seconds:.1f} s by {report.worker}"
        log.event(
            logging.INFO,
            f"shard {report.shard}: {report.scored:,} rows scored{rejected} {took}",
            event="scored",
            shard=report.shard,
            by=report.worker,
            scored=report.scored,
            rejected=report.rejected,
            seconds=round(report.seconds, 3),
        )
