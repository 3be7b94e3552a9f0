"""What travels to a worker: a task about one shard. Small, because it does so often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from poolscore.engine.pool.plan import Shard

if TYPE_CHECKING:  # the driver hands tasks out without building a model
    from poolscore.engine.feed import Blank
    from poolscore.engine.preview import Preview
    from poolscore.engine.run.journal import ShardReport
    from poolscore.engine.worker import ShardWorker


class Task(Protocol):
    """Work for a worker. Frozen and picklable; may be handed out again, or to two workers at once."""

    @property
    def shard(self) -> Shard:
        """By which the task is queued, counted and blamed."""

    def do(self, worker: ShardWorker) -> Any:
        """Runs at the worker; what it returns comes back as `Done.result`, what it raises as `Failed`."""


@dataclass(frozen=True)
class ScoreShard:
    """Score a shard and write its part. The result is its ShardReport.

    Rows in `blank`, row_id → stage and reason, are not decoded: their slots are zero, and they go to errors/. All other
    rows have the same bits as without them.
    """

    shard: Shard
    blank: Blank = field(default_factory=dict)

    def do(self, worker: ShardWorker) -> ShardReport:
        """See Task."""
        return worker.score(self.shard, self.blank)


@dataclass(frozen=True)
class TryReading:
    """Read a shard, and score it with every row blank; nothing is written. Does the worker live?"""

    shard: Shard

    def do(self, worker: ShardWorker) -> None:
        """See Task."""
        rows = (row for piece in self.shard.pieces for row in range(piece.row_id, piece.row_id + piece.rows))
        worker.attempt(self.shard, dict.fromkeys(rows, ("try", "only read")))


@dataclass(frozen=True)
class TryRows:
    """Score only rows start..stop of a shard, counted over its pieces, and write nothing. Does the worker live?"""

    shard: Shard
    start: int
    stop: int
    blank: Blank = field(default_factory=dict)

    def do(self, worker: ShardWorker) -> None:
        """See Task."""
        worker.attempt(self.shard.part(self.start, self.stop), self.blank)


@dataclass(frozen=True)
class PreviewSample:
    """Score a sample of the pool and look at it; nothing is written."""

    shard: Shard

    def do(self, worker: ShardWorker) -> Preview:
        """See Task."""
        return worker.preview(self.shard)
