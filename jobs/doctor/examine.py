"""Puts together what footers and samples tell about a pool."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from shlex import quote
from statistics import median_low
from typing import Any

import numpy as np
import pyarrow as pa

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.health import MB, Finding, PoolHealth
from poolscore.engine.pool.listing import Listing, list_files
from poolscore.engine.reasons import by_kind
from poolscore.engine.storage.filesystem import reason
from poolscore.engine.words import amount
from poolscore.jobs.doctor.sample import (
    Groups,
    Ids,
    Pictures,
    picture_columns,
    sample_ids,
    sample_pictures,
    without_header,
)
from poolscore.jobs.pack.contract import printable
from poolscore.jobs.pack.parquet import Footer, read_footers

LARGE_SIDE = 512
"""Pixels of the shorter side from which pictures are called large: models take 224 to 384."""
_BROKEN = (OSError, pa.ArrowException)


@dataclass(frozen=True)
class Examination:
    """What `doctor` found.

    Attributes:
        pool: as it was given.
        schema: of the first file with rows.
        health: of all footers.
        bytes: of all files.
        pictures: column → its sample.
        ids: the ids that were compared; None without such a column.
        findings: what to mend.
    """

    pool: str
    schema: pa.Schema
    health: PoolHealth
    bytes: int
    pictures: dict[str, Pictures]
    ids: Ids | None
    findings: Sequence[Finding]

    def to_dict(self) -> dict[str, Any]:
        """For scripts."""
        health = self.health
        return {
            "pool": self.pool,
            "files": len(health.file_bytes),
            "rows": health.rows,
            "bytes": self.bytes,
            "row_groups": len(health.group_rows),
            "row_group_rows": _spread(health.group_rows),
            "row_group_bytes": _spread(health.group_bytes),
            "columns": {field.name: str(field.type) for field in self.schema},
            "codecs": {column: sorted(codecs) for column, codecs in health.codecs.items()},
            "nulls": dict(health.nulls),
            "with_empty_values": sorted(health.empty),
            "ids": None if self.ids is None else vars(self.ids),
            "pictures": {column: _picture_dict(pictures) for column, pictures in self.pictures.items()},
            "findings": [vars(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        health, about = self.health, self.to_dict()
        files = amount(about["files"], "file")
        yield f"{self.pool}: {amount(health.rows, 'row')} in {files}, {self.bytes / MB:,.1f} MB"
        low, middle, high = about["row_group_rows"]
        small, usual, large = (size / MB for size in about["row_group_bytes"])
        yield (
            f"{amount(about['row_groups'], 'row group')} (smallest, median, largest) of {low:,}, {middle:,}, {high:,} "
            f"rows; {small:,.1f}, {usual:,.1f}, {large:,.1f} MB"
        )
        for name, kind in about["columns"].items():
            yield f"column {name} ({kind}){self._column(name)}"
        for name, pictures in self.pictures.items():
            yield f"sample of {name}: {_told(pictures)}"
        if self.ids is not None:
            ids = amount(self.ids.rows, "id")
            yield f"{'all' if self.ids.whole else 'sample of'} {ids}: {self.ids.repeated:,} repeated"
        if not self.findings:
            yield "nothing to mend"
        for finding in self.findings:
            yield f"- {finding}"

    def _column(self, name: str) -> str:
        """What footers tell of a column, with the parts of nested ones."""
        health = self.health
        parts = [path for path in health.codecs if path == name or path.startswith(f"{name}.")]
        codecs = sorted(set().union(*(health.codecs[path] for path in parts)))
        text = f": {'/'.join(codecs).lower()}" if codecs else ""
        if nulls := sum(health.nulls.get(path, 0) for path in parts):
            text += f", {nulls:,} nulls"
        return text + (", with empty values" if any(path in health.empty for path in parts) else "")


def examine(pool: str, *, id_column: str = "id", rows: int = 256) -> Examination:
    """Looks at a pool.

    Args:
        pool: a file, a folder or a glob; a path or a URI.
        id_column: ids are compared where there is such a column.
        rows: pictures to decode of each column, about.

    Raises:
        ConfigError: nothing there, or no file with rows that can be read.
    """
    listing = list_files(pool)
    health = PoolHealth()
    schema: pa.Schema | None = None
    bad: list[str] = []
    files, numbers = array("q"), array("q")
    for number, footer in enumerate(read_footers(listing)):
        if not isinstance(footer, Footer):
            bad.append(footer[0])
            continue
        schema = footer.schema if schema is None and footer.health.rows else schema
        health.add(footer.path, footer.health)
        files.extend([number] * len(footer.health.group_rows))
        numbers.extend(range(len(footer.health.group_rows)))
    if schema is None:
        what = f"{len(bad):,} of them cannot be read (first: {bad[0]})" if bad else "they have no rows"
        raise ConfigError(f"{pool}: nothing to look at in {amount(len(listing.paths), 'file')}: {what}")
    groups = Groups(
        listing.root, listing.paths, *(np.array(part, np.int64) for part in (files, numbers, health.group_rows))
    )
    findings = [*_bad_files(bad, listing), *health.findings(pool)]
    pictures: dict[str, Pictures] = {}
    ids: Ids | None = None
    try:
        of_id = id_column if id_column in schema.names else None
        pictures = sample_pictures(groups, picture_columns(schema), rows, of_id)
        ids = sample_ids(groups, id_column) if of_id else None
        if pictures and health.nulls.get("width"):
            findings.append(_without_header(health.nulls["width"], without_header(groups, of_id)))
    except _BROKEN as error:
        what = f"a sample of rows cannot be read ({reason(error)})"
        findings.append(Finding("unreadable_rows", what, "", "write the damaged file again or take it out"))
    findings += [*_of_pictures(pictures, pool, schema), *_of_ids(ids, id_column, pool)]
    return Examination(pool, schema, health, int(listing.bytes.clip(0).sum()), pictures, ids, findings)


def _bad_files(bad: Sequence[str], listing: Listing) -> Iterator[Finding]:
    if bad:
        what = f"{len(bad):,} of {amount(len(listing.paths), 'file')} cannot be read"
        yield Finding(
            "unreadable_files", what, bad[0], "write them again, take them out, or set pool.bad_files to 'skip'"
        )


def _of_pictures(columns: dict[str, Pictures], pool: str, schema: pa.Schema) -> Iterator[Finding]:
    for column, pictures in columns.items():
        if pictures.rejected:
            count = sum(pictures.rejected.values())
            why, most = by_kind(pictures.rejected.items()).most_common(1)[0]
            what = f"{count:,} of {pictures.rows:,} sampled rows of '{column}' cannot be decoded ({most:,} × {why})"
            advice = "a run sets them aside in errors/; mend their source if many"
            yield Finding("rejected_pictures", what, _listed(pictures.named), advice)
        if pictures.turned:
            what = f"EXIF turns {pictures.turned:,} of {pictures.rows:,} sampled pictures of '{column}'"
            yield Finding("turned_pictures", what, "", "set decode.exif to what training did: ignore or apply")
        side = median_low(map(min, zip(pictures.widths, pictures.heights, strict=True)))
        if side >= LARGE_SIDE:
            what = f"half of the sampled pictures of '{column}' have a shorter side of {side:,} pixels or more"
            of_column = "" if column == "image" else f" --image-column {quote(column)}"
            advice = f"`poolscore pack {quote(pool)} NEW --resize SIDE{of_column}`"
            if pa.types.is_struct(schema.field(column).type):  # which pack does not resize
                advice = "store smaller ones"
            yield Finding("large_pictures", what, "", f"if the model takes far fewer, read less: {advice}")


def _without_header(count: int, named: Sequence[str]) -> Finding:
    what = f"{amount(count, 'picture')} without a readable header (null in 'width')"
    return Finding("no_header", what, _listed(named), "a run sets them aside in errors/; mend their source, pack again")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names))


def _of_ids(ids: Ids | None, column: str, pool: str) -> Iterator[Finding]:
    if ids is None:
        what = f"there is no column '{column}'"
        yield Finding(
            "no_ids",
            what,
            pool,
            "rows are known by file and row number, which repacking changes: name the "
            "id column with `--id-column`, or add one",
        )
        return
    if ids.repeated:
        what = f"{ids.repeated:,} of {ids.rows:,} ids repeat another, such as {ids.example!r}"
        yield Finding("repeated_ids", what, "", "such rows cannot be told apart in a selection: give each its own")
    if ids.nulls:
        yield Finding(
            "null_ids", f"{ids.nulls:,} of {ids.rows:,} ids are null", "", "such rows are set aside: fill them"
        )


def _spread(values: Sequence[int]) -> tuple[int, int, int]:
    return min(values), median_low(values), max(values)


def _picture_dict(pictures: Pictures) -> dict[str, Any]:
    about = {key: value for key, value in vars(pictures).items() if key not in ("widths", "heights", "sizes")}
    sizes = {name: _spread(getattr(pictures, name)) for name in ("widths", "heights", "sizes")}
    return {**about, **sizes, "odd": pictures.odd}


def _told(pictures: Pictures) -> str:
    (_, width, _), (_, height, _), (_, size, _) = (
        _spread(values) for values in (pictures.widths, pictures.heights, pictures.sizes)
    )
    formats = ", ".join(f"{count:,} {name}" for name, count in pictures.formats.most_common())
    text = f"{amount(pictures.rows, 'row')}: {formats}; {width:,}x{height:,} px and {size / 1000:,.1f} kB in the median"
    if pictures.odd:
        text += f"; of odd kinds {', '.join(f'{count:,} {mode}' for mode, count in pictures.odd.items())}"
    return text + (f"; {sum(pictures.rejected.values()):,} would be rejected" if pictures.rejected else "")
