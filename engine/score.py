"""The main job: pool → scores → selection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

from poolscore.engine.check import CheckResult, check_labelled
from poolscore.engine.config import Config
from poolscore.engine.errors import DONE, INCOMPLETE, ConfigError, InterruptedRun, StoppedError
from poolscore.engine.prepare import Prepared, prepare_job
from poolscore.engine.run import directory
from poolscore.engine.run.coordinator import Coordinator, State
from poolscore.engine.run.directory import RunDirectory, Totals
from poolscore.engine.run.fleet import Fleet, LocalFleet
from poolscore.engine.run.journal import Journal
from poolscore.engine.select import select_batch, write_selection
from poolscore.engine.storage import open_storage
from poolscore.engine.worker import Job


@dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    run_dir: str
    selection: str  # path of selection.parquet
    totals: Totals
    pool_rows: int
    seconds: float  # of this call, from the first worker's start
    set_aside: Mapping[int, str]  # shard → reason; empty if the run is whole
    listed: int  # ids in pool.exclude; those that no row has were not excluded
    exit_code: int


def score_pool(
    config: Config,
    *,
    fresh: bool = False,
    must_resume: bool = False,
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
        prepared: what `prepare_job(config)` gave, where that was done already.
        on_check: called with what the labelled rows of `config.check` gave, before anything is started.
        on_progress: called after each change and about once a second.

    Raises:
        ConfigError: something is wrong with configuration, pool or model, or the directory holds another run.
        StoppedError, InterruptedRun: the run can be continued by the same call.
    """
    open_storage(config.run.dir).require_writable()
    there = directory.exists(config.run.dir) and not fresh
    if must_resume and not there:
        raise ConfigError(f"--resume: there is no run in {config.run.dir}")
    prepared = prepared or prepare_job(config, fresh=fresh)
    config = prepared.config  # with the batch size as a number
    if config.check is not None:
        checked = check_labelled(config, prepared.scorer)
        on_check(checked)
        checked.require(config.check.min_accuracy)
    if there:
        run = RunDirectory(config.run.dir)
        _require_same(run, prepared)
    else:
        if directory.exists(config.run.dir):
            directory.set_aside(config.run.dir)
        run = directory.create_run(config.run.dir, config, version("poolscore"), prepared.plan, prepared.identity)
    started = time.monotonic()
    try:
        set_aside = {} if run.succeeded else _score(run, prepared, on_progress)
        return _finish(run, config, prepared, set_aside, started)
    except KeyboardInterrupt as error:
        totals = run.totals()
        run.update(status=directory.INTERRUPTED, totals=asdict(totals))
        raise InterruptedRun(
            f"interrupted after {totals.rows} of {prepared.plan.rows} rows; the same command goes on"
        ) from error
    except Exception as error:
        run.update(status=directory.STOPPED, totals=asdict(run.totals()), stopped_by=directory.redacted(str(error)))
        raise


def _score(run: RunDirectory, prepared: Prepared, on_progress: Callable[[State], None]) -> Mapping[int, str]:
    config = prepared.config
    journal = Journal(run.storage)
    done = run.reports()
    waiting = [i for i in range(len(prepared.plan.shards)) if i not in done]
    run.update(status=directory.RUNNING, set_aside={}, stopped_by=None)
    if prepared.job.compiled is not None:
        run.storage.publish(prepared.job.compiled.name, lambda file: file.write(prepared.programs))
    fleet = _fleet(config, replace(prepared.job, run_id=run.info["id"]))
    try:
        coordinator = Coordinator(
            fleet,
            journal,
            done=Totals.of(done),
            pool_rows=prepared.plan.rows,
            max_bad_fraction=config.run.max_bad_fraction,
            max_bad_rows=config.run.max_bad_rows,
            profile=run.info["profile"],
            on_profile=lambda profile: run.update(profile=profile),
            on_progress=on_progress,
            shard_timeout=config.run.shard_timeout,
        )
        return coordinator.run([prepared.plan.shards[i] for i in waiting], config.passes.seed)
    finally:
        fleet.close()


def _fleet(config: Config, job: Job) -> Fleet:
    if config.run.executor == "local":
        return LocalFleet(job)
    from poolscore.engine.run.ray_fleet import RayFleet  # Ray is not needed for a run in this process

    return RayFleet(job)


def _finish(
    run: RunDirectory, config: Config, prepared: Prepared, set_aside: Mapping[int, str], started: float
) -> RunResult:
    reports = run.reports()
    missing = set(range(len(prepared.plan.shards))) - reports.keys() - set_aside.keys()
    if missing:
        raise StoppedError(
            f"{run.storage.root}: {len(missing)} shards are not in its journal, which somebody else must have changed; "
            "the same command scores them"
        )
    totals = Totals.of(reports)
    write_selection(run.storage, select_batch(run, config))
    run.update(
        config=directory.redacted(config.model_dump(mode="json")),  # k and what is selected by may be new
        status=directory.INCOMPLETE if set_aside else directory.DONE,
        totals={**asdict(totals), "rows_per_worker_second": totals.rows_per_worker_second},
        set_aside={str(shard): reason for shard, reason in set_aside.items()},
    )
    if not set_aside:
        directory.sweep(run)
        run.storage.create(directory.SUCCESS, b"")
    return RunResult(
        run_dir=config.run.dir,
        selection=run.storage.path(directory.SELECTION),
        totals=totals,
        pool_rows=prepared.plan.rows,
        seconds=time.monotonic() - started,
        set_aside=set_aside,
        listed=prepared.listed,
        exit_code=INCOMPLETE if set_aside else DONE,
    )


def _require_same(run: RunDirectory, prepared: Prepared) -> None:
    """Refuse to mix two runs, naming what differs."""
    here: dict[str, Any] = directory.redacted(prepared.identity)
    there: dict[str, Any] = run.info["identity"]
    different = [key for key in dict.fromkeys([*there, *here]) if _json(here.get(key)) != _json(there.get(key))]
    if different:
        named = ", ".join(_change(key, there.get(key), here.get(key)) for key in different)
        raise ConfigError(
            f"run.dir: {run.storage.root} holds a run that differs in {named}; choose another run.dir, or --fresh to "
            "move the old run aside"
        )


def _change(key: str, there: Any, here: Any) -> str:
    return key if key.startswith("the ") else f"{key} ({there}, now {here})"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
