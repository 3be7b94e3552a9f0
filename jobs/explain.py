"""`poolscore explain`: why a row is where it is, in plain lines or for scripts."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.explain.find import Standing
from poolscore.engine.explain.picked import Membership
from poolscore.engine.explain.row import Explanation
from poolscore.engine.explain.shortlisted import Column, Neighbour, Passes
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.scores import Task
from poolscore.engine.selection.control import CONTROL
from poolscore.engine.shortlist.read import about_shortlist, thumbnails
from poolscore.jobs.report.balance import class_name
from poolscore.jobs.report.text import column_texts, number, percent

SHOWN = 20  # passes
OPTIONAL = ("perturbed_score", "step", "gain", "run")  # of what a selection says, shown where it says it


def lines_of(found: Explanation, config: Config) -> list[str]:
    """What a person reads."""
    lines = [f"row {_id(found.id) if found.id is not None else found.row_id}"]
    lines += _table([("  ", name, text) for name, text in _facts(found, config)])
    if found.row is None:
        return lines
    lines += ["", "scores, and the place among all scored rows", *_table([_standing(s) for s in found.standings])]
    lines += ["", "selections", *(f"  {membership_in_words(m, found.standings)}" for m in found.selections)]
    if not found.selections:
        lines.append("  none is written yet")
    return [*lines, "", *_from_shortlist(found, config)]


def to_dict(found: Explanation, config: Config) -> dict[str, Any]:
    """For scripts."""
    told: dict[str, Any] = {
        "id": _id(found.id) if isinstance(found.id, bytes) else found.id,
        "row_id": found.row_id,
        "became": found.became.value,
        "because": found.because or None,
        "location": asdict(found.location) if found.location is not None else None,
    }
    if found.row is None:
        return told
    shortlisted = found.on_shortlist
    return {
        **told,
        **{name: _value(found, name) for name in ("prediction", "confidence")},
        "kept": {name: _value(found, name) for name in config.pool.keep},
        "scores": {s.score: {"value": s.value, "rank": s.rank, "of": s.of, "share": s.share} for s in found.standings},
        "selections": [asdict(membership) for membership in found.selections],
        "shortlist": None
        if shortlisted is None
        else {
            "passes": asdict(shortlisted.passes),
            "nearest": [{**asdict(n), "near_duplicate": n.near_duplicate} for n in shortlisted.neighbours],
        },
        **({"no_shortlist": found.no_shortlist} if found.no_shortlist is not None else {}),
    }


def write_thumbnail(run: RunDirectory, found: Sequence[Explanation], out: Path) -> str:
    """Write the picture of a row as the shortlist has it; says what was written.

    Raises:
        ConfigError: there is none, there are several rows, or it cannot be written.
    """
    if len(found) > 1:
        raise ConfigError(f"--thumbnail: {len(found)} rows have this id; choose one with --row-id")
    row_id = found[0].row_id
    has_any = row_id is not None and about_shortlist(run) is not None
    data = thumbnails(run, [row_id]).get(row_id) if has_any and row_id is not None else None
    if data is None:
        raise ConfigError(
            "--thumbnail: there is none of this row; rows of the shortlist have one, if they are pictures"
        )
    try:
        out.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"--thumbnail: {out} cannot be written ({error.strerror or error})") from error
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
        return f"{out}: {picture.format}, {picture.width} x {picture.height} pixels"


def _facts(found: Explanation, config: Config) -> Iterator[tuple[str, str]]:
    if found.location is not None:
        at = found.location
        yield "lies in", f"{at.path}, row {at.row} (row group {at.row_group})"
    if found.row_id is not None:
        yield "row_id", f"{found.row_id}" + (f", shard {found.location.shard}" if found.location is not None else "")
    yield "became", found.became.value + (f" ({found.because})" if found.because else "")
    if found.row is None:
        return
    prediction, confidence = _value(found, "prediction"), _value(found, "confidence")
    text = class_name(prediction, config) if isinstance(prediction, int) else _text(found, "prediction")
    yield "prediction", text + (f", confidence {number(confidence)}" if confidence is not None else "")
    for name in config.pool.keep:
        yield name, _text(found, name)


def _standing(standing: Standing) -> tuple[str, str, str, str]:
    if standing.rank is None:
        return "  ", standing.score, number(standing.value), "no finite number"
    place = f"{standing.rank:,} of {standing.of:,} ({percent(standing.rank, standing.of)})"
    return "  ", standing.score, number(standing.value), place


def membership_in_words(membership: Membership, standings: Sequence[Standing]) -> str:
    """Whether a row is in a selection, and why."""
    if membership.why is None:
        return f"{membership.file}: not in it, {_why_not(membership, standings)}"
    why = membership.why
    by = "drawn at random from all rows" if why["method"] == CONTROL else f"by {why['method']}"
    told = {why["score_name"]: why["score"], **{name: why[name] for name in OPTIONAL if name in why}}
    more = "".join(f", {name} {number(v) if isinstance(v, float) else v}" for name, v in told.items())
    return f"{membership.file}: rank {why['rank']:,} of {membership.rows:,}, {by}{more}"


def _why_not(membership: Membership, standings: Sequence[Standing]) -> str:
    standing = next((s for s in standings if s.score == membership.score), None)
    if standing is None or standing.rank is None:
        return membership.left_out or f"it has {membership.rows:,} rows"
    place = f"place {standing.rank:,} by {standing.score}, and it has {membership.rows:,} rows"
    by = "" if membership.method == "topk" else f", chosen by {membership.method}"
    why = f": {membership.left_out}" if membership.left_out is not None else ""
    return f"{place}{by}{why}"


def _from_shortlist(found: Explanation, config: Config) -> list[str]:
    if found.on_shortlist is None:
        if found.no_shortlist is not None:
            return [f"the shortlist cannot be read: {found.no_shortlist}"]
        what = "the row is not on the shortlist" if found.has_shortlist else "the run has no shortlist"
        return [f"{what}: what its passes said, its nearest rows and its thumbnail are not known"]
    return [*_passes(found.on_shortlist.passes, config), "", *_nearest(found.on_shortlist.neighbours)]


def _passes(passes: Passes, config: Config) -> list[str]:
    names = [_column_name(column.number, passes.task, config) for column in passes.columns]
    rows = [(*_of_column(name, column),) for name, column in zip(names, passes.columns, strict=True)]
    head = ("  ", "", "mean", "std") + (("votes",) if passes.columns[0].votes is not None else ())
    lines = [f"what its {passes.count} passes said", *_table([head, *rows])]
    if passes.more:
        lines.append(f"  and {passes.more:,} more")
    said = ("says",) if passes.says is not None else ()
    table = [("  ", "pass", *names, *said)]
    for t in range(min(passes.count, SHOWN)):
        values = [f"{column.by_pass[t]:.3f}" for column in passes.columns]
        says = (class_name(passes.says[t], config),) if passes.says is not None else ()
        table.append(("  ", str(t + 1), *values, *says))
    lines += ["", *_table(table)]
    if passes.count > SHOWN:
        lines.append(f"  … and {passes.count - SHOWN:,} more (--json has all)")
    return lines


def _of_column(name: str, column: Column) -> tuple[str, ...]:
    votes = (str(column.votes),) if column.votes is not None else ()
    return "  ", name, f"{column.mean:.3f}", f"{column.std:.3f}", *votes


def _column_name(index: int, task: Task, config: Config) -> str:
    if task is Task.REGRESSION:
        return f"output {index}"
    return class_name(index, config)


def _nearest(neighbours: Sequence[Neighbour]) -> list[str]:
    if not neighbours:
        return ["no other row of the batch is on the shortlist"]
    rows = [
        ("  ", f"{n.cosine:.3f}", f"rank {n.rank:,}", _id(n.id), "near-duplicate" if n.near_duplicate else "")
        for n in neighbours
    ]
    return ["nearest rows of the batch, by the cosine of their features", *_table(rows)]


def _id(value: object) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)


def _text(found: Explanation, name: str) -> str:
    assert found.row is not None
    return column_texts(found.row[name])[0]


def _value(found: Explanation, name: str) -> Any:
    """A value that JSON has, or as text."""
    assert found.row is not None
    with suppress(ValueError):  # text that is none
        value = found.row[name][0].as_py()
        if value is None or isinstance(value, bool | int | float | str | list):
            return value
    return _text(found, name)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Cells in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
