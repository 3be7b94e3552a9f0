"""Samples of a pool: ids and pictures from row groups spread evenly over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.config import ImageDecode
from poolscore.engine.inputs.base import BadRow
from poolscore.engine.inputs.image import encoded_bytes
from poolscore.engine.inputs.picture import decode_picture
from poolscore.engine.storage.filesystem import locate
from poolscore.jobs.pack.contract import MIB
from poolscore.jobs.pack.picture import picture_header

NAMED = 3
"""Rows, of those that something is wrong with."""
PLACES = 16
"""Row groups that pictures are taken from."""
ID_ROWS = 1_000_000
"""Ids that are compared."""
_PLAIN = frozenset({"RGB", "L"})


@dataclass(frozen=True)
class Groups:
    """All row groups of a pool, in order.

    Attributes:
        root: path or URI that the paths are relative to.
        paths: of the files.
        files: of each row group, the number of its file.
        numbers: its number in that file.
        rows: its rows.
    """

    root: str
    paths: Sequence[str]
    files: NDArray[np.int64]
    numbers: NDArray[np.int64]
    rows: NDArray[np.int64]

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Columns of a row group, at most `rows` rows at a time; nothing where its file lacks one of them.

        Raises:
            OSError, ArrowException: it cannot be read.
        """
        place = locate(self.root)
        path = self.paths[int(self.files[group])]
        with place.filesystem.open_input_file(f"{place.path}/{path}") as opened:
            file = pq.ParquetFile(opened, pre_buffer=False, buffer_size=MIB)
            if not set(columns) <= set(file.schema_arrow.names):
                return
            for batch in file.iter_batches(rows, row_groups=[int(self.numbers[group])], columns=list(columns)):
                yield pa.Table.from_batches([batch])

    def name(self, group: int, row: int, id_: str | None) -> str:
        """How a row is named: by its id, else by its place in its file."""
        if id_ is not None:
            return id_
        first = int(np.searchsorted(self.files, self.files[group]))
        return f"{self.paths[int(self.files[group])]}#{int(self.rows[first:group].sum()) + row}"

    def spread(self, count: int) -> list[int]:
        """`count` of the row groups with rows, spread evenly over the pool."""
        filled = np.flatnonzero(self.rows)
        places = np.linspace(0, len(filled) - 1, min(count, len(filled)))
        return [int(filled[place]) for place in np.unique(places.round().astype(np.int64))]


@dataclass
class Ids:
    """Ids that were compared with one another.

    Attributes:
        rows: how many; `whole` if these are all.
        repeated: rows whose id an earlier one has.
        example: one such id.
        nulls: rows without.
    """

    rows: int = 0
    whole: bool = False
    repeated: int = 0
    example: str = ""
    nulls: int = 0


def sample_ids(groups: Groups, column: str) -> Ids:
    """Compares up to a million ids: all of a smaller pool."""
    total = int(groups.rows.sum())
    mean = max(1, total // max(1, int(np.count_nonzero(groups.rows))))
    count = len(groups.rows) if total <= ID_ROWS else max(1, ID_ROWS // mean)
    values: list[pa.ChunkedArray] = []
    found = Ids()
    for group in groups.spread(count):
        for table in groups.read(group, [column], min(ID_ROWS, 1 << 16)):
            values.append(table[column].cast(_decoded(table[column].type)))
            found.rows += table.num_rows
            if found.rows >= ID_ROWS:
                break
        if found.rows >= ID_ROWS:
            break
    found.whole = found.rows == total
    if not values:
        return found
    ids = pa.chunked_array([chunk for value in values for chunk in value.chunks])
    counts = pc.value_counts(ids)
    valid = counts.filter(pc.is_valid(counts.field(0)))
    repeated = valid.filter(pc.greater(valid.field(1), 1))
    found.nulls = ids.null_count
    found.repeated = int(pc.sum(repeated.field(1)).as_py() or 0) - len(repeated)
    found.example = str(repeated.field(0)[0].as_py()) if len(repeated) else ""
    return found


def _decoded(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@dataclass
class Pictures:
    """What a sample of one column holds.

    Attributes:
        rows: values looked at; of them `nulls` null and `empty` without bytes.
        formats, modes: as Pillow calls them → pictures.
        widths, heights: of the pictures; pixels.
        sizes: of the pictures; bytes.
        turned: pictures that EXIF asks to turn.
        rejected: reason → rows that a scoring run would set aside.
        named: the first few of these.
    """

    rows: int = 0
    nulls: int = 0
    empty: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    turned: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    named: list[str] = field(default_factory=list)

    @property
    def odd(self) -> dict[str, int]:
        """Kinds that are neither colour nor grey of 8 bits."""
        return {mode: count for mode, count in self.modes.items() if mode not in _PLAIN}

    def add(self, data: bytes | None, name: Callable[[], str]) -> None:
        """Looks at one value and decodes it; `name` is called for the row's name."""
        before = self.rejected.total()
        self._look(data)
        if self.rejected.total() > before and len(self.named) < NAMED:
            self.named.append(name())

    def _look(self, data: bytes | None) -> None:
        self.rows += 1
        self.nulls += data is None
        self.empty += data == b""
        if data is None:
            self.rejected["null"] += 1
            return
        if header := picture_header(data):
            self.formats[header.format] += 1
            self.modes[header.mode] += 1
            self.widths.append(header.width)
            self.heights.append(header.height)
            self.sizes.append(len(data))
            self.turned += header.turned
        try:
            decode_picture(data, ImageDecode())
        except BadRow as error:
            self.rejected[str(error)] += 1


def picture_columns(schema: pa.Schema) -> list[str]:
    """Columns that may hold encoded pictures: binary ones, and structs with 'bytes'."""
    return [name for name in schema.names if _may_hold_pictures(schema.field(name).type)]


def _may_hold_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _may_hold_pictures(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def sample_pictures(groups: Groups, columns: Sequence[str], rows: int, id_column: str | None) -> dict[str, Pictures]:
    """Rows of row groups all over the pool, of the columns that hold at least one picture: the first ones, or where
    there are few row groups, rows all over them. `id_column` names them, where there is one."""
    found = {column: Pictures() for column in columns}
    places = groups.spread(PLACES) if columns else []
    for place in places:
        some = -(-rows // len(places))
        step = max(1, -(-int(groups.rows[place]) // some)) if len(places) < PLACES else 1
        seen = taken = 0
        for table in groups.read(place, _with(columns, id_column), some):
            at = range(-seen % step, table.num_rows, step)[: some - taken]
            for column in columns:
                values = encoded_bytes(table[column])
                for i in at:
                    found[column].add(values[i], partial(_name, groups, place, seen, table, i, id_column))
            seen, taken = seen + table.num_rows, taken + len(at)
            if taken >= some:
                break
    return {column: pictures for column, pictures in found.items() if pictures.formats}


def without_header(groups: Groups, id_column: str | None) -> list[str]:
    """Names of the first rows without a width, as `pack` leaves it where a picture's header cannot be read. No more
    than ID_ROWS rows are looked at."""
    named: list[str] = []
    looked_at = 0
    for group in groups.spread(len(groups.rows)):
        seen = 0
        for table in groups.read(group, _with(["width"], id_column), 1 << 16):
            for i in np.flatnonzero(table["width"].is_null().to_numpy()).tolist():
                named.append(_name(groups, group, seen, table, i, id_column))
            seen += table.num_rows
            if len(named) >= NAMED:
                return named[:NAMED]
        looked_at += seen
        if looked_at >= ID_ROWS:
            break
    return named


def _with(columns: Sequence[str], id_column: str | None) -> list[str]:
    return [*columns] if id_column is None or id_column in columns else [*columns, id_column]


def _name(groups: Groups, group: int, before: int, table: pa.Table, i: int, id_column: str | None) -> str:
    return groups.name(group, before + i, None if id_column is None else str(table[id_column][i].as_py()))
