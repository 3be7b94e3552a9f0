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
from poolscore.engine.profile import numeric_settings
from poolscore.engine.run.directory import RunDirectory, write_json
from poolscore.engine.run.errands import Errands, run_errands
from poolscore.engine.run.fleet import Fleet
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.mixed import Profile, differences
from poolscore.engine.run.task import LookAgain, LookAtLabelled, Task
from poolscore.engine.run.totals import Totals
from poolscore.engine.scores import Task as Kind
from poolscore.engine.selection.choice import Choice
from poolscore.engine.shortlist.centre import centre_of, draw_scored
from poolscore.engine.shortlist.cut import Labelled, tasks_of
from poolscore.engine.shortlist.look import width_of
from poolscore.engine.shortlist.read import ABOUT, FOLDER, FORMAT, OURS, Looked, Written, about_shortlist, new_name
from poolscore.engine.shortlist.rows import find_rows
from poolscore.engine.shortlist.wanted import made_of, wanted_of
from poolscore.engine.words import amount

THUMBNAIL_BYTES = 8 << 10  # of one, about
_TEMPORARY = re.compile(rf"\.({OURS}|shortlist\.json)\.[0-9a-f]{{8}}\.tmp")


_SomeTasks = Sequence[LookAgain] | Sequence[LookAtLabelled]


@dataclass(frozen=True)
class Made:
    """What became of a shortlist."""

    rows: int
    notes: Sequence[str] = ()  # why it is smaller than it was to be, or not there
    seconds: float = 0.0

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
) -> Made | None:
    """Make the run's shortlist, if it has not the one that is wanted.

    Args:
        fleet: opens one, or gives the one that is open.
        require_ours: raises where another driver works on the run.

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
        about = _make(run, prepared, labelled, reports, wanted, fleet)
        require_ours()
        write_json(run.storage, ABOUT, about)
    return Made(about["rows"], about["notes"], round(time.monotonic() - started, 3))


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


@dataclass(frozen=True)
class _Tasks:
    wanted: Sequence[LookAgain]
    sample: Sequence[LookAgain]  # of the pool; none where all rows are wanted
    labelled: Sequence[LookAtLabelled]

    def all(self) -> tuple[_SomeTasks, ...]:
        """Of each kind."""
        return self.wanted, self.sample, self.labelled


def _make(
    run: RunDirectory,
    prepared: Prepared,
    labelled: Labelled | None,
    reports: Mapping[int, ShardReport],
    wanted: Mapping[str, Any],
    fleet: Callable[[], Fleet],
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
    became = run_errands(fleet(), all_tasks, _why_not(run, config), run.note)
    _require_labelled(became, tasks.labelled)
    parts = _done(became, tasks.wanted)
    if not parts:
        whys = [*became.failed.values(), *_left_out(became, tasks.wanted).values()]
        raise StoppedError(f"no row could be inferred once more: {whys[0]}")
    there = np.concatenate([task.row_ids for task in tasks.wanted if task.shard.index in became.done])
    there = np.setdiff1d(there, list(_left_out(became, tasks.wanted)))
    table = table.filter(pa.array(np.isin(table["row_id"].to_numpy(), there)))
    centre_F = centre_of(run, _done(became, tasks.sample) or parts)
    return {
        "format": FORMAT,
        "rows": table.num_rows,
        "table": _publish(run, "rows", ".parquet", lambda file: pq.write_table(table, file, compression="zstd")),
        "parts": [asdict(part) for part in parts],
        "labelled": [asdict(part) for part in _done(became, tasks.labelled)],
        "centre": _publish(run, "centre", ".npy", lambda file: np.save(file, centre_F)),
        "passes": config.passes.count,
        "log_probs": config.model.task is not Kind.REGRESSION,
        "shared_masks": config.passes.masks == "shared",
        "missing": sum(_lost(became, some) for some in tasks.all()),
        "cut": bool(cut),
        "row_bytes": size,
        "notes": [*cut, *_losses(became, tasks)],
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
) -> _Tasks:
    config, plan = prepared.config, prepared.plan
    row_ids, keys = table["row_id"].to_numpy(), table["key"].to_numpy()
    first = len(plan.shards)
    wanted = tasks_of(plan, row_ids, keys, config, first, whole=True)
    sample: list[LookAgain] = []
    if table.num_rows < Totals.of(reports).scored:
        sample = tasks_of(plan, *draw_scored(run, prepared, reports), config, first + len(wanted), whole=False)
    return _Tasks(wanted, sample, labelled.numbered(first + len(wanted) + len(sample)) if labelled is not None else ())


def _looked(became: Errands, tasks: _SomeTasks) -> list[Looked]:
    return [became.done[task.shard.index] for task in tasks if task.shard.index in became.done]


def _done(became: Errands, tasks: _SomeTasks) -> list[Written]:
    """Parts that hold a row."""
    return [looked.part for looked in _looked(became, tasks) if looked.part.rows]


def _left_out(became: Errands, tasks: _SomeTasks) -> dict[int, str]:
    """Rows that were read and are in no part, row_id → why. Another try would not help them."""
    return {row_id: why for looked in _looked(became, tasks) for row_id, why in looked.left_out.items()}


def _lost(became: Errands, tasks: _SomeTasks) -> int:
    """Rows of tasks that could not be done. Another try may do them."""
    return sum(len(task.row_ids) for task in tasks if task.shard.index in became.failed)


def _losses(became: Errands, tasks: _Tasks) -> list[str]:
    """What is missing, in words."""
    names = "", " of the sample of the pool", " of the labelled rows"
    counts = [_lost(became, some) for some in tasks.all()]
    what = [f"{amount(count, 'row')}{of}" for of, count in zip(names, counts, strict=True) if count]
    notes = [f"{' and '.join(what)} missing: {next(iter(became.failed.values()))}"] if what else []
    if bad := _left_out(became, tasks.wanted):
        notes.append(f"{amount(len(bad), 'row')} cannot be decoded any more: {next(iter(bad.values()))}")
    if bad := _left_out(became, tasks.labelled):
        of = sum(len(task.row_ids) for task in tasks.labelled)
        notes.append(f"{len(bad):,} of {amount(of, 'labelled row')} cannot be used: {next(iter(bad.values()))}")
    return notes


def _require_labelled(became: Errands, tasks: _SomeTasks) -> None:
    if (bad := _left_out(became, tasks)) and len(bad) == sum(len(task.row_ids) for task in tasks):
        raise ConfigError(
            f"shortlist.labelled: none of its {amount(len(bad), 'row')} can be used ({next(iter(bad.values()))}); look "
            "at its columns, or leave it out"
        )


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
