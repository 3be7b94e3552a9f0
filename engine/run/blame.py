"""What becomes of a shard that failed: it is tried again, searched for the rows that do it, or set aside."""

from __future__ import annotations

from collections.abc import Callable

from poolscore.engine.errors import StoppedError
from poolscore.engine.pool.plan import Shard
from poolscore.engine.run.bisect import Bisections, Verdict
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.shard_queue import ShardQueue
from poolscore.engine.run.suspects import Suspects
from poolscore.engine.run.task import ScoreShard, Task

ATTEMPTS = 3  # a shard that fails or kills its worker so often is bisected or set aside


class Blame:
    """Counts failures, and says when a run looks hopeless.

    Args:
        any_scored: whether a shard of the run is scored.
        on_event: told of shards that are searched or set aside.
    """

    def __init__(
        self,
        queue: ShardQueue,
        bisections: Bisections,
        suspects: Suspects,
        any_scored: bool,
        on_event: Callable[[RunEvent], None],
    ) -> None:
        self._queue, self._bisections, self._suspects = queue, bisections, suspects
        self._any_scored, self._on_event = any_scored, on_event
        self._failures: dict[int, list[str]] = {}  # shard → reasons
        self.set_aside: dict[int, str] = {}
        self.most_workers = 0  # that there were at one time; told by the coordinator

    @property
    def failures(self) -> int:
        """Of all shards."""
        return sum(len(reasons) for reasons in self._failures.values())

    def scored(self, shard: int) -> None:
        """A shard is done, whatever was said of it."""
        self._any_scored = True
        self._bisections.drop(shard)
        self.set_aside.pop(shard, None)

    def failed(self, task: Task, reason: str, of_row: bool, died: bool = False) -> None:
        """A task failed: a shard is tried again, then bisected where a row may be to blame, or set aside.

        Raises:
            StoppedError: it does not look as if any shard could be scored.
        """
        shard, scoring = task.shard, isinstance(task, ScoreShard)
        known = shard.index in self._queue.finished | self.set_aside.keys()
        if known or (scoring and shard.index in self._bisections):
            return
        if of_row and not scoring:
            self.judge(self._bisections.failed(task, reason, died))
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
        else:
            self._queue.put_last(shard)
        self._require_any_success(shard, reason)

    def judge(self, verdict: Verdict | None) -> None:
        """Score a shard again without its poison, or set it aside.

        Raises: see `failed`.
        """
        if verdict is None:
            return
        if verdict.why_not is None:
            self._queue.put_first(verdict.shard)
            return
        reason = f"{self._failures[verdict.shard.index][-1]}; {verdict.why_not}"
        self._give_up(verdict.shard, reason)
        self._require_any_success(verdict.shard, reason)

    def require_hope(self, shard: Shard, reason: str, hopeless: bool) -> None:
        """Raise StoppedError where a shard was set aside for what all others would meet as well."""
        if hopeless and shard.index in self.set_aside:
            raise StoppedError(
                f"shard {shard.index} does not fit into memory ({reason}); begin anew, with --fresh and a smaller "
                "run.batch_size or passes.rows_per_call"
            )

    def require_a_score(self) -> None:
        """Raise StoppedError at the end of a run where every shard was set aside."""
        if self.set_aside and not self._any_scored:
            index, reason = list(self.set_aside.items())[-1]
            raise StoppedError(f"no shard could be scored; shard {index} failed last: {reason}")

    def _give_up(self, shard: Shard, reason: str) -> None:
        self._bisections.drop(shard.index)
        self.set_aside[shard.index] = reason
        self._on_event(RunEvent("set_aside", shard=shard.index, why=reason))

    def _require_any_success(self, shard: Shard, reason: str) -> None:
        if self._nothing_works():
            raise StoppedError(f"no shard could be scored; shard {shard.index} failed last: {reason}")

    def _nothing_works(self) -> bool:
        """Whether the job is to stop, as it does not look as if any shard could be scored."""
        # One broken file must not end a run whose other shards take longer to score than it to fail; nor may poison in
        # every shard: of one of them it is looked for.
        enough = ATTEMPTS * max(ATTEMPTS, self.most_workers)
        everybody = len(self._suspects.blamed) >= min(ATTEMPTS, self.most_workers)  # not one sick worker alone
        return everybody and not self._any_scored and not self._bisections and self.failures >= enough
