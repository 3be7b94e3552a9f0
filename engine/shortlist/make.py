"""Making a shortlist at the end of a run, while the workers still have the model.

Each row group is read from its start to the last of its rows that is wanted, and each batch has the run's shape.
Workers write parts of unique names; `shortlist.json`, written last, says which of them count.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.inputs.thumbnail import picture_input
from poolscore.engine.prepare import Prepared
from poolscore.engine.run.directory import RunDirectory, write_json
from poolscore.engine.run.errands import ErrandState, run_errands
from poolscore.engine.run.fleet import Fleet
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.mixed import Profile, differences
from poolscore.engine.run.task import LookAgain, Task
from poolscore.engine.run.totals import Totals
from poolscore.engine.scores import Task as Kind
from poolscore.engine.selection.choice import Choice
from poolscore.engine.shortlist.centre import centre_of, draw_scored
from poolscore.engine.shortlist.cut import Labelled, tasks_of
from poolscore.engine.shortlist.look import width_of
from poolscore.engine.shortlist.outcome import Outcome, Tasks
from poolscore.engine.shortlist.read import ABOUT, FOLDER, FORMAT, OURS, about_shortlist, new_name
from poolscore.engine.shortlist.rows import find_rows
from poolscore.engine.shortlist.wanted import made_of, wanted_of
from poolscore.engine.worker.profile import numeric_settings

THUMBNAIL_BYTES = 8 << 10  # of one, about
_TEMPORARY = re.compile(rf"\.({OURS}|shortlist\.json)\.[0-9a-f]{{8}}\.tmp")


@dataclass(frozen=True)
class Made:
    """What became of a shortlist."""

    rows: int
    notes: Sequence[str] = ()  # why it is smaller than it was to be, or not there
    seconds: float = 0.0
    labelled: int | None = None  # rows of shortlist.labelled whose features it has; None: none are named

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)


def require_possible(prepared: Prepared, labelled: Labelled | None) -> None:
    """Refuse, before hours are spent, what cannot be made a shortlist of at their end.

    Raises:
        ConfigError: no labelled row can be decoded, or the batch is to be selected from fewer rows than it has.
    """
    if labelled is not None:
        labelled.require_decodable(prepared)
    choice, most = Choice.of(prepared.config), prepared.config.shortlist.max_bytes
    if choice.needs_shortlist and most < choice.k * (size := _bytes_of_row(prepared)):
        raise ConfigError(
            f"shortlist.max_bytes: {most:,} are too few for select.k={choice.k} rows of {size:,} bytes, of which the "
            f"batch is selected; give {choice.k * size:,} or more"
        )


def make_shortlist(
    run: RunDirectory,
    prepared: Prepared,
    labelled: Labelled | None,
    fleet: Callable[[], Fleet],
    require_ours: Callable[[], None],
    on_progress: Callable[[ErrandState], None] = lambda state: None,
) -> Made | None:
    """Make the run's shortlist, if it has not the one that is wanted.

    Args:
        fleet: opens one, or gives the one that is open.
        require_ours: raises where another driver works on the run.
        on_progress: called about once a second.

    Returns:
        None: no shortlist is wanted.

    Raises:
        PoolscoreError: it cannot be made. What was written so far counts for nothing.
    """
    started = time.monotonic()
    reports = run.reports()
    wanted = wanted_of(reports, prepared.config, labelled)
    if not wanted["rows"]:
        return None
    about = made_of(run, wanted)
    if about is None:
        about = _make(run, prepared, labelled, reports, wanted, fleet, on_progress)
        require_ours()
        write_json(run.storage, ABOUT, about)
    named = sum(part["rows"] for part in about["labelled"]) if labelled is not None else None
    return Made(about["rows"], about["notes"], round(time.monotonic() - started, 3), named)


def sweep_shortlist(run: RunDirectory, require_ours: Callable[[], None]) -> None:
    """Take away what `shortlist.json` does not name: of attempts that were stopped, and of earlier shortlists. Only
    names of our own form are touched.

    Raises:
        StoppedError: another driver works on the run.
    """
    about = about_shortlist(run) or {"table": None, "centre": None, "parts": (), "labelled": ()}
    named = {about["table"], about["centre"], *(part["name"] for part in (*about["parts"], *about["labelled"]))}
    found = [name for name in run.storage.names(FOLDER) if re.fullmatch(OURS, name)]
    found += [name for name in run.storage.leftovers(FOLDER) if _TEMPORARY.fullmatch(name)]
    require_ours()
    for name in found:
        if f"{FOLDER}/{name}" not in named:
            run.storage.delete(f"{FOLDER}/{name}")


def _make(
    run: RunDirectory,
    prepared: Prepared,
    labelled: Labelled | None,
    reports: Mapping[int, ShardReport],
    wanted: Mapping[str, Any],
    fleet: Callable[[], Fleet],
    on_progress: Callable[[ErrandState], None],
) -> dict[str, Any]:
    config = prepared.config
    size = _bytes_of_row(prepared)
    room = config.shortlist.max_bytes // size
    if not room:
        raise ConfigError(f"shortlist.max_bytes: one row takes {size:,} bytes; raise it")
    table, cut = find_rows(run, config, reports, wanted["rows"], room)
    tasks = _tasks(run, prepared, labelled, reports, table)
    all_tasks: list[Task] = list(chain(*tasks.all()))
    # Not run.shard_timeout, which is for neighbouring rows: of these each may lie in a row group of its own.
    became = run_errands(fleet(), all_tasks, _why_not(run, config), run.note, on_progress=on_progress)
    outcome = Outcome(tasks, became)
    outcome.require_labelled()
    parts = outcome.parts(tasks.wanted)
    if not parts:
        raise StoppedError(f"no row could be inferred once more: {outcome.why_none()}")
    table = table.filter(pa.array(np.isin(table["row_id"].to_numpy(), outcome.row_ids())))
    centre_F = centre_of(run, outcome.parts(tasks.sample) or parts)
    return {
        "format": FORMAT,
        "rows": table.num_rows,
        "table": _publish(run, "rows", ".parquet", lambda file: pq.write_table(table, file, compression="zstd")),
        "parts": [asdict(part) for part in parts],
        "labelled": [asdict(part) for part in outcome.parts(tasks.labelled)],
        "centre": _publish(run, "centre", ".npy", lambda file: np.save(file, centre_F)),
        "passes": config.passes.count,
        "log_probs": config.model.task is not Kind.REGRESSION,
        "shared_masks": config.passes.masks == "shared",
        "missing": outcome.missing,
        "cut": bool(cut),
        "row_bytes": size,
        "notes": [*cut, *outcome.losses()],
        "wanted": wanted,
    }


def _bytes_of_row(prepared: Prepared) -> int:
    """Of a part, about."""
    config, scorer = prepared.config, prepared.scorer
    with numeric_settings(config.run.threads):
        features_NF = scorer.model.features(scorer.decoder.blank(config.run.batch_size))
    passes = config.passes.count * width_of(prepared.job.probe.outputs, config.model.task)
    picture = THUMBNAIL_BYTES if config.shortlist.thumbnail and picture_input(config) is not None else 0
    return 4 * (passes + features_NF.shape[1]) + picture


def _tasks(
    run: RunDirectory,
    prepared: Prepared,
    labelled: Labelled | None,
    reports: Mapping[int, ShardReport],
    table: pa.Table,
) -> Tasks:
    config, plan = prepared.config, prepared.plan
    row_ids, keys = table["row_id"].to_numpy(), table["key"].to_numpy()
    first = len(plan.shards)
    wanted = tasks_of(plan, row_ids, keys, config, first, whole=True)
    sample: list[LookAgain] = []
    if table.num_rows < Totals.of(reports).scored:
        sample = tasks_of(plan, *draw_scored(run, prepared, reports), config, first + len(wanted), whole=False)
    return Tasks(wanted, sample, labelled.numbered(first + len(wanted) + len(sample)) if labelled is not None else ())


def _why_not(run: RunDirectory, config: Config) -> Callable[[Profile], str | None]:
    """Workers whose logits would differ in their last bits from those that were scored are not used."""
    there: Profile | None = run.info["profile"]

    def why_not(profile: Profile) -> str | None:
        if config.run.allow_mixed or there is None or not (different := differences(profile, there)):
            return None
        named = ", ".join(different)
        return f"a worker has another numeric profile than the run: {named}; use its machines, or run.allow_mixed=true"

    return why_not


def _publish(run: RunDirectory, what: str, suffix: str, fill: Callable[[Any], object]) -> str:
    name = new_name(what, suffix)
    run.storage.publish(name, fill)
    return name
