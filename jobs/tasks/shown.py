"""What a person sees of a row: its pictures as files, with the bytes that they have in the pool; text; values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from poolscore.engine.errors import ConfigError
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.threads import StorageThreads
from poolscore.jobs.tasks.names import extension
from poolscore.jobs.tasks.question import Answer
from poolscore.jobs.tasks.rows import read_rows, schema_of
from poolscore.jobs.tasks.selection import Selected

FILES = "files"  # the folder of the pictures
_RESERVED = """task id pool_id label annotator annotation_id at created_at updated_at lead_time agreement skipped
was_cancelled prediction confidence data values"""  # names that have a meaning in one of the formats
Form = Literal["file", "url", "text", "value"]


@dataclass(frozen=True)
class Shown:
    """A column of which people see the values."""

    column: str
    name: str  # under which tools know it: an identifier that none of theirs is
    form: Form


@dataclass
class Item:
    """What there is to be said of a row."""

    name: str  # of its task
    id: str
    values: dict[str, Any] = field(default_factory=dict)  # by Shown.name; of a file its path in the folder
    prediction: Answer = None  # None where it is hidden
    confidence: float | None = None
    size: tuple[int, int] | None = None  # of its picture: width and height, where that is asked for


Measure = Callable[[bytes], tuple[int, int] | None]


def shown_columns(selected: Selected, columns: Sequence[str], url_column: str | None) -> list[Shown]:
    """How people see columns, which are kept ones of the selection or such of the pool.

    Raises:
        ConfigError: there is no such column, or nothing that people could look at.
    """
    kept = _kept(selected)
    if url_column is not None and url_column not in kept:
        raise ConfigError(
            f"--url-column {url_column}: is no column of pool.keep; kept are: {', '.join(kept) or 'none'}"
        )
    of_pool = [name for name in columns if name not in kept]
    types = {name: selected.table.schema.field(name).type for name in columns if name in kept}
    if of_pool:
        types |= {each.name: each.type for each in schema_of(selected.runs[0], of_pool)}
    forms: dict[str, Form] = {name: _form(types[name], name) for name in columns}
    if url_column is not None:
        forms = {url_column: "url", **{name: form for name, form in forms.items() if form != "file"}}
    names: dict[str, str] = {}
    for i, name in enumerate(forms):
        plain = re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,63}", name) and name not in _RESERVED.split()
        names[name] = name if plain else f"column_{i + 1}"
    if len(set(names.values())) < len(names):
        raise ConfigError(f"columns named like column_1 and others that need such names: leave out one of {[*names]}")
    return [Shown(name, names[name], form) for name, form in forms.items()]


def fill_items(
    items: Sequence[Item],
    places: Sequence[int],
    selected: Selected,
    shown: Sequence[Shown],
    storage: Storage,
    measure: Measure | None = None,
) -> None:
    """Put what people see into the items, and pictures into the folder. Memory: text of all, pictures of a few rows.

    Args:
        items: one for each row of the selection.
        places: of the rows of the selection, among the items.
        measure: tells width and height of a picture.
    """
    kept = _kept(selected)
    for each in (each for each in shown if each.column in kept):
        for place, value in zip(places, selected.table[each.column].to_pylist(), strict=True):
            items[place].values[each.name] = value
    of_pool = [each for each in shown if each.column not in kept]
    if not of_pool:
        return
    with StorageThreads(storage.at_once, "tasks") as threads:
        for rows, table in _blocks(selected, [each.column for each in of_pool]):
            writing = []
            for each in of_pool:
                column = _bytes(table[each.column]) if each.form == "file" else table[each.column]
                for row, value in zip(rows, column.to_pylist(), strict=True):
                    item = items[places[row]]
                    if each.form == "file" and value is not None:
                        item.size = item.size or (measure(value) if measure else None)
                        path = f"{FILES}/{item.name}{'' if each is of_pool[0] else '-' + each.name}{extension(value)}"
                        writing.append(threads.submit(_publish, storage, path, value))
                        value = path
                    item.values[each.name] = value
            for future in writing:
                future.result()


def _publish(storage: Storage, path: str, data: bytes) -> None:
    storage.publish(path, lambda file: file.write(data))


def _blocks(selected: Selected, columns: Sequence[str]) -> Iterator[tuple[list[int], pa.Table]]:
    keys, row_ids = selected.table["key"].to_numpy(), selected.table["row_id"].to_numpy()
    for number, run in enumerate(selected.runs):
        mine = (selected.of_run == number).nonzero()[0]
        if len(mine):
            for places, table in read_rows(run, columns, row_ids[mine], keys[mine]):
                yield mine[places].tolist(), table


def _kept(selected: Selected) -> list[str]:
    return [name for name in selected.runs[0].config.pool.keep if name in selected.table.column_names]


def _form(kind: pa.DataType, column: str) -> Form:
    if pa.types.is_dictionary(kind):
        return _form(kind.value_type, column)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return "file"
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return "file"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_primitive(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return "value"
    raise ConfigError(
        f"column '{column}' has type {kind}, which nobody can look at; name columns of the pool that people can read "
        "with --show, or kept URLs with --url-column"
    )


def _bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
