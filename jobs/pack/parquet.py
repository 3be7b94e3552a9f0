"""A Parquet pool → a well-shaped one: the same columns and rows in the same order.

Row groups and files are cut anew, encoded pictures are neither compressed nor dictionary-encoded a second time. The
pool is read as a stream, one small batch after the other, also inside huge row groups. It may lie on object storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.choice import RowChoice
from poolscore.engine.pool.footer import read_metadata
from poolscore.engine.pool.health import FileHealth, look
from poolscore.engine.pool.listing import Listing, list_files
from poolscore.engine.storage.filesystem import in_order, locate, reason
from poolscore.engine.words import amount
from poolscore.jobs.pack.contract import MIB, PIECE_BYTES, PIECE_ROWS, UNREADABLE, Names, Packed, Source
from poolscore.jobs.pack.pictures import Change, NotPacked

FOOTER_THREADS = 16
_BROKEN = (OSError, pa.ArrowException, UnicodeDecodeError)


@dataclass(frozen=True)
class Footer:
    """What is known of a file before its rows are read."""

    path: str
    schema: pa.Schema
    health: FileHealth


Unreadable = tuple[str, str]  # path, reason


@dataclass(frozen=True)
class Rows:
    """An item: consecutive rows, or a file that cannot be read (on).

    Attributes:
        path: the file.
        start: the first row, counted in the file.
        batch: the rows; None with a reason.
    """

    path: str
    start: int
    batch: pa.RecordBatch | None
    reason: str = ""


def parquet_source(uri: str, names: Names, resize: Change | None = None) -> Source:
    """All columns of a pool: dictionaries decoded, views as plain text and binary; and the keys of folders named
    `key=value`, as a run sees them.

    Files without rows do not count; files that cannot be read are set aside. With `resize` the image column is made
    anew, and `width` and `height` where the pool has them (int32); rows whose picture cannot be decoded are set aside.
    The fingerprint is made of the files' names, sizes and times. Rows without an id column are known by their place,
    so their ids change.

    Raises:
        ConfigError: nothing there, files that do not fit together, no image column to resize.
    """
    try:
        listing = list_files(uri)
    except ConfigError as error:
        raise ConfigError(f"SOURCE: {error}") from error
    folders = RowChoice.of(None, listing.paths)
    footers = [one for one in read_footers(listing) if isinstance(one, Footer) and one.health.rows]
    if not footers:
        raise ConfigError(f"SOURCE {uri} has no rows that can be read ({amount(len(listing.paths), 'file')})")
    schema = _plain_schema(folders.with_keys(footers[0].schema))
    _require_one_schema(footers, schema, folders)
    work = _as_they_are if resize is None else partial(_resized, schema, names, _image(schema, names), resize)
    compressed = footers[0].health.compressed
    return Source(
        schema,
        sum(footer.health.rows for footer in footers),
        _fingerprint(listing),
        partial(_pieces, listing, schema, folders),
        work,
        packed=frozenset(compressed),
        light=resize is None,
    )


def read_footers(listing: Listing) -> Iterator[Footer | Unreadable]:
    """The footers of all files, in order, read by threads."""
    place = locate(listing.root)

    def read(path: str) -> Footer | Unreadable:
        try:
            metadata, _, _ = read_metadata(place.filesystem, f"{place.path}/{path}")
            return Footer(path, metadata.schema.to_arrow_schema(), look(metadata))
        except _BROKEN as error:
            return path, reason(error)

    yield from in_order(read, listing.paths, FOOTER_THREADS)


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(_plain(field.type)) for field in schema], metadata=schema.metadata)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def _require_one_schema(footers: Sequence[Footer], schema: pa.Schema, folders: RowChoice) -> None:
    for footer in footers:
        here = {field.name: _plain(field.type) for field in folders.with_keys(footer.schema)}
        first = {field.name: field.type for field in schema}
        if here != first:
            name = next(name for name in {**first, **here} if here.get(name) != first.get(name))
            raise ConfigError(
                f"column '{name}' is {here.get(name, 'missing')} in {footer.path} but {first.get(name, 'missing')} in "
                f"{footers[0].path}: write both with the same columns and types"
            )


def _image(schema: pa.Schema, names: Names) -> str:
    at = schema.get_field_index(names.image)
    if at < 0 or not (pa.types.is_binary(schema.field(at).type) or pa.types.is_large_binary(schema.field(at).type)):
        raise ConfigError(
            f"resize needs a binary column of pictures, '{names.image}' is none: name it with `--image-column`; "
            f"there are {', '.join(schema.names)}"
        )
    return names.image


def _fingerprint(listing: Listing) -> str:
    seen = sha256()
    for path, size, modified in zip(listing.paths, listing.bytes, listing.modified, strict=True):
        seen.update(f"{path}\0{size}\0{modified}\n".encode())
    return seen.hexdigest()[:16]


def _pieces(listing: Listing, schema: pa.Schema, folders: RowChoice, start: int) -> Iterator[list[Rows]]:
    """One batch a piece. Row groups before item `start` are not read."""
    place = locate(listing.root)
    number = 0
    for path in listing.paths:
        row = 0
        try:
            with place.filesystem.open_input_file(f"{place.path}/{path}") as opened:
                # pre_buffer keeps whole row groups in memory (NOTES, section 3); the buffer streams inside huge ones
                file = pq.ParquetFile(opened, pre_buffer=False, buffer_size=MIB)
                for group in range(file.num_row_groups):
                    shape = file.metadata.row_group(group)
                    step = max(1, min(PIECE_ROWS, PIECE_BYTES * shape.num_rows // max(1, shape.total_byte_size)))
                    batches = -(-shape.num_rows // step)
                    if number + batches > start:
                        for offset, table in _tables(file, group, step):
                            if number >= start:
                                whole = folders.with_values(table, path).select(schema.names).cast(schema)
                                yield [Rows(path, row + offset, _one(whole))]
                            number += 1
                    else:
                        number += batches
                    row += shape.num_rows
        except _BROKEN as error:
            if number >= start:
                yield [Rows(path, row, None, f"{UNREADABLE}: {reason(error)}")]
            number += 1


def _tables(file: pq.ParquetFile, group: int, step: int) -> Iterator[tuple[int, pa.Table]]:
    """Exactly `step` rows at a time, as the last of the group allows; Arrow may give fewer."""
    waiting: list[pa.Table] = []
    offset = 0
    for batch in file.iter_batches(step, row_groups=[group]):
        waiting.append(pa.Table.from_batches([batch]))
        if sum(map(len, waiting)) >= step:
            table = pa.concat_tables(waiting)
            yield offset, table.slice(0, step)
            waiting, offset = [table.slice(step)], offset + step
    if any(map(len, waiting)):
        yield offset, pa.concat_tables(waiting)


def _one(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]


def _as_they_are(piece: Sequence[Rows]) -> Packed:
    rows = piece[0]
    if rows.batch is None:
        return Packed(None, 1, [(rows.path, rows.reason)])
    return Packed(rows.batch, 1)


def _resized(schema: pa.Schema, names: Names, image: str, resize: Change, piece: Sequence[Rows]) -> Packed:
    rows = piece[0]
    batch = rows.batch
    if batch is None:
        return _as_they_are(piece)
    kept, pictures, sizes, set_aside = [], [], [], []
    for number, data in enumerate(batch.column(image).to_pylist()):
        try:
            if data is None:
                raise NotPacked("not a picture: null")
            picture, size = resize(data)
        except NotPacked as error:
            set_aside.append((_name(batch, names.id, number, rows), str(error)))
            continue
        kept.append(number)
        pictures.append(picture)
        sizes.append(size)
    new = {image: pictures, "width": [width for width, _ in sizes], "height": [height for _, height in sizes]}
    columns = []
    for field in schema:
        anew = field.name == image or (field.name in ("width", "height") and field.type == pa.int32())
        column = batch.column(field.name)
        columns.append(pa.array(new[field.name], field.type) if anew else column.take(pa.array(kept, pa.int64())))
    return Packed(pa.RecordBatch.from_arrays(columns, schema=schema), 1, set_aside)


def _name(batch: pa.RecordBatch, id_column: str, number: int, rows: Rows) -> str:
    if id_column in batch.schema.names:
        return str(batch.column(id_column)[number].as_py())
    return f"{rows.path}#{rows.start + number}"
