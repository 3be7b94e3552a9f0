"""The pictures of selected rows, read back from the pool: only their row groups, only the picture's column and the id.

The pool may have moved or changed since the run, so nothing here stops a report: what cannot be shown is counted.
"""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.config import ImageDecode
from poolscore.engine.filesystem import open_parquet, reason
from poolscore.engine.inputs.base import BadRow
from poolscore.engine.inputs.image import encoded_bytes
from poolscore.engine.inputs.thumbnail import picture_input, shrunken
from poolscore.engine.pool.plan import Plan
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.uri import join

EDGE = 96  # pixels of a thumbnail
BLOCK = 64  # pictures in memory at a time
MOST_BYTES = 4 << 30  # of row groups that are read for one report


@dataclass(frozen=True)
class Picture:
    """A thumbnail, ready for the page."""

    uri: str  # data:
    width: int  # pixels on the page
    height: int
    pixelated: bool  # enlarged: show the pixels as they are


@dataclass
class Pictures:
    """What could be read, and why the rest could not."""

    by_row: dict[int, Picture] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)  # reason → rows


def read_pictures(run: RunDirectory, rows: pa.Table) -> Pictures | None:
    """Thumbnails of rows of a selection.

    Args:
        run: says where the rows lie.
        rows: columns row_id and id, best first.

    Returns:
        None where the pool has no pictures.
    """
    decode = picture_input(run.config)
    if decode is None or decode.column is None:
        return None
    columns = list(dict.fromkeys([decode.column, *([run.config.pool.id] if run.config.pool.id else [])]))
    row_ids: list[Any] = rows["row_id"].to_pylist()
    ids = dict(zip(row_ids, rows["id"], strict=True))
    found = Pictures()
    budget = MOST_BYTES
    for (path, group), places in _places(run.plan, ids).items():
        try:
            with open_parquet(join(run.plan.root, path)) as file:
                budget -= _bytes_of(file, group, decode.column)
                if budget < 0:
                    found.problems[f"more than {MOST_BYTES >> 30} GiB of the pool would have to be read"] += len(places)
                    continue
                for row_id, row in _rows(file, group, places, columns):
                    _show(found, row_id, row, decode, run.config.pool.id, ids[row_id])
        except FileNotFoundError:
            found.problems[f"the pool's file is gone ({join(run.plan.root, path)})"] += len(places)
        except (OSError, pa.ArrowException, IndexError, KeyError, ValueError) as error:
            found.problems[f"the pool's file cannot be read ({path}: {reason(error)})"] += len(places)
    return found


def thumbnail(data: bytes, decode: ImageDecode) -> Picture:
    """Decode, shrink to EDGE pixels and encode again; nothing of the original file reaches the page.

    Raises:
        BadRow: no picture that can be decoded.
    """
    small = shrunken(data, decode, EDGE)
    times = EDGE // max(small.width, small.height) if small.small else 1
    uri = f"data:image/jpeg;base64,{base64.b64encode(small.data).decode()}"
    return Picture(uri, small.width * times, small.height * times, pixelated=small.small)


def _places(plan: Plan, row_ids: Iterable[int]) -> dict[tuple[str, int], dict[int, int]]:
    """(file, row group) → row in the group → row_id, in the order of the best row."""
    places: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    for row_id in row_ids:
        piece = plan.shards.piece_of(row_id)
        places[piece.path, piece.row_group][piece.start + row_id - piece.row_id] = row_id
    return places


def _bytes_of(file: pq.ParquetFile, group: int, column: str) -> int:
    about = file.metadata.row_group(group)
    chunks = (about.column(i) for i in range(about.num_columns))
    return sum(c.total_compressed_size for c in chunks if c.path_in_schema.partition(".")[0] == column)


def _rows(
    file: pq.ParquetFile, group: int, places: dict[int, int], columns: list[str]
) -> Iterator[tuple[int, pa.Table]]:
    """Tables of one row each; no more of the row group is read than up to the last of them."""
    start, last = 0, max(places)
    for batch in file.iter_batches(BLOCK, row_groups=[group], columns=columns):
        table = pa.Table.from_batches([batch])
        for place in sorted(p for p in places if start <= p < start + batch.num_rows):
            yield places[place], table.slice(place - start, 1)
        start += batch.num_rows
        if start > last:
            return
    raise ValueError("it has fewer rows than when it was scored")


def _show(found: Pictures, row_id: int, row: pa.Table, decode: ImageDecode, id_column: str | None, known: Any) -> None:
    assert decode.column is not None
    if id_column is not None and row[id_column][0].as_py() != known.as_py():
        found.problems["the pool was changed since it was scored"] += 1  # another row's picture would mislead
        return
    (data,) = encoded_bytes(row[decode.column])
    try:
        if not isinstance(data, bytes):
            raise BadRow("no encoded picture")
        found.by_row[row_id] = thumbnail(data, decode)
    except BadRow as error:
        found.problems[f"the picture cannot be decoded ({error})"] += 1
