"""Steps 2 and 6: hand out shards, believe the first report of each, journal it. Knows no Ray."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.pool.plan import Shard
from poolscore.engine.run.bisect import Bisections, Verdict
from poolscore.engine.run.directory import Totals
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.fleet import Done, Event, Failed, Fleet, Joined, Leaving, Lost
from poolscore.engine.run.journal import Journal, ShardReport
from poolscore.engine.run.leases import Leases
from poolscore.engine.run.mixed import Profile, differences, profile_name
from poolscore.engine.run.suspects import Suspects
from poolscore.engine.run.task import ScoreShard, Task

ATTEMPTS = 3  # a shard that fails or kills its worker so often is bisected or set aside
TICK = 1.0  # seconds between signs of life
DRAIN = 600.0  # seconds that shards at work are waited for once no further one is to be handed out
ENOUGH_SHARDS = 10  # finished, before bad rows in half of them are taken for a misconfigured job


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
        self._pool_rows = pool_rows
        self._max_bad_fraction = max_bad_fraction
        self._max_bad_rows = max_bad_rows
        self._profile = profile
        self._on_profile = on_profile
        self._allow_mixed = allow_mixed
        self._refused: list[str] = []
        self._profiles = {profile_name(profile)} if profile is not None else set[str]()  # told of
        self._on_progress = on_progress
        self._on_event = on_event
        self._on_report = on_report
        self._clock, self._looked = clock, clock()
        self._leases = Leases(shard_timeout, clock)
        self._slow: list[Task] = []  # wanted a second time
        self._queue: deque[Task] = deque()
        self._stop_when = stop_when
        self.stopped: str | None = None  # why the rest of the shards is left
        self._drained_by = math.inf
        self._finished: set[int] = set()
        self._failures: dict[int, list[str]] = {}
        self._workers: set[int] = set()
        self._most_workers = 0  # at one time
        self._set_aside: dict[int, str] = {}
        self._bisections = Bisections(ATTEMPTS)
        self._suspects = Suspects()

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
        self._require_mostly_good()  # a run that was stopped for its bad rows stops again, unless the limit was raised
        order = list(shards)
        random.Random(seed).shuffle(order)
        self._queue.extend(ScoreShard(shard) for shard in order)
        while self._waiting() or (self._leases.shards - self._finished and self._clock() < self._drained_by):
            self._hand_out()
            for event in self._fleet.wait(TICK):
                self._hear(event)
            self._look_for_late()
            self._on_progress(self._state())
        if self._set_aside and not self._totals.shards:
            index, reason = list(self._set_aside.items())[-1]
            raise StoppedError(f"no shard could be scored; shard {index} failed last: {reason}")
        return self._set_aside

    def _hear(self, event: Event) -> None:
        match event:
            case Joined(worker, profile):
                self._welcome(worker, profile)
            case Leaving(worker, reason):
                self._leases.leave(worker)
                self._slow = self._leases.slow()
                self._on_event(RunEvent("leaving", worker, why=reason))
            case Done(ScoreShard() as task, result):
                self._credit(self._leases.take_back(task, finished=True), task)
                self._believe(result)
            case Done(task):
                self._credit(self._leases.take_back(task, finished=False), task)
                self._judge(self._bisections.lived(task))
            case Failed(task, reason, hopeless, of_row):
                worker = self._leases.take_back(task, finished=False)
                if isinstance(task, ScoreShard):  # trials of a search fail by design
                    self._on_event(RunEvent("failed", worker, task.shard.index, reason))
                self._suspect(worker, task)
                self._blame(task, reason, of_row)
                self._require_hope(task.shard, reason, hopeless)
            case Lost():
                self._mourn(event)

    def _hand_out(self) -> None:
        if self.stopped is None and (reason := self._stop_when()) is not None:
            self.stopped, self._drained_by = reason, self._clock() + DRAIN
        if self.stopped is not None:
            self._queue.clear()
            self._bisections.stop()
            return
        while any(self._gave(worker) for worker in self._fleet.free()):
            pass

    def _gave(self, worker: int) -> bool:
        """Give a worker something to do; False: there is nothing for it."""
        if not self._suspects.may_work(worker, self._workers):
            return False
        task = self._copy_for(worker, self._slow)
        if task is None and self._waiting():
            task = self._next_for(worker)
        if task is None and self._leases.is_idle(worker):
            task = self._copy_for(worker, self._leases.unfinished())
        if task is None:
            return False
        self._leases.give(worker, task)
        self._fleet.submit(worker, task)
        return True

    def _next_for(self, worker: int) -> Task | None:
        """What a worker is given next: nothing of a shard that it failed on, where others may have that."""

        def may_have(shard: int) -> bool:
            return self._suspects.may_have(worker, shard, self._workers)

        if (trial := self._bisections.next(bool(self._queue), may_have)) is not None:
            return trial
        for i, task in enumerate(self._queue):
            if may_have(task.shard.index):
                del self._queue[i]
                return task
        return None

    def _copy_for(self, worker: int, wanted: Sequence[Task]) -> Task | None:
        """A shard that another worker has, and this one is to score as well; the first report counts."""
        for task in wanted:
            shard = task.shard.index
            alone = self._leases.holders(shard) == 1 and not self._leases.has(worker, shard)
            if alone and shard not in self._finished and isinstance(task, ScoreShard):
                self._on_event(RunEvent("copied", worker, shard))
                return copy(task)
        return None

    def _look_for_late(self) -> None:
        if self._clock() - self._looked < TICK:
            return
        self._looked = self._clock()
        self._slow = self._leases.slow()
        for worker, why in self._leases.hung():
            self._on_event(RunEvent("killed", worker, why=why))
            self._fleet.kill(worker, why)

    def _waiting(self) -> bool:
        """Whether a task waits to be handed out. A shard whose report came from a worker given up does not."""
        while self._queue and self._queue[0].shard.index in self._finished:
            self._queue.popleft()
        return bool(self._queue) or self._bisections.waiting

    def _believe(self, report: ShardReport) -> None:
        """Make a shard's result count, unless one already does."""
        if report.shard in self._finished:
            return
        self._finished.add(report.shard)
        self._bisections.drop(report.shard)
        self._set_aside.pop(report.shard, None)
        self._journal.append(report)
        self._totals = self._totals.plus(report)
        self._on_report(report)
        self._require_mostly_good()

    def _welcome(self, worker: int, profile: Profile) -> None:
        if self._profile is None:
            self._profile = profile
        different = differences(profile, self._profile)
        if different and not self._allow_mixed:
            self._refuse(worker, ", ".join(different))
            return
        if (name := profile_name(profile)) not in self._profiles:
            self._profiles.add(name)
            self._on_profile(profile)
        self._on_event(RunEvent("joined", worker))
        self._workers.add(worker)
        self._most_workers = max(self._most_workers, len(self._workers))

    def _refuse(self, worker: int, different: str) -> None:
        """Let a worker go whose scores would differ in their last bits; the others go on."""
        self._refused.append(f"worker {worker} has another numeric profile than this run: {different}")
        self._on_event(RunEvent("refused", worker, why=self._refused[-1]))
        if not self._fleet.refuse(worker) and not self._workers:
            raise ConfigError(
                f"no worker has the numeric profile of this run; the last differs in {different}: use machines of the "
                "kind that it began on, another run.dir, or run.allow_mixed=true"
            )

    def _mourn(self, lost: Lost) -> None:
        self._workers.discard(lost.worker)
        self._suspects.gone(lost.worker)
        self._leases.lose(lost.worker)
        self._on_event(RunEvent("lost", lost.worker, lost.running.shard.index if lost.running else None, lost.reason))
        for task in reversed(lost.waiting):
            self._put_back(task)
        if lost.running is not None:
            self._suspects.blamed.add(lost.worker)
            self._blame(lost.running, f"its worker died: {lost.reason}", of_row=True, died=True)

    def _put_back(self, task: Task) -> None:
        """A task that came to nothing is to be handed out again."""
        if not isinstance(task, ScoreShard):
            self._bisections.put_back(task)
        elif self._is_wanted(task.shard):
            self._queue.appendleft(self._bisections.scoring(task.shard))

    def _is_wanted(self, shard: Shard) -> bool:
        """Whether a shard must be handed out: it is not done, not bisected, and no other worker has it."""
        known = shard.index in self._finished or shard.index in self._bisections
        return not known and not self._leases.holders(shard.index)

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
            mine = self._suspects.shards_of(worker)
            self._queue = deque(sorted(self._queue, key=lambda waiting: waiting.shard.index not in mine))

    def _blame(self, task: Task, reason: str, of_row: bool, died: bool = False) -> None:
        """A task that failed: a shard is tried again, then bisected where a row may be to blame, or set aside."""
        shard, scoring = task.shard, isinstance(task, ScoreShard)
        if shard.index in self._finished | self._set_aside.keys() or (scoring and shard.index in self._bisections):
            return
        if of_row and not scoring:
            self._judge(self._bisections.failed(task, reason, died))
            return
        failures = self._failures.setdefault(shard.index, [])
        failures.append(reason)
        if len(failures) % ATTEMPTS == 0 and not of_row:
            self._give_up(shard, reason)
        elif not scoring:
            self._bisections.put_back(task)
        elif len(failures) % ATTEMPTS == 0 or (of_row and self._nothing_works()):
            self._on_event(RunEvent("searched", shard=shard.index))
            self._bisections.begin(shard)
        elif self._is_wanted(shard):
            self._queue.append(self._bisections.scoring(shard))
        self._require_any_success(shard, reason)

    def _judge(self, verdict: Verdict | None) -> None:
        """Score a shard again without its poison, or set it aside."""
        if verdict is None:
            return
        if verdict.why_not is None:
            self._queue.appendleft(self._bisections.scoring(verdict.shard))
            return
        reason = f"{self._failures[verdict.shard.index][-1]}; {verdict.why_not}"
        self._give_up(verdict.shard, reason)
        self._require_any_success(verdict.shard, reason)

    def _give_up(self, shard: Shard, reason: str) -> None:
        self._bisections.drop(shard.index)
        self._set_aside[shard.index] = reason
        self._on_event(RunEvent("set_aside", shard=shard.index, why=reason))

    def _require_any_success(self, shard: Shard, reason: str) -> None:
        if self._nothing_works():
            raise StoppedError(f"no shard could be scored; shard {shard.index} failed last: {reason}")

    def _nothing_works(self) -> bool:
        """Whether the job is to stop, as it does not look as if any shard could be scored."""
        # One broken file must not end a run whose other shards take longer to score than it to fail; nor may poison in
        # every shard: of one of them it is looked for.
        enough = ATTEMPTS * max(ATTEMPTS, self._most_workers)
        everybody = len(self._suspects.blamed) >= min(ATTEMPTS, self._most_workers)  # not one sick worker alone
        return everybody and not self._totals.shards and not self._bisections and self._count_failures() >= enough

    def _require_hope(self, shard: Shard, reason: str, hopeless: bool) -> None:
        if hopeless and shard.index in self._set_aside:
            raise StoppedError(
                f"shard {shard.index} does not fit into memory ({reason}); begin anew, with --fresh and a smaller "
                "run.batch_size or passes.rows_per_call"
            )

    def _require_mostly_good(self) -> None:
        t = self._totals
        seen = t.scored + t.rejected
        allowed = self._max_bad_fraction
        # Bad rows cluster, by file: a few bad shards among the first say nothing of the pool. Half of them do.
        everywhere = t.shards >= ENOUGH_SHARDS and t.rejected > allowed * seen and 2 * t.bad_shards >= t.shards
        if self._max_bad_rows is not None and t.rejected > self._max_bad_rows:
            limit = f"run.max_bad_rows={self._max_bad_rows}"
        elif t.rejected > allowed * self._pool_rows or everywhere:
            limit = f"run.max_bad_fraction={allowed:g}"
        else:
            return
        reason, count = max(t.reasons.items(), key=lambda item: item[1])
        raise ConfigError(
            f"pool: {t.rejected} of {seen} rows could not be scored, more than {limit} allows; the commonest reason "
            f"({count} rows): {reason}. Raise the limit and give the same command; or mend the input and begin "
            "anew, with --fresh: rows that were rejected are not tried again"
        )

    def _state(self) -> State:
        return State(
            totals=self._totals,
            workers=len(self._workers),
            in_flight=self._leases.count,
            retried=self._count_failures(),
            set_aside=len(self._set_aside),
            bisected=len(self._bisections),
            refused=tuple(self._refused),
        )

    def _count_failures(self) -> int:
        return sum(len(reasons) for reasons in self._failures.values())
