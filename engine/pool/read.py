"""Step 3a: stream the rows of a shard, as blocks of a fixed number of rows."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError, PoolAway, UnreadableShard
from poolscore.engine.keys import IdSet, Keys, id_text, keys_of
from poolscore.engine.pool.choice import EVERY_ROW, RowChoice
from poolscore.engine.pool.chunks import REQUEST, bytes_of_row
from poolscore.engine.pool.fetch import OpenFile, ReadAhead
from poolscore.engine.pool.plan import UNKNOWN, Piece, Shard
from poolscore.engine.storage.filesystem import locate, may_pass, reason
from poolscore.engine.storage.uri import join

PARSED_BYTES = 4 << 20  # of rows, at most, that Arrow makes at once, where a block is smaller


@dataclass(frozen=True)
class Rows:
    """Rows of the pool in their order, less those that are excluded or not chosen."""

    table: pa.Table  # the columns in use, N rows
    row_ids: NDArray[np.int64]
    keys: Keys
    ids: pa.Array  # the user's id column, else "path#row"

    def __len__(self) -> int:
        return len(self.row_ids)

    def pick(self, keep: NDArray[np.bool_]) -> Rows:
        """The rows where `keep`, bool [N], is true."""
        at = pa.array(keep)
        return Rows(self.table.filter(at), self.row_ids[keep], self.keys[keep], self.ids.filter(at))

    def slice(self, start: int, stop: int) -> Rows:
        """Rows start..stop."""
        return Rows(
            self.table.slice(start, stop - start),
            self.row_ids[start:stop],
            self.keys[start:stop],
            self.ids.slice(start, stop - start),
        )


@dataclass
class _Count:
    """Rows met so far that filter and sample leave out."""

    filtered: int = 0


class Blocks(Iterator[Rows]):
    """Blocks of rows, as they are asked for. Nobody behind it holds it: a reader that is dropped is closed at once."""

    def __init__(self, blocks: Generator[Rows, None, None], count: _Count) -> None:
        self._blocks = blocks
        self._count = count

    def __next__(self) -> Rows:
        return next(self._blocks)

    @property
    def filtered(self) -> int:
        """Rows met so far that filter and sample leave out."""
        return self._count.filtered

    def close(self) -> None:
        """No more is wanted."""
        self._blocks.close()


class ShardReader:
    """Reads shards of one pool: only the needed columns, block after block."""

    def __init__(
        self,
        root: str,
        columns: Sequence[str],
        id_column: str | None,
        exclude: IdSet,
        choice: RowChoice = EVERY_ROW,
    ) -> None:
        self._root = root
        self._columns = choice.in_files([*columns, *([id_column] if id_column else [])])
        self._id_column = id_column
        self._exclude = exclude
        self._choice = choice
        self._wanted: NDArray[np.int64] | None = None

    def only(self, row_ids: NDArray[np.int64]) -> ShardReader:
        """A reader that gives these rows alone, as far as they count and the shards that are read hold them."""
        narrow = copy(self)
        narrow._wanted = row_ids
        return narrow

    def ahead(self, shard: Shard, budget: int = REQUEST) -> ReadAhead:
        """Begin to fetch a shard, at most `budget` bytes ahead of what is read of it."""
        return ReadAhead(self._open, shard.pieces, self._columns, budget)

    def blocks(self, shard: Shard, rows: int, source: ReadAhead | None = None) -> Blocks:
        """Blocks of exactly `rows` rows; the last of a shard may be shorter. Excluded rows do not count; a shard
        without other rows gives one empty block.

        Memory: what is fetched ahead, PARSED_BYTES of rows or one block, and a page of the file or two.

        Args:
            source: what `ahead(shard)` gave, which the caller closes.

        Raises:
            UnreadableShard: a file cannot be read, or is not what was planned.
        """
        count = _Count()
        return Blocks(self._blocks(count, shard, rows, source), count)

    def _blocks(self, count: _Count, shard: Shard, rows: int, source: ReadAhead | None) -> Generator[Rows, None, None]:
        if source is None:
            with self.ahead(shard) as source:
                yield from self._blocks(count, shard, rows, source)
            return
        waiting: list[Rows] = []
        given = 0
        for part in self._parts(count, shard, rows, source):
            if len(part) or not waiting:  # of few rows in many, most parts are empty
                waiting.append(part)
            if sum(map(len, waiting)) >= rows:
                joined = _join(waiting)
                whole = len(joined) - len(joined) % rows
                for start in range(0, whole, rows):
                    yield joined.slice(start, start + rows)
                waiting = [joined.slice(whole, len(joined))]
                given += whole
        rest = _join(waiting)
        if len(rest) or not given:
            yield rest

    def _parts(self, count: _Count, shard: Shard, rows: int, source: ReadAhead) -> Iterator[Rows]:
        try:
            for piece in shard.pieces:
                file = source.begin()
                if piece.file_bytes not in (UNKNOWN, source.file_bytes):
                    raise UnreadableShard(
                        f"{piece.path} has changed since the pool was planned: it had {piece.file_bytes:,} bytes, now "
                        f"{source.file_bytes:,}; bring the old file back, or begin anew with --fresh"
                    )
                found = 0
                for table in self._tables(file, piece, rows):
                    identified, filtered = self._identified(table, piece, found)
                    count.filtered += filtered
                    yield identified
                    found += table.num_rows
                if found != piece.rows:  # rows that are not there must not pass for excluded ones
                    raise UnreadableShard(f"{piece.path} has changed since the pool was planned: rows are missing")
        except (OSError, pa.ArrowException, KeyError) as error:
            raise UnreadableShard(f"{piece.path} cannot be read: {reason(error)}") from error

    def _open(self, path: str) -> OpenFile:
        location = locate(join(self._root, path))
        file = location.filesystem.open_input_file(location.path)
        return OpenFile(file, pq.read_metadata(file))

    def _tables(self, file: pq.ParquetFile, piece: Piece, rows: int) -> Iterator[pa.Table]:
        """The piece as tables of `rows` rows, or several times as many where rows are small. They fit together, also
        where the files of a shard differ in the order of their columns or in what may be null."""
        position = -piece.start  # a range inside a huge row group: what lies before it is read and dropped
        bytes_of_block = rows * bytes_of_row(file.metadata, piece.row_group, self._columns)
        at_once = rows * max(1, PARSED_BYTES // max(1, bytes_of_block))
        at_once = min(at_once, piece.start + piece.rows)  # what lies behind is not wanted
        batches = file.iter_batches(at_once, row_groups=[piece.row_group], columns=self._columns, use_threads=False)
        for batch in batches:
            skip = max(0, -position)
            take = min(batch.num_rows, piece.rows - position) - skip
            if take > 0:
                arrays = [_plain(batch.column(name).slice(skip, take)) for name in self._columns]
                # Only a batch says how many rows there are where no column is asked for.
                yield pa.table(arrays, self._columns) if arrays else pa.Table.from_batches([batch.slice(skip, take)])
            position += batch.num_rows
            if position >= piece.rows:
                return

    def _identified(self, table: pa.Table, piece: Piece, start: int) -> tuple[Rows, int]:
        """The rows that count, and how many filter and sample leave out."""
        table = self._choice.with_values(table, piece.path)
        row_ids = np.arange(piece.row_id + start, piece.row_id + start + table.num_rows, dtype=np.int64)
        if self._wanted is not None:
            wanted = np.isin(row_ids, self._wanted)
            table = table.filter(pa.array(wanted)) if wanted.any() else table.slice(0, 0)  # which keeps a chunk
            row_ids = row_ids[wanted]
        if self._id_column is None:
            text: list[str | bytes] = [*_places(piece, row_ids)]
            ids: pa.Array = pa.array(text, pa.string())
        else:
            ids = _combined(table[self._id_column])
            if pa.types.is_dictionary(ids.type):
                ids = ids.dictionary_decode()
            text = id_text(ids, f"pool.id column '{self._id_column}'")
            if ids.null_count:  # it will be rejected; until then it is known by its place
                text = [
                    place if value is None else value
                    for place, value in zip(_places(piece, row_ids), text, strict=True)
                ]
        keys = keys_of(text)
        rows = Rows(table, row_ids, keys, ids)
        keep = ~self._exclude.contains(text, keys)
        chosen = self._choice.keep(table, keys)
        if chosen is not None:
            keep &= chosen
        filtered = 0 if chosen is None else int((~chosen).sum())
        return rows if keep.all() else rows.pick(keep), filtered


def is_away(error: UnreadableShard) -> bool:
    """Whether no file is to blame: the storage failed in a way that may pass."""
    return error.__cause__ is not None and may_pass(error.__cause__)


def of_user(error: UnreadableShard, where: str, advice: str) -> ConfigError | PoolAway:
    """What is told where a part cannot be read before there is a shard to be set aside."""
    if is_away(error):
        return PoolAway(f"{where}: {error}; mend the storage, then run the same command again")
    return ConfigError(f"{where}: {error}; {advice}")


def _places(piece: Piece, row_ids: NDArray[np.int64]) -> list[str]:
    """By which rows without an id are known."""
    return [f"{piece.path}#{row}" for row in (row_ids - piece.row_id + piece.file_row).tolist()]


def _join(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return Rows(
        pa.concat_tables([part.table for part in parts]),
        np.concatenate([part.row_ids for part in parts]),
        np.concatenate([part.keys for part in parts]),
        pa.concat_arrays([part.ids for part in parts]),
    )


def _plain(array: pa.Array) -> pa.Array:
    """Text and binary views as plain text and binary: Arrow can neither filter nor take from views."""
    if pa.types.is_string_view(array.type):
        return array.cast(pa.large_string())
    return array.cast(pa.large_binary()) if pa.types.is_binary_view(array.type) else array


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
