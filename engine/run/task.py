"""What travels to a worker: a task about one shard. Small, because it does so often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from poolscore.engine.pool.plan import Shard

if TYPE_CHECKING:  # the driver hands tasks out without building a model
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
    """Score a shard and write its part. The result is its ShardReport."""

    shard: Shard

    def do(self, worker: ShardWorker) -> ShardReport:
        """See Task."""
        return worker.score(self.shard)


@dataclass(frozen=True)
class PreviewSample:
    """Score a sample of the pool and look at it; nothing is written."""

    shard: Shard

    def do(self, worker: ShardWorker) -> Preview:
        """See Task."""
        return worker.preview(self.shard)
