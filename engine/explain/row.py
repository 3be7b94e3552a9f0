"""`explain`: all that a run directory says of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from poolscore.engine.errors import ConfigError, PoolscoreError, StoppedError
from poolscore.engine.exclude import read_ids
from poolscore.engine.explain.find import Found, RunParts, Standing, Wanted, wanted_id
from poolscore.engine.explain.picked import Membership, memberships
from poolscore.engine.explain.shortlisted import OnShortlist, on_shortlist
from poolscore.engine.keys import keys_of
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.shortlist.listing import look_at
from poolscore.engine.shortlist.read import about_shortlist
from poolscore.engine.words import amount


class Became(StrEnum):
    """What became of a row."""

    SCORED = "scored"
    REJECTED = "rejected"
    EXCLUDED = "excluded"
    LEFT_OUT = "left out"  # by filter or sample
    NOT_SCORED = "not scored"  # its shard has no result


@dataclass(frozen=True)
class Location:
    """Where a row lies in the pool, as the run's plan has it."""

    shard: int
    path: str  # relative to the pool's root
    row: int  # in the file
    row_group: int


@dataclass(frozen=True)
class Explanation:
    """All that is known of a row."""

    became: Became
    because: str  # in words, where it was not scored
    id: Any
    row_id: int | None
    location: Location | None
    row: pa.Table | None = None  # scored: one row: id, scores, prediction, confidence and kept columns
    standings: tuple[Standing, ...] = ()
    selections: tuple[Membership, ...] = ()
    has_shortlist: bool = False  # the run
    on_shortlist: OnShortlist | None = None  # None: the row is not
    no_shortlist: str | None = None  # why what it says cannot be read


def explain(run: RunDirectory, row: str | None = None, row_id: int | None = None) -> list[Explanation]:
    """What became of the rows with an id (several, where it stands in the pool more than once), or of one row.

    Args:
        row: its id as the pool has it, a number as it is written; path#row where the pool has no id column.
        row_id: instead of an id.

    Raises:
        ConfigError: not one of both is given, or there is no such row.
        StoppedError: a part of the run cannot be read.
    """
    if (row is None) == (row_id is None):
        raise ConfigError("explain: give an ID or --row-id N")
    if row is not None and run.config.pool.id is None:
        row_id = _row_id_of(run, row)
    if row_id is not None:
        return _of_row_id(run, row_id)
    assert row is not None
    parts, wanted = RunParts(run), wanted_id(row)
    found = [*_scored(run, parts, parts.scored_rows(wanted)), *_rejected(run, parts.rejected_rows(wanted))]
    return found or [_absent(run, parts, row)]


def _of_row_id(run: RunDirectory, row_id: int) -> list[Explanation]:
    plan, parts = run.plan, RunParts(run)
    try:
        location = _location(run, row_id)
    except IndexError:
        if 0 <= row_id < plan.rows + plan.passed_over:
            why = "its row group was left out by pool.filter or pool.sample"
            return [Explanation(Became.LEFT_OUT, why, None, row_id, None)]
        last = plan.rows + plan.passed_over - 1
        raise ConfigError(f"{run.storage.root}: there is no row {row_id}; rows are 0 to {last}") from None
    wanted, shards = Wanted("row_id", (row_id,)), [location.shard]
    found = [
        *_scored(run, parts, parts.scored_rows(wanted, shards)),
        *_rejected(run, parts.rejected_rows(wanted, shards)),
    ]
    return found or [_without_result(run, parts, row_id, location)]


def _location(run: RunDirectory, row_id: int) -> Location:
    """IndexError: no shard has it."""
    shards = run.plan.shards
    piece = shards.piece_of(row_id)
    shard = int(np.searchsorted(shards.row_ids, row_id, side="right")) - 1
    return Location(shard, piece.path, piece.file_row + row_id - piece.row_id, piece.row_group)


def _row_id_of(run: RunDirectory, place: str) -> int:
    """Of a row that is known by path#row."""
    path, _, row = place.rpartition("#")
    pieces = run.plan.pieces
    of_file = pieces.filter(pc.equal(pieces["path"].cast(pa.string()), path))
    if not path or not row.isdecimal() or not of_file.num_rows:
        raise ConfigError(f"{run.storage.root}: there is no row '{place}'; the pool has no id column: give path#row")
    first, row_ids, rows = (of_file[name].to_numpy() for name in ("file_row", "row_id", "rows"))
    inside = np.flatnonzero((first <= int(row)) & (int(row) < first + rows))
    if not len(inside):
        raise ConfigError(f"{run.storage.root}: no shard of this run has row {row} of {path}")
    return int(row_ids[inside[0]] + int(row) - first[inside[0]])


def _scored(run: RunDirectory, parts: RunParts, rows: Sequence[Found]) -> list[Explanation]:
    if not rows:
        return []
    shortlisted = [_on_shortlist(run, row.row_id) for row in rows]
    listed = [_is_listed(one) for one in shortlisted]
    return [
        Explanation(
            became=Became.SCORED,
            because="",
            id=row.row["id"][0].as_py(),
            row_id=row.row_id,
            location=_location(run, row.row_id),
            row=row.row,
            standings=standings,
            selections=picked,
            **of_shortlist,
        )
        for row, standings, picked, of_shortlist in zip(
            rows, parts.standings(rows), memberships(run, rows, listed), shortlisted, strict=True
        )
    ]


def _on_shortlist(run: RunDirectory, row_id: int) -> dict[str, Any]:
    """What the run's shortlist says of a row. One that is damaged spoils nothing else."""
    try:
        if about_shortlist(run) is None:
            return {}
        found = look_at(run, lambda listing: on_shortlist(run, listing, row_id))
        return {"has_shortlist": True, "on_shortlist": found}
    except StoppedError as error:
        return {"has_shortlist": True, "no_shortlist": str(error)}


def _is_listed(shortlisted: dict[str, Any]) -> bool | None:
    """Whether a row is on the run's shortlist; None: that is not known."""
    if not shortlisted.get("has_shortlist") or "no_shortlist" in shortlisted:
        return None
    return shortlisted["on_shortlist"] is not None


def _rejected(run: RunDirectory, rows: Sequence[Found]) -> list[Explanation]:
    return [
        Explanation(
            became=Became.REJECTED,
            because=f"{row.row['stage'][0].as_py()}: {row.row['error'][0].as_py()}",
            id=row.row["id"][0].as_py(),
            row_id=row.row_id,
            location=_location(run, row.row_id),
        )
        for row in rows
    ]


def _without_result(run: RunDirectory, parts: RunParts, row_id: int, location: Location) -> Explanation:
    """A row of the plan that no part has."""
    place = f"{location.path}#{location.row}" if run.config.pool.id is None else None
    report = parts.reports.get(location.shard)
    if report is None:
        why = (run.info.get("set_aside") or {}).get(str(location.shard))
        became, because = Became.NOT_SCORED, f"its shard was set aside: {why}" if why else "its shard has no result yet"
    elif not report.filtered:
        became, because = Became.EXCLUDED, "its id is in pool.exclude"
    elif not report.excluded:
        became, because = Became.LEFT_OUT, "pool.filter or pool.sample leaves it out"
    elif place is not None and _excluded(run, place):
        became, because = Became.EXCLUDED, "its id is in pool.exclude"
    else:
        became, because = Became.LEFT_OUT, "pool.filter, pool.sample or pool.exclude leaves it out"
    return Explanation(became, because, place, row_id, location)


def _absent(run: RunDirectory, parts: RunParts, wanted: str) -> Explanation:
    """An id that no scored and no rejected row has.

    Raises:
        ConfigError: the exclude list does not have it either.
    """
    if _excluded(run, wanted):
        return Explanation(Became.EXCLUDED, "its id is in pool.exclude", wanted, None, None)
    filtered = sum(report.filtered for report in parts.reports.values()) + run.plan.passed_over
    missing = len(run.plan.shards) - len(parts.reports)
    unseen = [f"the {amount(filtered, 'row')} that filter or sample left out"] * bool(filtered)
    unseen += [f"the {amount(missing, 'shard')} without a result"] * bool(missing)
    lists = run.config.pool.exclude_lists
    unseen += [", ".join(lists)] * (bool(lists) and _excluded(run, wanted) is None)
    maybe = f"; it may be among {' or in '.join(unseen)}" if unseen else ""
    raise ConfigError(f"{run.storage.root}: no scored or rejected row has the id '{wanted}'{maybe}")


def _excluded(run: RunDirectory, wanted: str) -> bool | None:
    """Whether the run's exclude list has it; None: that cannot be read any more."""
    try:
        ids = read_ids(run.config.pool.exclude, run.config.pool.id)
    except PoolscoreError:
        return None
    return bool(ids.contains([wanted], keys_of([wanted]))[0])
