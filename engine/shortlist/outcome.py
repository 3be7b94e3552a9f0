"""What became of the tasks that a shortlist is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError
from poolscore.engine.run.errands import Errands
from poolscore.engine.run.task import LookAgain, LookAtLabelled
from poolscore.engine.shortlist.read import Looked, WidePart
from poolscore.engine.words import amount

SomeTasks: TypeAlias = Sequence[LookAgain] | Sequence[LookAtLabelled]


@dataclass(frozen=True)
class Tasks:
    """Whose rows are inferred once more."""

    wanted: Sequence[LookAgain]
    sample: Sequence[LookAgain]  # of the pool; none where all rows are wanted
    labelled: Sequence[LookAtLabelled]

    def all(self) -> tuple[SomeTasks, ...]:
        """Of each kind."""
        return self.wanted, self.sample, self.labelled


@dataclass(frozen=True)
class Outcome:
    """Tasks, and what became of each."""

    tasks: Tasks
    became: Errands

    def parts(self, some: SomeTasks) -> list[WidePart]:
        """Parts that hold a row."""
        return [looked.part for looked in self._looked(some) if looked.part.rows]

    def row_ids(self) -> NDArray[np.int64]:
        """The rows that were wanted and are in a part."""
        done = [task.row_ids for task in self.tasks.wanted if task.shard.index in self.became.done]
        return np.setdiff1d(np.concatenate([np.empty(0, np.int64), *done]), list(self.left_out(self.tasks.wanted)))

    def left_out(self, some: SomeTasks) -> dict[int, str]:
        """Rows that were read and are in no part, row_id → why. Another try would not help them."""
        return {row_id: why for looked in self._looked(some) for row_id, why in looked.left_out.items()}

    @property
    def missing(self) -> int:
        """Rows of tasks that could not be done. Another try may do them."""
        return sum(map(self._lost, self.tasks.all()))

    def why_none(self) -> str:
        """Why no row that was wanted is in a part."""
        return next(iter([*self.became.failed.values(), *self.left_out(self.tasks.wanted).values()]))

    def losses(self) -> list[str]:
        """What is missing, in words."""
        names = "", " of the sample of the pool", " of the labelled rows"
        counts = map(self._lost, self.tasks.all())
        what = [f"{amount(count, 'row')}{of}" for of, count in zip(names, counts, strict=True) if count]
        notes = [f"{' and '.join(what)} missing: {next(iter(self.became.failed.values()))}"] if what else []
        if bad := self.left_out(self.tasks.wanted):
            notes.append(f"{amount(len(bad), 'row')} cannot be decoded any more: {next(iter(bad.values()))}")
        if bad := self.left_out(self.tasks.labelled):
            of = amount(_rows_of(self.tasks.labelled), "labelled row")
            notes.append(f"{len(bad):,} of {of} cannot be used: {next(iter(bad.values()))}")
        return notes

    def require_labelled(self) -> None:
        """
        Raises:
            ConfigError: there are labelled rows, and none can be used.
        """
        if (bad := self.left_out(self.tasks.labelled)) and len(bad) == _rows_of(self.tasks.labelled):
            raise ConfigError(
                f"shortlist.labelled: none of its {amount(len(bad), 'row')} can be used ({next(iter(bad.values()))}); "
                "look at its columns, or leave it out"
            )

    def _looked(self, some: SomeTasks) -> list[Looked]:
        return [self.became.done[task.shard.index] for task in some if task.shard.index in self.became.done]

    def _lost(self, some: SomeTasks) -> int:
        return sum(len(task.row_ids) for task in some if task.shard.index in self.became.failed)


def _rows_of(some: SomeTasks) -> int:
    return sum(len(task.row_ids) for task in some)
