"""The end of a run: the batch is selected, the shortlist made, what nobody counts taken away, rows scored again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from poolscore.engine.config import Config
from poolscore.engine.config_text import one_line
from poolscore.engine.errors import DONE, INCOMPLETE, ConfigError, PoolscoreError, StoppedError
from poolscore.engine.prepare import Prepared
from poolscore.engine.run import directory
from poolscore.engine.run.create import write_plan
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.errands import ErrandState
from poolscore.engine.run.journal import Journal
from poolscore.engine.run.limits import Limits
from poolscore.engine.run.live import at_stage
from poolscore.engine.run.mixed import mixed_in_words
from poolscore.engine.run.sweep import seal, sweep, sweep_parts
from poolscore.engine.run.totals import Totals
from poolscore.engine.selection.alike import NearDuplicates
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.write import Written, cluster_for, write_batch
from poolscore.engine.shortlist.cut import Labelled
from poolscore.engine.shortlist.make import Made, make_shortlist, sweep_shortlist
from poolscore.engine.shortlist.read import about_shortlist
from poolscore.engine.verify.verify import Verified, try_to_verify
from poolscore.engine.workers import Workers

VERIFY_SHARE, VERIFY_SECONDS = 0.02, (1.0, 120.0)  # of the time of a run, for scoring rows again; least and most


@dataclass(frozen=True)
class Scored:
    """What became of the shards of one call."""

    set_aside: Mapping[int, str]
    limit: str | None = None  # that ended it


@dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    run_dir: str
    selection: str  # path of selection.parquet
    totals: Totals
    pool_rows: int
    seconds: float  # of this call, from the first worker's start
    set_aside: Mapping[int, str]  # shard → reason; empty if the run is whole
    shards_left: int  # that were not tried before a limit was reached
    limit: str | None  # which one
    mixed: str | None  # what is to be known where workers of several numeric profiles scored
    shortlist: Made | None  # None: none is wanted
    near_duplicates: NearDuplicates  # of the selection
    notes: Sequence[str]  # what else is to be said of it
    verified: Verified | None  # rows scored again at the end of this call
    wrong: Sequence[str]  # what scoring again found, now or before, that precision does not explain
    listed: int  # ids in pool.exclude; those that no row has were not excluded
    exit_code: int
    finished_before: bool  # this call scored nothing


def finish(
    run: RunDirectory,
    prepared: Prepared,
    labelled: Labelled | None,
    scored: Scored,
    workers: Workers,
    limits: Limits,
    started: float,
    journal: Journal | None,
    on_shortlist: Callable[[ErrandState], None],
) -> RunResult:
    """Select, make the shortlist, sweep, set the mark, and score rows again.

    Args:
        limits: count for how long workers are held.
        started: when this call did, by the monotonic clock.
        journal: None: the run was whole before, and nothing is opened.
        on_shortlist: called while the shortlist is made, about once a second.

    Raises:
        StoppedError: another driver works on the run, or there is nothing to select from.
        ConfigError: it cannot be selected as configured.
    """
    config, set_aside = prepared.config, scored.set_aside
    require_ours = journal.require_ours if journal is not None else lambda: None
    require_ours()
    reports = run.settle()
    missing = set(range(len(prepared.plan.shards))) - reports.keys() - set_aside.keys()
    if missing and scored.limit is None:
        raise StoppedError(
            f"{run.storage.root}: {len(missing)} shards are not in its journal, which somebody else must have changed; "
            "the same command scores them"
        )
    limit = scored.limit if missing else None
    if not reports:
        raise StoppedError(f"{limit} before a shard was scored; the same command with more time goes on")
    totals = Totals.of(reports)
    if directory.PLAN not in run.storage.names(""):  # the job that began the run was stopped before it wrote that
        write_plan(run.storage, prepared.plan)

    def progress(state: ErrandState) -> None:
        limits.count(state.workers)
        live = at_stage("shortlist", done=state.done, of=state.of, workers=state.workers)
        run.keep_up(held_seconds=limits.spent, live=live)
        on_shortlist(state)

    make = partial(_shortlist, run, prepared, labelled, workers, require_ours, progress)
    shortlist, batch = _select(run, config, make, workers, require_ours, totals.scored)
    whole = not set_aside and not missing
    require_ours()
    if journal is None:
        end = run.update
    else:
        status = directory.DONE if whole else directory.INCOMPLETE
        end = partial(run.end, status, DONE if whole else INCOMPLETE, limit)
    end(
        config=directory.redacted(config.model_dump(mode="json")),  # k and what is selected by may be new
        totals={**asdict(totals), "rows_per_worker_second": totals.rows_per_worker_second},
        held_seconds=limits.spent,
        set_aside={str(shard): reason for shard, reason in set_aside.items()},
        shortlist=shortlist.to_json() if shortlist is not None else None,
        near_duplicates=batch.near_duplicates.to_json(),
        selection_notes=list(batch.notes),
    )
    if whole and journal is not None:
        seal(run, journal)
    if journal is not None:
        sweep_shortlist(run, require_ours)
    if whole and journal is not None:
        sweep(run, journal)
        run.succeed(journal)
    elif whole:
        sweep_parts(run)
    verified = _verify(run, prepared, time.monotonic() - started) if journal is not None else None
    wrong = (run.info.get("verified") or {}).get("wrong", ())
    exit_code = DONE if whole and not wrong else INCOMPLETE
    if run.info["exit_code"] != exit_code:
        run.update(exit_code=exit_code)
    return RunResult(
        run_dir=config.run.dir,
        selection=run.storage.path(directory.SELECTION),
        totals=totals,
        pool_rows=prepared.plan.rows,
        seconds=time.monotonic() - started,
        set_aside=set_aside,
        shards_left=len(missing),
        limit=limit,
        mixed=mixed_in_words(run.info, totals.profiles),
        shortlist=shortlist,
        near_duplicates=batch.near_duplicates,
        notes=batch.notes,
        verified=verified,
        wrong=wrong,
        listed=prepared.listed,
        exit_code=exit_code,
        finished_before=journal is None,
    )


def _select(
    run: RunDirectory,
    config: Config,
    shortlist: Callable[[], Made | None],
    workers: Workers,
    require_ours: Callable[[], None],
    rows: int,
) -> tuple[Made | None, Written]:
    """Write the batch, which takes minutes where rows are many, and make the shortlist. The batch comes first, for it
    is what a night is for, unless it is selected from the shortlist. Its near-duplicates are counted on that."""
    made = None

    def make() -> None:
        nonlocal made
        made = shortlist()
        workers.close()

    if Choice.of(config).needs_shortlist:
        make()
        return made, write_batch(run, config, rows, before=require_ours)
    if cluster_for(config, rows) is not None:
        workers.close()  # whose cores are wanted for selecting; a shortlist opens them again
    batch = write_batch(run, config, rows, before=require_ours, then=make)
    return made, batch


def _shortlist(
    run: RunDirectory,
    prepared: Prepared,
    labelled: Labelled | None,
    workers: Workers,
    require_ours: Callable[[], None],
    on_progress: Callable[[ErrandState], None],
) -> Made | None:
    """Which must not spoil the run, unless its selection is made of it."""
    try:
        return make_shortlist(run, prepared, labelled, workers.fleet, require_ours, on_progress)
    except Exception as error:  # the model is the user's code, and the pool may be gone
        if isinstance(error, ConfigError) and Choice.of(prepared.config).needs_shortlist:
            raise  # the same command would fail again
        why = one_line(error if isinstance(error, PoolscoreError) else f"{type(error).__name__}: {error}")[:500]
        if Choice.of(prepared.config).needs_shortlist:
            raise StoppedError(
                f"the shortlist, which the batch is selected from, cannot be made ({why}); the same command tries again"
            ) from error
        left = _shortlist_left(run)
        return Made(left, [f"not made: {why}", *(["these are of an older one"] if left else [])])


def _shortlist_left(run: RunDirectory) -> int:
    """Rows of the shortlist that is there, whatever it was made from."""
    try:
        return int((about_shortlist(run) or {"rows": 0})["rows"])
    except StoppedError:  # damaged
        return 0


def _verify(run: RunDirectory, prepared: Prepared, seconds: float) -> Verified | None:
    rows = prepared.config.run.verify_rows
    if not rows:
        return None
    run.update(live=at_stage("verification"))
    least, most = VERIFY_SECONDS
    verified = try_to_verify(run, prepared, rows, min(most, max(least, VERIFY_SHARE * seconds)))
    known = "verified" in run.info and not verified.rows  # what could not be looked at takes no finding back
    run.update(live=None, **({} if known else {"verified": verified.to_json()}))
    return verified
