"""What every scenario must end in: the bits of the undisturbed run, every row once, and nothing left lying about."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from poolscore.engine.run.directory import SELECTION, SUCCESS, RunDirectory
from poolscore.engine.shortlist.read import ABOUT, about_shortlist, read_shortlist
from poolscore.engine.storage.filesystem import locate

# What a driver writes after it has swept; killed at that it may leave a file of some bytes, and nobody comes after it.
LAST = re.compile(r"(^|/)\.(_SUCCESS|closed\.json|report\.html)\.")


@dataclass(frozen=True)
class Outcome:
    """What a run came to, in the order of the pool."""

    rows: int  # of the pool
    scores: pa.Table
    errors: pa.Table
    selection: bytes


def outcome(run_dir: str) -> Outcome:
    """Read a run as its journal names it."""
    run = RunDirectory(run_dir)
    reports = run.reports().values()
    return Outcome(
        rows=run.info["pool"]["rows"],
        scores=_in_order(run, [report.scores for report in reports]),
        errors=_in_order(run, [report.errors for report in reports if report.errors]),
        selection=run.storage.read(SELECTION),
    )


def same(run_dir: str, reference: Outcome) -> None:
    """Require that a run is whole, and the same as the undisturbed one."""
    same_results(run_dir, reference)
    no_orphans(run_dir)


def same_results(run_dir: str, reference: Outcome) -> None:
    """Require what `same` does, but for objects that nobody counts."""
    found = outcome(run_dir)
    rows = [*found.scores["row_id"].to_pylist(), *found.errors["row_id"].to_pylist()]
    assert sorted(rows) == list(range(reference.rows)), "not every row is there exactly once"
    for name, there, here in (
        ("scores", reference.scores, found.scores),
        ("errors", reference.errors, found.errors),
    ):
        assert here.schema == there.schema, f"{name}: other columns"
        for column in there.column_names:
            assert _bits(here[column]) == _bits(there[column]), f"{name}: '{column}' has other bits"
    assert found.selection == reference.selection, "another selection"
    run = RunDirectory(run_dir)
    assert read_shortlist(run).rows.num_rows, "no shortlist"
    assert SUCCESS in run.storage.names(""), "no _SUCCESS"
    assert run.info["status"] == "done", f"run.json says '{run.info['status']}': {run.info.get('stopped_by')}"
    counted = run.info["totals"]["scored"] + run.info["totals"]["rejected"]
    assert counted == reference.rows, f"run.json counts {counted} rows"


def no_orphans(run_dir: str) -> None:
    """Require that the run directory holds no part that nobody counts, and nothing half-written."""
    run = RunDirectory(run_dir)
    counted = {name for report in run.reports().values() for name in (report.scores, report.errors) if name}
    there = objects(run_dir)
    hidden = [name for name in there if name.rpartition("/")[2].startswith(".") and not LAST.search(name)]
    assert not hidden, f"left half-written: {hidden}"
    about = about_shortlist(run) or {"table": None, "centre": None, "parts": (), "labelled": ()}
    counted |= {ABOUT, about["table"], about["centre"], *(part["name"] for part in about["parts"])}
    folders = ("scores/", "errors/", "shortlist/")
    orphans = [name for name in there if name.startswith(folders) and name not in counted]
    assert not orphans, f"orphans: {orphans}"


def objects(run_dir: str) -> list[str]:
    """Names of all objects below a run directory, hidden ones too."""
    at = locate(run_dir)
    found = at.filesystem.get_file_info(fs.FileSelector(at.path, recursive=True, allow_not_found=True))
    return [entry.path[len(at.path) :].strip("/") for entry in found if entry.is_file]


def status(run_dir: str) -> str:
    """What run.json says; 'none' where there is none."""
    try:
        return str(json.loads(RunDirectory(run_dir).storage.read("run.json"))["status"])
    except Exception:
        return "none"


def _in_order(run: RunDirectory, names: list[str]) -> pa.Table:
    tables = []
    for name in names:
        at = locate(run.storage.path(name))
        tables.append(pq.read_table(at.path, filesystem=at.filesystem))
    return pa.concat_tables(tables).sort_by("row_id")


def _bits(column: pa.ChunkedArray) -> list[object]:
    """Values by which two columns can be compared to the last bit: −0 is not 0."""
    as_numbers = {pa.float32(): pa.int32(), pa.float64(): pa.int64()}
    whole = column.combine_chunks()
    values: list[object] = whole.view(as_numbers.get(whole.type, whole.type)).to_pylist()
    return values
