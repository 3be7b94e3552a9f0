"""Caps: at most so many rows of a batch from one group. Rows are taken one after another, each unless a group of its
own is full.

A group is the rows that have the same value in a kept column or the same prediction, or that are near-duplicates (see
`clusters` and `unlike`). A null (or NaN) says nothing of what a row belongs to: each such row is a group of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError
from poolscore.engine.scores import Task
from poolscore.engine.selection.groups import Closing, Groups, Room, Tally, groupable, none_taken

PREDICTION, NEAR_DUPLICATES = "prediction", "near_duplicates"
QUOTAS = "quotas"


@dataclass(frozen=True)
class Caps:
    """How many rows of one group a batch may hold."""

    max_per_group: Mapping[str, int] = field(default_factory=dict)  # kept column, PREDICTION or NEAR_DUPLICATES → rows
    quotas: Mapping[int, int] = field(default_factory=dict)  # predicted class → rows; other classes have no quota

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.max_per_group or self.quotas)

    def __str__(self) -> str:
        groups = [f"max_per_group {name}={rows}" for name, rows in self.max_per_group.items()]
        return ", ".join([*groups, *(f"quota {number}={rows}" for number, rows in self.quotas.items())])

    @property
    def columns(self) -> list[str]:
        """The columns of a run's scores that tell the groups."""
        named = [name for name in self.max_per_group if name != NEAR_DUPLICATES]
        return list(dict.fromkeys([*named, *([PREDICTION] if self.quotas else [])]))

    @property
    def near_duplicates(self) -> int | None:
        """The limit of near-duplicates; None: there is none."""
        return self.max_per_group.get(NEAR_DUPLICATES)

    def room(self, table: pa.Table, taken: Tally | None = None, alike: Closing | None = None) -> Room:
        """The room that there is for N candidates.

        Args:
            table: the candidates, with `columns`.
            taken: the rows taken before, of other candidates; those taken here are added to it.
            alike: the candidates by how alike they are. Needed for NEAR_DUPLICATES.

        Raises:
            ConfigError: a column is of a type that has no groups.
        """
        assert (alike is None) == (self.near_duplicates is None)
        groups = self._groups(table, none_taken() if taken is None else taken)
        return Room(table.num_rows, [*groups, *([] if alike is None else [alike])])

    def may_hold(self, table: pa.Table, k: int) -> NDArray[np.bool_]:
        """Which of N rows, best first, a batch of k may hold, whatever other rows there are: of those that have the
        same groups, only as many of the first as the lowest of their limits.

        Args:
            table: the rows, with `columns`; NEAR_DUPLICATES are no groups here.
        """
        N = table.num_rows
        same_N, most_N = np.zeros(N, np.int64), np.full(N, k)
        for each in self._groups(table, none_taken()):
            _, same_N = np.unique(same_N * (len(each.limits) + 1) + each.numbers, return_inverse=True)
            limits = np.array([*(k if limit is None else limit for limit in each.limits), k])
            most_N = np.minimum(most_N, limits[each.numbers])  # the last one is for ALONE
        order = np.argsort(same_N, kind="stable")
        starts = np.searchsorted(same_N[order], same_N[order])
        before_N = np.empty(N, np.int64)
        before_N[order] = np.arange(N) - starts
        return before_N < most_N

    def _groups(self, table: pa.Table, taken: Tally) -> list[Groups]:
        named = [(name, limit) for name, limit in self.max_per_group.items() if name != NEAR_DUPLICATES]
        groups = [Groups(groupable(table[name], name), limit, taken[name]) for name, limit in named]
        if self.quotas:
            groups.append(Groups(groupable(table[PREDICTION], PREDICTION), self.quotas, taken[QUOTAS]))
        return groups


NO_CAPS = Caps()


def caps_of(
    max_per_group: Mapping[str, int],
    quotas: Mapping[str, int],
    kept: Sequence[str],
    task: Task,
    names: Sequence[str] | None,
    outputs: int | None,
) -> Caps:
    """Caps that a run can have.

    Args:
        max_per_group: see Caps.
        quotas: class, by its name or its number → rows.
        kept: the columns that the run keeps.
        names, outputs: of the model's classes, where they are known.

    Raises:
        ConfigError: there is no such group or class, a class is named twice, or a limit is below 1.
    """
    groups = [*kept, NEAR_DUPLICATES, *([] if task is Task.REGRESSION else [PREDICTION])]
    for name, limit in max_per_group.items():
        if name not in groups:
            there = f"there are pool.keep ({', '.join(kept) or 'empty'}), {', '.join(groups[len(kept) :])}"
            raise ConfigError(f"select.max_per_group: there is no column '{name}' to tell groups by; {there}")
        _require_limit("max_per_group", name, limit)
    if NEAR_DUPLICATES in kept and NEAR_DUPLICATES in max_per_group:
        raise ConfigError(
            f"select.max_per_group: '{NEAR_DUPLICATES}' means alike features, and is a column of pool.keep; rename it"
        )
    if quotas and task is Task.REGRESSION:
        raise ConfigError("select.quotas: are by predicted class, and the task regression has none; leave them out")
    classes = 2 if task is Task.BINARY else outputs
    numbers: dict[int, int] = {}
    for name, limit in quotas.items():
        _require_limit("quotas", name, limit)
        number = _class_of(name, names or (), classes)
        if number in numbers:
            raise ConfigError(f"select.quotas.{name}: class {number} is named twice; give it one quota")
        numbers[number] = limit
    return Caps(dict(max_per_group), numbers)


def _class_of(name: str, names: Sequence[str], classes: int | None) -> int:
    if name in names:
        return names.index(name)
    if name.isdecimal() and (classes is None or int(name) < classes):
        return int(name)
    known = ", ".join(names) or ("numbers from 0" if classes is None else f"0 to {classes - 1}")
    raise ConfigError(f"select.quotas: there is no class '{name}'; there are: {known}")


def _require_limit(key: str, name: str, limit: int) -> None:
    if limit < 1:
        raise ConfigError(f"select.{key}.{name}: must be 1 row or more, got {limit}")
