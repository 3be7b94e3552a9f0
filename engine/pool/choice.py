"""Which rows of the pool count: the filter, the keys of partitioned folders, and the sample."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import Keys
from poolscore.engine.pool.expression import (
    Both,
    Column,
    Comparison,
    Condition,
    IsNull,
    Literal,
    Not,
    columns_in,
    parse,
)

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # what Hive and Spark call a folder whose key is null
_WHOLE = re.compile("-?[0-9]{1,18}")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


@dataclass(frozen=True)
class RowChoice:
    """Decides for whole files, row groups and rows. Small, because it travels to the workers.

    Folders named `key=value` give their files' rows a column; a key counts if every file has it. Its values are int64
    if all are whole numbers, else text. Such a column goes before one of the same name in the files.
    """

    filter: str | None = None  # see `expression.py`
    keys: Mapping[str, bool] | None = None  # of partitioned folders → whether their values are numbers
    share: float = 1.0  # of the rows of the planned row groups, drawn at random
    seed: int = 0

    @classmethod
    def of(cls, text: str | None, paths: Iterable[str]) -> RowChoice:
        """The choice of the filter `text` over files."""
        values: dict[str, set[str]] | None = None
        for path in paths:
            here = _folder_values(path)
            if values is None:
                values = {key: {value} for key, value in here.items()}
                continue
            for key in list(values):
                if key in here:
                    values[key].add(here[key])
                else:
                    del values[key]
            if not values:
                break
        return cls(text, {key: all(map(_WHOLE.fullmatch, of - {NO_VALUE})) for key, of in (values or {}).items()})

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns that the filter asks for."""
        return columns_in(self._condition) if self._condition is not None else ()

    def in_files(self, columns: Sequence[str]) -> list[str]:
        """Which columns must be read from the files so that `columns` and the filter's are there."""
        return [name for name in dict.fromkeys([*columns, *self.columns]) if name not in (self.keys or {})]

    def with_keys(self, schema: pa.Schema) -> pa.Schema:
        """The schema of a file's rows with the keys of its folders."""
        for key, is_number in (self.keys or {}).items():
            field, at = pa.field(key, pa.int64() if is_number else pa.string()), schema.get_field_index(key)
            schema = schema.append(field) if at < 0 else schema.set(at, field)
        return schema

    def with_values(self, table: pa.Table, path: str) -> pa.Table:
        """Rows of the file at `path` with the values of its folders."""
        for key, value in self._values(path).items():
            column, at = pa.repeat(value, table.num_rows), table.schema.get_field_index(key)
            table = table.append_column(key, column) if at < 0 else table.set_column(at, key, column)
        return table

    def check(self, schema: pa.Schema) -> None:
        """Raise ConfigError unless the filter fits rows of this schema."""
        if self._condition is not None:
            if unknown := [name for name in self.columns if schema.get_field_index(name) < 0]:
                raise ConfigError(
                    f"pool.filter: there is no column '{unknown[0]}'; there are: {', '.join(schema.names)}"
                )
            if not pa.types.is_boolean(self._evaluated(schema.empty_table()).type):
                raise ConfigError(f"pool.filter: {self.filter} is no condition; compare the column with a value")

    def can_match(self, paths: Sequence[str]) -> NDArray[np.bool_]:
        """bool [files]: false where the keys of a file's folders alone rule the filter out."""
        if self._condition is None or not set(self.columns) & set(self.keys or {}):
            return np.ones(len(paths), dtype=bool)
        columns: dict[str, list[Any]] = {key: [] for key in self.keys or {}}
        for path in paths:
            for key, value in self._values(path).items():
                columns[key].append(value.as_py())
        schema = self.with_keys(pa.schema([]))
        found = self._evaluated(pa.table(columns, schema))
        return _mask(found, len(paths), unknown=True)

    def expression(self, path: str, schema: pa.Schema) -> pc.Expression:
        """The filter as Arrow's expression over the columns of one file; its folders' values are put in.

        Raises:
            ConfigError: it does not fit the file.
        """
        assert self._condition is not None
        values = self._values(path)
        if missing := [name for name in self.columns if schema.get_field_index(name) < 0 and name not in values]:
            there = ", ".join(self.with_keys(schema).names)  # also what its folders say
            raise ConfigError(f"pool.filter: column '{missing[0]}' is not in {path}; it has: {there}")
        scope = _Scope(
            column=lambda name: pc.scalar(values[name]) if name in values else pc.field(name),
            kind=lambda name: values[name].type if name in values else schema.field(name).type,
            constant=pc.scalar,
        )
        return scope.value(self._condition)

    def keep(self, table: pa.Table, keys: Keys) -> NDArray[np.bool_] | None:
        """bool [N]: which of the rows are to be scored; None: all of them. A condition that is null keeps no row.

        Args:
            table: N rows with the columns of the filter.
            keys: uint64 [N], by which the sample is drawn: it is the same on every worker.
        """
        kept = None
        if self._condition is not None:
            kept = _mask(self._evaluated(table), table.num_rows, unknown=False)
        if self.share < 1:
            drawn = _uniform(keys, self.seed) < self.share
            kept = drawn if kept is None else kept & drawn
        return kept

    @cached_property
    def _condition(self) -> Condition | None:
        return parse(self.filter) if self.filter is not None else None

    def _values(self, path: str) -> dict[str, pa.Scalar[Any]]:
        if not self.keys:
            return {}
        here = _folder_values(path)
        return {
            key: pa.scalar(None if here[key] == NO_VALUE else int(here[key]) if is_number else here[key], kind)
            for key, is_number in self.keys.items()
            for kind in [pa.int64() if is_number else pa.string()]
        }

    def _evaluated(self, table: pa.Table) -> Any:
        """Over rows. Conditions on columns that the table lacks are null: not known."""
        assert self._condition is not None

        def column(name: str) -> Any:
            found = table[name]
            return found.cast(found.type.value_type) if pa.types.is_dictionary(found.type) else found

        names = set(table.schema.names)
        scope = _Scope(column, lambda name: column(name).type if name in names else None, compared=_without_nan)
        return scope.value(self._condition)


EVERY_ROW = RowChoice()


@dataclass(frozen=True)
class _Scope:
    """Where the columns of a condition come from: arrays of rows, or names in Arrow's expressions."""

    column: Callable[[str], Any]
    kind: Callable[[str], pa.DataType | None]  # None: it is not known here
    constant: Callable[[pa.Scalar[Any]], Any] = lambda scalar: scalar
    compared: Callable[[Any], Any] = lambda column: column  # a column as it is compared

    def value(self, condition: Condition) -> Any:
        match condition:
            case Both("and", left, right):
                return self._call(condition, pc.and_kleene, self.value(left), self.value(right))
            case Both(_, left, right):
                return self._call(condition, pc.or_kleene, self.value(left), self.value(right))
            case Not(inner):
                return self._call(condition, pc.invert, self.value(inner))
        if any(self.kind(name) is None for name in columns_in(condition)):
            return self.constant(pa.scalar(None, pa.bool_()))
        match condition:
            case Column(name):
                return self.column(name)
            case IsNull(column):
                return pc.is_null(self.column(column.name))
            case Comparison(operator, one, other):
                sides = self._operand(one, other), self._operand(other, one)
                return self._call(condition, _COMPARE[operator], *sides)

    def _operand(self, one: Column | Literal, other: Column | Literal) -> Any:
        if isinstance(one, Column):
            return self.compared(self.column(one.name))
        assert isinstance(other, Column)
        kind = self.kind(other.name)
        assert kind is not None
        return self.constant(_scalar(one.value, kind.value_type if pa.types.is_dictionary(kind) else kind, other.name))

    def _call(self, condition: Condition, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except pa.ArrowException as error:
            names = ", ".join(f"'{name}' ({self.kind(name)})" for name in columns_in(condition))
            raise ConfigError(f"pool.filter: it does not fit column {names}: {one_line(error)}") from error


def _scalar(value: Any, kind: pa.DataType, column: str) -> pa.Scalar[Any]:
    """A written value beside a column: text stands for dates, times and whatever else is written as text. Beside whole
    numbers a whole number stays exact; one that only uint64 holds is one of that column."""
    if isinstance(value, float) and value.is_integer() and pa.types.is_integer(kind):
        value = int(value)
    of_column = isinstance(value, str) or (isinstance(value, int) and pa.types.is_uint64(kind))
    try:
        scalar = pa.scalar(value, kind if isinstance(value, int) and of_column else None)
        return scalar.cast(kind) if of_column else scalar
    except (pa.ArrowException, OverflowError) as error:
        raise ConfigError(f"pool.filter: column '{column}' is {kind}; {value!r} is none ({one_line(error)})") from error


def _without_nan(column: Any) -> Any:
    """NaN as null: a comparison with it is not known. Statistics tell nothing of NaN, so that by IEEE's rules it would
    depend on a row's neighbours whether `not (x < 5)` keeps it."""
    return pc.if_else(pc.is_nan(column), None, column) if pa.types.is_floating(column.type) else column


def _folder_values(path: str) -> dict[str, str]:
    """Keys and values of the folders named `key=value` that a file lies in."""
    parts = (part.partition("=") for part in path.split("/")[:-1] if "=" in part)
    return {unquote(key): unquote(value) for key, _, value in parts if key}


def _mask(found: Any, rows: int, unknown: bool) -> NDArray[np.bool_]:
    if isinstance(found, pa.Scalar):
        value = found.as_py()
        return np.full(rows, unknown if value is None else value)
    values = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    mask: NDArray[np.bool_] = pc.fill_null(values, unknown).to_numpy(zero_copy_only=False)
    return mask


def _uniform(keys: Keys, seed: int) -> NDArray[np.float64]:
    """In [0, 1), from key and seed: SplitMix64 (Steele et al. 2014). Other numbers than those of the random score."""
    x = keys + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x1CE4E5B9) % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
