"""The main job: pool → scores → selection."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from importlib.metadata import version

from poolscore.engine import log
from poolscore.engine.before.check import CheckResult, check_labelled
from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError, InterruptedRun, PoolscoreError, StoppedError
from poolscore.engine.finish import RunResult, Scored, finish
from poolscore.engine.identity import require_same
from poolscore.engine.prepare import Prepared, look_at_labelled, prepare_job
from poolscore.engine.run import directory
from poolscore.engine.run.coordinator import Coordinator, State
from poolscore.engine.run.create import create_run, set_aside
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.errands import ErrandState
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.journal import Journal
from poolscore.engine.run.limits import Limits
from poolscore.engine.run.live import Keeper
from poolscore.engine.run.metrics import Metrics
from poolscore.engine.run.mixed import with_profile
from poolscore.engine.run.observer import ShardLines, Together
from poolscore.engine.run.totals import Totals
from poolscore.engine.shortlist.cut import find_labelled
from poolscore.engine.shortlist.make import require_possible
from poolscore.engine.shortlist.wanted import lacks_shortlist
from poolscore.engine.storage.patient import hurry
from poolscore.engine.workers import Workers


def score_pool(
    config: Config,
    *,
    fresh: bool = False,
    must_resume: bool = False,
    extends: str | None = None,
    prepared: Prepared | None = None,
    on_check: Callable[[CheckResult], None] = lambda result: None,
    on_progress: Callable[[State], None] = lambda state: None,
    on_shortlist: Callable[[ErrandState], None] = lambda state: None,
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
        on_shortlist: the same while the shortlist is made.

    Raises:
        ConfigError: something is wrong with configuration, pool or model, or the directory holds another run.
        StoppedError, InterruptedRun: the run can be continued by the same call.
    """
    directory.require_usable(config.run.dir)
    there = directory.exists(config.run.dir) and not fresh
    if must_resume and not there:
        raise ConfigError(f"--resume: there is no run in {config.run.dir}")
    if prepared is None:
        look_at_labelled(config)
        prepared = prepare_job(config, fresh=fresh, extends=extends)
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
            set_aside(config.run.dir)
        run = _new_run(config, prepared)
    started = time.monotonic()
    left = not run.succeeded or lacks_shortlist(run, config, labelled)
    journal = Journal(run.storage) if left else None  # beside another driver nothing is written
    epoch = journal.epoch if journal is not None else None
    try:
        with closing(Workers(run, prepared, epoch, limits)) as workers:
            scored = Scored({}) if journal is None else _score(run, prepared, journal, workers, limits, on_progress)
            return finish(run, prepared, labelled, scored, workers, limits, started, journal, on_shortlist)
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
    if run is None:
        return Limits(*wanted)
    held = run.info.get("held_seconds", 0.0)
    if wanted == (None, None):
        return Limits(None, None, held)
    totals = run.totals()  # of a driver that died, also what it did after it wrote down how long workers were held
    spent = max(totals.worker_seconds, held)
    return Limits(None, None, spent) if totals.shards == shards else Limits(*wanted, spent)


def _new_run(config: Config, prepared: Prepared) -> RunDirectory:
    extends = prepared.extension.runs if prepared.extension is not None else ()
    outputs = prepared.job.probe.outputs
    return create_run(config.run.dir, config, version("poolscore"), prepared.plan, prepared.identity, extends, outputs)


def _score(
    run: RunDirectory,
    prepared: Prepared,
    journal: Journal,
    workers: Workers,
    limits: Limits,
    on_progress: Callable[[State], None],
) -> Scored:
    config = prepared.config
    done = journal.adopted
    waiting = [i for i in range(len(prepared.plan.shards)) if i not in done]
    log.bind(run_id=run.info["id"], epoch=journal.epoch)
    until = limits.until.isoformat(timespec="seconds") if limits.until is not None else None
    run.update(
        status=directory.RUNNING,
        epoch=journal.epoch,
        set_aside={},
        stopped_by=None,
        exit_code=None,
        live=None,
        deadline=until,
    )
    run.note(RunEvent("claimed", why=f"process {os.getpid()} on {socket.gethostname()}"))
    if not waiting:
        return Scored({})

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
    return Scored(set_aside, coordinator.stopped)


def _metrics(run: RunDirectory, prepared: Prepared) -> list[Metrics]:
    """Where the workers are Ray's, which is what exports metrics."""
    if prepared.config.run.executor == "local":
        return []
    from poolscore.engine.run.ray_cluster import Counter, Gauge

    return [Metrics(Counter, Gauge, run.info["id"], prepared.plan.rows, len(prepared.plan.shards))]
