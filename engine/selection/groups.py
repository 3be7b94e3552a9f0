"""Groups of candidates that fill up: which of them may still be taken."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError

ALONE = -1  # number of the group of a row that shares it with no other
# Rows taken so far, by cap and group: about 200 bytes for each group of which a row was taken.
Tally: TypeAlias = defaultdict[str, Counter[Any]]


def none_taken() -> Tally:
    """The beginning of a batch."""
    return defaultdict(Counter)


class Closing(Protocol):
    """What keeps candidates from being taken, once others are."""

    def full(self) -> Iterator[NDArray[np.intp]]:
        """The candidates that cannot be taken any more, in one array or several."""

    def take(self, place: int) -> NDArray[np.intp] | None:
        """A candidate is taken. Those that cannot be taken any more for it; None: there are none."""


class Room:
    """Which of N candidates may still be taken."""

    def __init__(self, candidates: int, groups: Sequence[Closing]) -> None:
        self.open_N: NDArray[np.bool_] = np.ones(candidates, bool)
        self._groups = groups
        for each in groups:
            for full in each.full():
                self.open_N[full] = False

    def take(self, place: int) -> None:
        """Take a candidate: it, and all of a group that it fills, are not open any more. One that is not open may be
        taken too, and counts."""
        self.open_N[place] = False
        for each in self._groups:
            full = each.take(place)
            if full is not None:
                self.open_N[full] = False


class Groups:
    """The groups of N candidates under one cap."""

    def __init__(self, column: pa.Array, limits: int | Mapping[Any, int], taken: Counter[Any]) -> None:
        encoded = column.dictionary_encode()
        self._values: list[Any] = encoded.dictionary.to_pylist()
        self.limits = [limits if isinstance(limits, int) else limits.get(value) for value in self._values]
        self.numbers: NDArray[np.int32] = pc.fill_null(encoded.indices, ALONE).to_numpy(zero_copy_only=False)
        self._taken = taken

    @cached_property
    def _number_of(self) -> list[int]:  # of each row; a list tells one number sooner than an array
        numbers: list[int] = self.numbers.tolist()
        return numbers

    @cached_property
    def _by_group(self) -> tuple[NDArray[np.intp], list[int]]:
        """The rows group by group, and where each group begins."""
        order = np.argsort(self.numbers, kind="stable")
        return order, np.searchsorted(self.numbers[order], np.arange(len(self._values) + 1)).tolist()

    def full(self) -> Iterator[NDArray[np.intp]]:
        """The rows of each group that is full."""
        for number, (value, limit) in enumerate(zip(self._values, self.limits, strict=True)):
            if limit is not None and self._taken[value] >= limit:
                yield self._rows_of(number)

    def take(self, place: int) -> NDArray[np.intp] | None:
        """Count a row. The rows of its group, if that is full now."""
        number = self._number_of[place]
        limit = None if number == ALONE else self.limits[number]
        if limit is None:
            return None
        value = self._values[number]
        self._taken[value] += 1
        return self._rows_of(number) if self._taken[value] == limit else None

    def _rows_of(self, number: int) -> NDArray[np.intp]:
        order, starts = self._by_group
        return order[starts[number] : starts[number + 1]]


def require_groups(name: str, kind: pa.DataType) -> None:
    """Refuse a column that does not tell groups.

    Raises:
        ConfigError: lists and structs have none.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_nested(kind) or isinstance(kind, pa.ExtensionType):
        raise ConfigError(f"max_per_group: column '{name}' has type {kind}, which tells no groups; name a plain column")


def groupable(column: pa.ChunkedArray, name: str) -> pa.Array:
    """A column in a form in which equal values are equal in Arrow and in Python, and what is no value is null.

    Raises:
        ConfigError: see `require_groups`.
    """
    require_groups(name, column.type)
    column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.cast(pa.large_binary())  # what is no UTF-8 has groups, too
    if pa.types.is_temporal(column.type):
        return column.cast(pa.int64() if column.type.bit_width == 64 else pa.int32())  # nanoseconds fit no datetime
    if pa.types.is_floating(column.type):
        column = pc.add(column.cast(pa.float64()), 0.0)  # 0.0 and -0.0 are one group
        return pc.if_else(pc.is_nan(column), None, column)
    return column
