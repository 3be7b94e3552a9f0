"""The main job: pool → scores → selection."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version

from poolscore.engine import log
from poolscore.engine.check import CheckResult, check_labelled
from poolscore.engine.config import Config
from poolscore.engine.config_text import one_line
from poolscore.engine.errors import DONE, INCOMPLETE, ConfigError, InterruptedRun, PoolscoreError, StoppedError
from poolscore.engine.identity import require_same
from poolscore.engine.patient_storage import hurry
from poolscore.engine.prepare import Prepared, prepare_job
from poolscore.engine.run import directory
from poolscore.engine.run.coordinator import Coordinator, State
from poolscore.engine.run.directory import RunDirectory, Totals
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.fleet import Fleet, LocalFleet
from poolscore.engine.run.journal import Journal
from poolscore.engine.run.limits import Limits
from poolscore.engine.run.live import Keeper
from poolscore.engine.run.metrics import Metrics
from poolscore.engine.run.mixed import mixed_in_words, with_profile
from poolscore.engine.run.observer import ShardLines, Together
from poolscore.engine.selection.alike import NearDuplicates
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.write import Written, cluster_for, write_batch
from poolscore.engine.shortlist.cut import Labelled, find_labelled
from poolscore.engine.shortlist.make import Made, make_shortlist, require_possible, sweep_shortlist
from poolscore.engine.shortlist.read import about_shortlist
from poolscore.engine.shortlist.wanted import lacks_shortlist
from poolscore.engine.verify import Verified, try_to_verify
from poolscore.engine.worker import Job

VERIFY_SHARE, VERIFY_SECONDS = 0.02, (1.0, 120.0)  # of the time of a run, for scoring rows again; least and most


@dataclass(frozen=True)
class _Scored:
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
    verified: Verified | None  # rows scored again at the end
    listed: int  # ids in pool.exclude; those that no row has were not excluded
    exit_code: int


def score_pool(
    config: Config,
    *,
    fresh: bool = False,
    must_resume: bool = False,
    extends: str | None = None,
    prepared: Prepared | None = None,
    on_check: Callable[[CheckResult], None] = lambda result: None,
    on_progress: Callable[[State], None] = lambda state: None,
) -> RunResult:
    """Score a pool and select the batch to label.

    A run directory that holds an unfinished run of the same configuration, pool and model is continued; a finished one
    is left as it is, and its selection made again.

    Args:
        config: see `load_config`.
        fresh: begin anew; a run in the directory is moved aside.
        must_resume: refuse to begin a new run.
        extends: a run directory: score only the files that the pool has gained since.
        prepared: what `prepare_job` gave for the same arguments, where that was done already.
        on_check: called with what the labelled rows of `config.check` gave, before anything is started.
        on_progress: called after each change and about once a second.

    Raises:
        ConfigError: something is wrong with configuration, pool or model, or the directory holds another run.
        StoppedError, InterruptedRun: the run can be continued by the same call.
    """
    directory.require_usable(config.run.dir)
    there = directory.exists(config.run.dir) and not fresh
    if must_resume and not there:
        raise ConfigError(f"--resume: there is no run in {config.run.dir}")
    prepared = prepared or prepare_job(config, fresh=fresh, extends=extends)
    config = prepared.config  # with the batch size as a number
    if config.check is not None:
        checked = check_labelled(config, prepared.scorer)
        on_check(checked)
        checked.require(config.check.min_accuracy)
    labelled = find_labelled(config)
    require_possible(prepared, labelled)
    run = RunDirectory(config.run.dir, patience=config.run.storage_patience) if there else None
    if run is not None:
        require_same(run, prepared.identity, prepared.plan, config)
    limits = _limits(config, run, len(prepared.plan.shards))
    if run is None:
        if directory.exists(config.run.dir):
            directory.set_aside(config.run.dir)
        run = _new_run(config, prepared)
    started = time.monotonic()
    left = not run.succeeded or lacks_shortlist(run, config, labelled)
    journal = Journal(run.storage) if left else None  # beside another driver nothing is written
    try:
        with closing(_Workers(run, prepared)) as workers:
            scored = _Scored({}) if journal is None else _score(run, prepared, journal, workers, limits, on_progress)
            return _finish(run, prepared, labelled, scored, workers, started, journal)
    except KeyboardInterrupt as error:
        hurry(run.storage)
        far = ""
        with suppress(StoppedError):  # storage that is away, which is no reason not to end
            totals = run.totals()
            far = f" after {totals.rows} of {prepared.plan.rows} rows"
            run.end(directory.INTERRUPTED, InterruptedRun.exit_code, totals=asdict(totals), held_seconds=limits.spent)
        raise InterruptedRun(f"interrupted{far}; the same command goes on") from error
    except Exception as error:
        hurry(run.storage)
        with suppress(StoppedError):  # what stopped the job is the error to tell of
            why = directory.redacted(str(error))
            code = error.exit_code if isinstance(error, PoolscoreError) else 1
            run.end(directory.STOPPED, code, why, totals=asdict(run.totals()), held_seconds=limits.spent)
        raise
    finally:
        if journal is not None:
            journal.close()


def _limits(config: Config, run: RunDirectory | None, shards: int) -> Limits:
    """The limits of this call; none where nothing is left but to select."""
    wanted = config.run.deadline, config.run.max_gpu_hours
    if run is None or wanted == (None, None):
        return Limits(*wanted)
    totals = run.totals()
    spent = max(totals.worker_seconds, run.info.get("held_seconds", 0.0))
    return Limits(None, None) if totals.shards == shards else Limits(*wanted, spent)


def _new_run(config: Config, prepared: Prepared) -> RunDirectory:
    extends = prepared.extension.runs if prepared.extension is not None else ()
    return directory.create_run(config.run.dir, config, version("poolscore"), prepared.plan, prepared.identity, extends)


class _Workers:
    """The fleet of one call, opened when it is needed first."""

    def __init__(self, run: RunDirectory, prepared: Prepared) -> None:
        self._run, self._prepared = run, prepared
        self._fleet: Fleet | None = None

    def fleet(self) -> Fleet:
        if self._fleet is None:
            job = replace(self._prepared.job, run_id=self._run.info["id"])
            if job.compiled is not None:
                self._run.storage.publish(job.compiled.name, lambda file: file.write(self._prepared.programs))
            self._fleet = _fleet(self._prepared.config, job)
        return self._fleet

    def close(self) -> None:
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.close()


def _score(
    run: RunDirectory,
    prepared: Prepared,
    journal: Journal,
    workers: _Workers,
    limits: Limits,
    on_progress: Callable[[State], None],
) -> _Scored:
    config = prepared.config
    done = journal.adopted
    waiting = [i for i in range(len(prepared.plan.shards)) if i not in done]
    log.bind(run_id=run.info["id"], epoch=journal.epoch)
    until = limits.until.isoformat(timespec="seconds") if limits.until is not None else None
    fresh = {"set_aside": {}, "stopped_by": None, "exit_code": None, "live": None}
    run.update(status=directory.RUNNING, epoch=journal.epoch, deadline=until, **fresh)
    run.note(RunEvent("claimed", why=f"process {os.getpid()} on {socket.gethostname()}"))
    if not waiting:
        return _Scored({})

    fleet = workers.fleet()
    observer = Together(Keeper(run, limits), ShardLines(), *_metrics(run, prepared))

    def progress(state: State) -> None:
        observer.progress(state)
        on_progress(state)

    coordinator = Coordinator(
        fleet,
        journal,
        done=Totals.of(done),
        pool_rows=prepared.plan.rows,
        max_bad_fraction=config.run.max_bad_fraction,
        max_bad_rows=config.run.max_bad_rows,
        profile=run.info["profile"],
        on_profile=lambda profile: run.update(**with_profile(run.info, profile)),
        on_progress=progress,
        on_event=observer.event,
        on_report=observer.report,
        shard_timeout=config.run.shard_timeout,
        stop_when=limits.reached,
        allow_mixed=config.run.allow_mixed,
    )
    try:
        set_aside = coordinator.run([prepared.plan.shards[i] for i in waiting], config.passes.seed)
    finally:
        observer.end()
    run.update(held_seconds=limits.spent)
    return _Scored(set_aside, coordinator.stopped)


def _fleet(config: Config, job: Job) -> Fleet:
    if config.run.executor == "local":
        return LocalFleet(job)
    from poolscore.engine.run.ray_fleet import RayFleet  # Ray is not needed for a run in this process

    return RayFleet(job)


def _metrics(run: RunDirectory, prepared: Prepared) -> list[Metrics]:
    """Where the workers are Ray's, which is what exports metrics."""
    if prepared.config.run.executor == "local":
        return []
    from poolscore.engine.run.ray_cluster import Counter, Gauge

    return [Metrics(Counter, Gauge, run.info["id"], prepared.plan.rows, len(prepared.plan.shards))]


def _finish(
    run: RunDirectory,
    prepared: Prepared,
    labelled: Labelled | None,
    scored: _Scored,
    workers: _Workers,
    started: float,
    journal: Journal | None,
) -> RunResult:
    config, set_aside = prepared.config, scored.set_aside
    require_ours = journal.require_ours if journal is not None else lambda: None
    require_ours()
    reports = run.reports()
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
        directory.write_plan(run.storage, prepared.plan)
    shortlist, batch = _select(run, prepared, labelled, workers, require_ours, totals.scored)
    whole = not set_aside and not missing
    require_ours()
    run.end(
        directory.DONE if whole else directory.INCOMPLETE,
        DONE if whole else INCOMPLETE,
        limit,
        config=directory.redacted(config.model_dump(mode="json")),  # k and what is selected by may be new
        totals={**asdict(totals), "rows_per_worker_second": totals.rows_per_worker_second},
        set_aside={str(shard): reason for shard, reason in set_aside.items()},
        shortlist=shortlist.to_json() if shortlist is not None else None,
        near_duplicates=batch.near_duplicates.to_json(),
        selection_notes=list(batch.notes),
    )
    if journal is not None:
        sweep_shortlist(run, require_ours)
    if whole and journal is not None:
        directory.sweep(run, journal)
        run.succeed(journal)
    verified = _verify(run, prepared, time.monotonic() - started) if journal is not None else None
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
        listed=prepared.listed,
        exit_code=DONE if whole else INCOMPLETE,
    )


def _select(
    run: RunDirectory,
    prepared: Prepared,
    labelled: Labelled | None,
    workers: _Workers,
    require_ours: Callable[[], None],
    rows: int,
) -> tuple[Made | None, Written]:
    """Write the batch, which takes minutes where rows are many, and make the shortlist. The batch comes first, for it
    is what a night is for, unless it is selected from the shortlist. Its near-duplicates are counted on that."""
    config, made = prepared.config, None

    def make() -> None:
        nonlocal made
        made = _shortlist(run, prepared, labelled, workers, require_ours)
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
    workers: _Workers,
    require_ours: Callable[[], None],
) -> Made | None:
    """Which must not spoil the run, unless its selection is made of it."""
    try:
        return make_shortlist(run, prepared, labelled, workers.fleet, require_ours)
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
    least, most = VERIFY_SECONDS
    verified = try_to_verify(run, prepared, rows, min(most, max(least, VERIFY_SHARE * seconds)))
    run.update(verified=verified.to_json())
    return verified
