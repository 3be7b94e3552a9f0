"""The other columns of the chosen rows, fetched part by part, and the rows put back into their order.

Up to BLOCK rows this happens in memory. More of them go over the local disk twice: sorted by part, because a part is to
be read once, and then by rank.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from poolscore.engine.selection.order import ROW, Rows, rows_at
from poolscore.engine.selection.parts import Part, Reader
from poolscore.engine.storage.filesystem import in_order

BLOCK = 1 << 18  # rows of a table, and of a row group of the selection's file
RANKED = np.dtype([*((name, ROW[name]) for name in ROW.names or ()), ("rank", "i8")])


@dataclass(frozen=True)
class Columns:
    """Reads columns of chosen rows. Memory: those of BLOCK chosen rows, and of `at_once` whole parts."""

    parts: Sequence[Part]
    score: str
    names: Sequence[str]  # beside the score
    at_once: int
    _reader: Reader = field(default_factory=Reader)

    def tables(self, blocks: Iterable[Rows], count: int) -> Iterator[pa.Table]:
        """Tables of up to BLOCK rows, in the order of the rows.

        Args:
            blocks: `count` rows, best first.
            count: rows.

        Returns:
            Tables: the fields of RANKED (rank from 1), score, and `names`. One, empty, where there are no rows.
        """
        if count <= BLOCK:
            yield self._fetched(np.concatenate([np.empty(0, RANKED), *_ranked(blocks)]))
            return
        with tempfile.TemporaryDirectory(prefix="poolscore-select-") as folder:
            by_part = _by_part(blocks, -(-2 * count // BLOCK), Path(folder))
            by_rank = [Path(folder) / f"ranks-{i}" for i in range(-(-count // BLOCK))]
            self._sort_into(by_rank, by_part)
            for path in by_rank:
                with pa.OSFile(str(path)) as file:
                    yield _by_rank(pa.ipc.open_stream(file).read_all())

    def _sort_into(self, by_rank: Sequence[Path], by_part: Iterable[Rows]) -> None:
        sinks = [pa.OSFile(str(path), "wb") for path in by_rank]
        try:
            writers = None
            for rows in by_part:
                table = self._fetched(rows)
                writers = writers or [pa.ipc.new_stream(sink, table.schema) for sink in sinks]
                bounds = np.searchsorted(table["rank"].to_numpy(), 1 + BLOCK * np.arange(len(sinks) + 1))
                for writer, (start, stop) in zip(writers, pairwise(bounds.tolist()), strict=True):
                    writer.write_table(table.slice(start, stop - start))
            for writer in writers or ():
                writer.close()
        finally:
            for sink in sinks:
                sink.close()

    def _fetched(self, ranked: Rows) -> pa.Table:
        """The columns of some rows, by rank."""
        ranked = rows_at(ranked, np.argsort(ranked["part"], kind="stable"))
        numbers, starts = np.unique(ranked["part"], return_index=True)
        groups = np.split(ranked, starts[1:])
        if not len(numbers):  # a table of no rows has its columns too
            numbers, groups = np.zeros(1, np.intp), [ranked]
        tables = in_order(
            lambda each: self._of_part(self.parts[each[0]], each[1]), zip(numbers, groups, strict=True), self.at_once
        )
        return _by_rank(pa.concat_tables(list(tables)))

    def _of_part(self, part: Part, ranked: Rows) -> pa.Table:
        with self._reader.opened(part) as file:
            places = ranked["place"].astype(np.int64)
            scores = file.numbers(self.score)[places]
            others = file.columns(self.names).take(pa.array(places))
        own = {name: pa.array(ranked[name]) for name in RANKED.names or ()}
        return pa.table({**own, "score": pa.array(scores), **{name: others[name] for name in self.names}})


def _ranked(blocks: Iterable[Rows]) -> Iterator[Rows]:
    first = 1
    for block in blocks:
        ranked = np.empty(len(block), RANKED)
        for name in ROW.names or ():
            ranked[name] = block[name]
        ranked["rank"] = np.arange(first, first + len(block))
        first += len(block)
        yield ranked


def _by_part(blocks: Iterable[Rows], count: int, folder: Path) -> Iterator[Rows]:
    """The rows in `count` groups, all rows of a part in one of them. Neighbouring parts, which are often alike, go into
    different ones."""
    paths = [folder / f"parts-{i}" for i in range(count)]
    for ranked in _ranked(blocks):
        group = ranked["part"] % count
        ranked = rows_at(ranked, np.argsort(group, kind="stable"))
        ends = np.cumsum(np.bincount(group, minlength=count)).tolist()
        for path, (start, end) in zip(paths, pairwise([0, *ends]), strict=True):
            with path.open("ab") as file:
                ranked[start:end].tofile(file)
    for path in paths:
        yield np.fromfile(path, RANKED)
        path.unlink()


def _by_rank(table: pa.Table) -> pa.Table:
    table = table.combine_chunks()
    return table.take(pa.array(np.argsort(table["rank"].to_numpy())))
