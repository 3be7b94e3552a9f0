"""What travels to a worker: a task about one shard. Small, because it does so often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.pool.choice import RowChoice
from poolscore.engine.pool.plan import Shard

if TYPE_CHECKING:  # the driver hands tasks out without building a model
    from poolscore.engine.run.journal import ShardReport
    from poolscore.engine.shortlist.read import Looked
    from poolscore.engine.worker.feed import Blank
    from poolscore.engine.worker.preview import Preview
    from poolscore.engine.worker.worker import ShardWorker


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


@dataclass(frozen=True, eq=False)
class LookAgain:
    """Infer rows that were scored once more, and write what their scores were made of; see engine/shortlist. Those that
    cannot be decoded any more are left out."""

    shard: Shard  # pieces from the first to the last of the rows in each row group
    row_ids: NDArray[np.int64]  # ascending
    keys: NDArray[np.uint64]  # theirs, as scored
    whole: bool = True  # False: only their features

    def do(self, worker: ShardWorker) -> Looked:
        """See Task."""
        return worker.look_again(self)


@dataclass(frozen=True, eq=False)
class LookAtLabelled:
    """Write the features of rows of another pool, which have labels; those that cannot be decoded are left out."""

    shard: Shard  # of that pool
    row_ids: NDArray[np.int64]
    root: str
    choice: RowChoice  # as its files say

    def do(self, worker: ShardWorker) -> Looked:
        """See Task."""
        return worker.look_at_labelled(self)
