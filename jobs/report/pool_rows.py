"""Selected rows, read back from the pool: only their row groups, only some columns and the id.

The pool may have moved or changed since the run, so nothing here stops a report: what cannot be shown is counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.pool.plan import Plan
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.storage.filesystem import open_parquet, reason
from poolscore.engine.storage.uri import join

BLOCK = 64  # rows in memory at a time
MOST_BYTES = 4 << 30  # of row groups that are read for one report


def each_row(
    run: RunDirectory, rows: pa.Table, columns: Sequence[str], problems: Counter[str]
) -> Iterator[tuple[int, pa.Table]]:
    """The rows that can be read: row_id, and a table of one row with the columns.

    Args:
        run: says where the rows lie.
        rows: of a selection, best first; columns row_id and id.
        problems: is told of the others: reason → rows.
    """
    id_column = run.config.pool.id
    read = list(dict.fromkeys([*columns, *([id_column] if id_column else [])]))
    row_ids: list[Any] = rows["row_id"].to_pylist()
    ids = dict(zip(row_ids, rows["id"], strict=True))
    budget = MOST_BYTES
    for (path, group), places in _places(run.plan, ids).items():
        try:
            with open_parquet(join(run.plan.root, path)) as file:
                if (size := _bytes_of(file, group, columns)) > budget:
                    problems[f"more than {MOST_BYTES >> 30} GiB of the pool would have to be read"] += len(places)
                    continue
                budget -= size
                for row_id, row in _rows(file, group, places, read):
                    # Another row's picture would mislead.
                    if id_column is not None and row[id_column][0].as_py() != ids[row_id].as_py():
                        problems["the pool was changed since it was scored"] += 1
                    else:
                        yield row_id, row.select(columns)
        except FileNotFoundError:
            problems[f"the pool's file is gone ({join(run.plan.root, path)})"] += len(places)
        except (OSError, pa.ArrowException, IndexError, KeyError, ValueError) as error:
            problems[f"the pool's file cannot be read ({path}: {reason(error)})"] += len(places)


def _places(plan: Plan, row_ids: Iterable[int]) -> dict[tuple[str, int], dict[int, int]]:
    """(file, row group) → row in the group → row_id, in the order of the best row."""
    places: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    for row_id in row_ids:
        piece = plan.shards.piece_of(row_id)
        places[piece.path, piece.row_group][piece.start + row_id - piece.row_id] = row_id
    return places


def _bytes_of(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> int:
    about = file.metadata.row_group(group)
    chunks = (about.column(i) for i in range(about.num_columns))
    return sum(c.total_compressed_size for c in chunks if c.path_in_schema.partition(".")[0] in columns)


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
