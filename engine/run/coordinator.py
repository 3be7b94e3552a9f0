"""Steps 2 and 6: hand out shards, believe the first report of each, journal it. Knows no Ray."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from poolscore.engine.errors import ConfigError, PoolscoreError
from poolscore.engine.pool.plan import Shard
from poolscore.engine.run.admission import Admission
from poolscore.engine.run.bad_rows import BadRows
from poolscore.engine.run.bisect import Bisections
from poolscore.engine.run.blame import ATTEMPTS, Blame
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.fleet import Done, Event, Failed, Fleet, Joined, Leaving, Lost
from poolscore.engine.run.journal import Journal, ShardReport
from poolscore.engine.run.leases import Leases
from poolscore.engine.run.mixed import Profile
from poolscore.engine.run.shard_queue import ShardQueue
from poolscore.engine.run.suspects import Suspects
from poolscore.engine.run.task import ScoreShard, Task
from poolscore.engine.run.totals import Totals

TICK = 1.0  # seconds between signs of life
DRAIN = 600.0  # seconds that shards at work are waited for once no further one is to be handed out


@dataclass(frozen=True)
class State:
    """How far the run is; handed to the progress display."""

    totals: Totals
    workers: int
    in_flight: int
    retried: int
    set_aside: int
    bisected: int = 0  # shards that are searched for the rows that make them fail
    refused: tuple[str, ...] = ()  # why, of each worker that is not used


class Coordinator:
    """Hands the shards of a run to a fleet until each is scored or set aside."""

    def __init__(
        self,
        fleet: Fleet,
        journal: Journal,
        done: Totals,
        pool_rows: int,
        max_bad_fraction: float,
        max_bad_rows: int | None,
        profile: Profile | None,
        on_profile: Callable[[Profile], None],
        on_progress: Callable[[State], None],
        on_event: Callable[[RunEvent], None] = lambda event: None,
        on_report: Callable[[ShardReport], None] = lambda report: None,
        shard_timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        stop_when: Callable[[], str | None] = lambda: None,
        allow_mixed: bool = False,
    ) -> None:
        self._fleet = fleet
        self._journal = journal
        self._totals = done
        self._bad_rows = BadRows(pool_rows, max_bad_fraction, max_bad_rows)
        self._admission = Admission(profile, allow_mixed, fleet.expected, on_profile, clock)
        self._on_progress = on_progress
        self._on_event = on_event
        self._on_report = on_report
        self._clock, self._looked = clock, clock()
        self._leases = Leases(shard_timeout, clock)
        self._bisections = Bisections(ATTEMPTS)
        self._suspects = Suspects()
        self._queue = ShardQueue(self._leases, self._bisections, self._suspects)
        self._blame = Blame(self._queue, self._bisections, self._suspects, bool(done.shards), on_event)
        self._slow: list[Task] = []  # wanted a second time
        self._stop_when = stop_when
        self.stopped: str | None = None  # why the rest of the shards is left
        self._drained_by = math.inf
        self._workers: set[int] = set()
        self._events: deque[Event] = deque()  # that are to be heard, and the one that is

    @property
    def totals(self) -> Totals:
        """Sums over all finished shards of the run."""
        return self._totals

    def run(self, shards: Sequence[Shard], seed: int) -> Mapping[int, str]:
        """Score the shards, in an order shuffled by the seed, so that an unfinished run is a random part of the pool.

        Once `stop_when` gives a reason, which `stopped` tells then, no further shard is handed out.

        Returns:
            shard → reason, for those that were set aside.

        Raises:
            PoolscoreError: the job cannot go on; see `errors.py`.
        """
        self._bad_rows.require_few(self._totals)  # a run that was stopped for them stops again, unless more are allowed
        self._queue.fill(shards, seed)
        try:
            while self._queue.waiting or (self._queue.unfinished and self._clock() < self._drained_by):
                self._hand_out()
                self._events.extend(self._fleet.wait(TICK))
                self._believe(self._events)
                while self._events:
                    self._hear(self._events[0])
                    self._events.popleft()
                self._admit()
                self._look_for_late()
                self._on_progress(self._state())
        except KeyboardInterrupt:
            self._save()
            raise
        self._blame.require_a_score()
        return self._blame.set_aside

    def _hear(self, event: Event) -> None:
        match event:
            case Joined(worker, profile):
                self._admission.join(worker, profile)
            case Leaving(worker, reason):
                self._leases.leave(worker)
                self._slow = self._leases.slow()
                self._on_event(RunEvent("leaving", worker, why=reason))
            case Done(ScoreShard() as task):
                self._credit(self._leases.take_back(task, finished=True), task)
            case Done(task):
                self._credit(self._leases.take_back(task, finished=False), task)
                self._blame.judge(self._bisections.lived(task))
            case Failed(task, reason, hopeless, of_row):
                holder = self._leases.take_back(task, finished=False)
                if isinstance(task, ScoreShard):  # trials of a search fail by design
                    self._on_event(RunEvent("failed", holder, task.shard.index, reason))
                self._suspect(holder, task)
                self._blame.failed(task, reason, of_row)
                self._blame.require_hope(task.shard, reason, hopeless)
            case Lost():
                self._mourn(event)

    def _hand_out(self) -> None:
        if self.stopped is None and (reason := self._stop_when()) is not None:
            self.stopped, self._drained_by = reason, self._clock() + DRAIN
        if self.stopped is not None:
            self._queue.clear()
            return
        while any(self._gave(worker) for worker in self._fleet.free() if worker in self._workers):
            pass

    def _gave(self, worker: int) -> bool:
        """Give a worker something to do; False: there is nothing for it."""
        if not self._suspects.may_work(worker, self._workers):
            return False
        task = self._copy_for(worker, self._slow)
        if task is None and self._queue.waiting:
            task = self._queue.next_for(worker, self._workers)
        if task is None and self._leases.is_idle(worker):
            task = self._copy_for(worker, self._leases.unfinished())
        if task is None:
            return False
        self._leases.give(worker, task)
        self._fleet.submit(worker, task)
        return True

    def _copy_for(self, worker: int, wanted: Sequence[Task]) -> Task | None:
        task = self._queue.copy_for(worker, wanted)
        if task is not None:
            self._on_event(RunEvent("copied", worker, task.shard.index))
        return task

    def _look_for_late(self) -> None:
        if self._clock() - self._looked < TICK:
            return
        self._looked = self._clock()
        self._slow = self._leases.slow()
        for worker, why in self._leases.hung():
            self._on_event(RunEvent("killed", worker, why=why))
            self._fleet.kill(worker, why)

    def _believe(self, events: Iterable[Event]) -> None:
        """Make the results of shards count, the first of each, by one record: what came while the last was written."""
        reports: dict[int, ShardReport] = {}
        for event in events:
            if isinstance(event, Done) and isinstance(event.task, ScoreShard):
                reports.setdefault(event.result.shard, event.result)
        new = [report for shard, report in reports.items() if shard not in self._queue.finished]
        if not new:
            return
        self._journal.append(*new)
        for report in new:
            self._queue.finished.add(report.shard)
            self._blame.scored(report.shard)
            self._totals = self._totals.plus(report)
            self._on_report(report)
        self._bad_rows.require_few(self._totals)

    def _save(self) -> None:
        """The run is interrupted: what workers have done counts, and nobody waits for more."""
        self._journal.hurry()
        with suppress(PoolscoreError):  # that it was interrupted is what is told
            self._believe([*self._events, *self._fleet.last()])  # some perhaps a second time, which is harmless

    def _admit(self) -> None:
        """Take the workers of the run's numeric profile, then refuse the others: these may be the last."""
        judged = self._admission.judge()
        for worker in (worker for worker, different in judged.items() if different is None):
            self._on_event(RunEvent("joined", worker))
            self._workers.add(worker)
        self._blame.most_workers = max(self._blame.most_workers, len(self._workers))
        for worker, different in judged.items():
            if different is not None:
                self._refuse(worker, different)

    def _refuse(self, worker: int, different: str) -> None:
        """Let a worker go whose scores would differ in their last bits; the others go on."""
        why = f"worker {worker} has another numeric profile than this run: {different}"
        self._admission.refused.append(why)
        self._on_event(RunEvent("refused", worker, why=why))
        if not self._fleet.refuse(worker) and not self._workers:
            raise ConfigError(
                f"no worker has the numeric profile of this run; the last differs in {different}: use machines of the "
                "kind that it began on, another run.dir, or run.allow_mixed=true"
            )

    def _mourn(self, lost: Lost) -> None:
        self._workers.discard(lost.worker)
        self._admission.lose(lost.worker)
        self._suspects.gone(lost.worker)
        self._leases.lose(lost.worker)
        self._on_event(RunEvent("lost", lost.worker, lost.running.shard.index if lost.running else None, lost.reason))
        for task in reversed(lost.waiting):
            self._queue.put_back(task)
        if lost.running is not None:
            self._suspects.blamed.add(lost.worker)
            self._blame.failed(lost.running, f"its worker died: {lost.reason}", of_row=True, died=True)

    def _credit(self, worker: int | None, task: Task) -> None:
        """A worker did what it was given; others may have failed at it."""
        if worker is None:
            return
        self._suspects.did(worker, task.shard.index, whole=isinstance(task, ScoreShard))
        for sick, shards in self._suspects.sick().items():
            why = f"it failed on {len(shards)} shards that others scored"
            self._on_event(RunEvent("killed", sick, why=why))
            self._suspects.gone(sick)
            self._workers.discard(sick)
            self._fleet.kill(sick, why)

    def _suspect(self, worker: int | None, task: Task) -> None:
        """A worker failed. What a suspect failed on is first in line, so that another soon shows who is to blame."""
        if worker is None:
            return
        self._suspects.failed(worker, task.shard.index)
        if self._suspects.is_suspect(worker):
            self._queue.prefer(self._suspects.shards_of(worker))

    def _state(self) -> State:
        return State(
            totals=self._totals,
            workers=len(self._workers) + len(self._admission.waiting),
            in_flight=self._leases.count,
            retried=self._blame.failures,
            set_aside=len(self._blame.set_aside),
            bisected=len(self._bisections),
            refused=tuple(self._admission.refused),
        )
