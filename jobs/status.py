"""`poolscore status`: how far a run is, and whether anybody works on it, from its directory alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from poolscore.engine.errors import ConfigError
from poolscore.engine.run import directory
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.events import in_words
from poolscore.engine.run.heartbeat import is_at_work
from poolscore.engine.run.mixed import mixed_in_words
from poolscore.engine.run.records import Opening, newest
from poolscore.engine.run.totals import Totals
from poolscore.engine.storage.base import Storage
from poolscore.engine.words import amount
from poolscore.engine.worker import stages
from poolscore.jobs import scripts, show
from poolscore.jobs.show.terminal import duration
from poolscore.jobs.submit.job import Job
from poolscore.jobs.verified import RANDOM_PART, verified_in_words

SHOWN = 5  # events, the latest
ASIDE = 20  # shards
STAGES = {  # of engine/run/live.py
    "compiling": "a machine with the workers' device is asked to compile the model, if there is one",
    "shortlist": "the shortlist is made of the best rows",
    "verification": "some rows are scored again",
}
_SEPARATORS = {"/", "\\"}  # of a path; names of jobs have none
Asks = Callable[[Storage, Opening], bool | None]  # whether a driver is at work


def show_status(run: RunDirectory, as_json: bool) -> None:
    """Print it, for people or for scripts."""
    with show.busy("asking for its driver"):
        state = state_of(run, run.totals())
    if as_json:
        scripts.result(state)
    else:
        show.facts(run.storage.root, facts_of(state))


def run_of(name: str, address: str | None, as_json: bool) -> str | None:
    """The run directory that is meant: `name` itself, or that of the job of this name, whose state is told of.

    Args:
        address: of the job's cluster; without one a job is looked for only where `name` is no path and no folder.

    Returns:
        None: the job has no run directory yet that could be read.

    Raises:
        ConfigError: the cluster has no such job, or cannot be reached.
    """
    job = job_of(name, address)
    if job is None:
        return name
    if job.run_dir is not None and directory.exists(job.run_dir):
        return job.run_dir
    if as_json:
        scripts.result({"status": job.state, "exit_code": job.exit_code, "job": job.name, "run": job.run_dir})
    return None


def job_of(name: str, address: str | None) -> Job | None:
    """The job that is meant, whose state is told of; None: `name` is a run directory. See `run_of`."""
    if address is None and (_SEPARATORS & set(name) or Path(name).exists()):
        return None
    from poolscore.jobs.submit.job import find_job

    try:
        job = find_job(name, address)
    except ConfigError as error:
        if address is not None:
            raise
        raise ConfigError(f"{name} is no run directory, and was not found as a job: {error}") from error
    if job is None:
        raise ConfigError(
            f"{name} is neither a run directory nor a job of the cluster; `poolscore list` names its jobs"
        )
    told = f" ({job.message})" if job.message else ""
    show.done(f"job {job.name}: {job.state}{told}, run directory {job.run_dir or 'none of poolscore'}")
    return job


def state_of(run: RunDirectory, totals: Totals, ask: Asks = is_at_work, of_ended: bool = False) -> dict[str, Any]:
    """What `--json` prints.

    Args:
        ask: whether its driver is at work.
        of_ended: also of a run that has ended, whose driver may still score rows again and write the report.
    """
    info, pool = run.info, run.info["pool"]
    open_still = info["status"] == directory.RUNNING or info.get("live")
    driver = _driver_of(run, ask) if of_ended or open_still else None
    live = (info.get("live") or {}) if driver is not None and driver["at_work"] is not False else {}
    pace = live.get("rows_per_second")
    return {
        "status": info["status"],
        "exit_code": info.get("exit_code"),
        "finished": run.succeeded,
        "stage": {name: live.get(name) for name in ("stage", "done", "of")} if live.get("stage") else None,
        "run": run.storage.root,
        "id": info.get("id"),
        "epoch": info.get("epoch"),
        "shards": {
            "done": totals.shards,
            "all": pool["shards"],
            "in_flight": live.get("in_flight"),
            "retried": live.get("retried"),
            "set_aside": len(info.get("set_aside") or {}),
        },
        "rows": {
            "done": totals.rows,
            "all": pool["rows"],
            "scored": totals.scored,
            "rejected": totals.rejected,
            "excluded": totals.excluded,
            "filtered": totals.filtered,
        },
        "rejected_by_stage": dict(totals.rejected_by),
        "workers": live.get("workers"),
        "rows_per_second": pace,
        "eta_seconds": (pool["rows"] - totals.rows) / pace if pace else None,
        "rows_per_worker_second": totals.rows_per_worker_second,
        "stage_seconds": dict(totals.stages),
        "idle_share": stages.idle_share(totals.stages),
        "set_aside": info.get("set_aside") or {},
        "mixed": mixed_in_words(info, totals.profiles),
        "stopped_by": info.get("stopped_by"),
        "deadline": info.get("deadline"),
        "extends": info.get("extends") or [],
        "driver": driver,
        "events": info.get("events") or [],
        "verified": info.get("verified"),
        "created": info["created"],
        "updated": info["updated"],
    }


def facts_of(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Labels and values for people."""
    yield "status", _status(state)
    if state["driver"] is not None and (state["status"] == directory.RUNNING or state["driver"]["at_work"]):
        yield "driver", driver_in_words(state["driver"])
    shards, rows = state["shards"], state["rows"]
    held = [f"{shards['in_flight']:,} in flight"] if shards["in_flight"] else []
    held += [f"{shards['retried']:,} retried"] if shards["retried"] else []
    yield "shards", "; ".join([f"{shards['done']:,} of {shards['all']:,}", *held])
    left_out = f", {rows['filtered']:,} filtered" if rows["filtered"] else ""
    whole = state["finished"] or state["set_aside"] or shards["done"] == shards["all"]
    part = "" if whole else f", {RANDOM_PART}"
    share = f" ({rows['done'] / max(1, rows['all']):.1%}{part})"
    yield (
        "rows",
        f"{rows['done']:,} of {rows['all']:,}{share}; {rows['rejected']:,} rejected{_by_stage(state)}, "
        f"{rows['excluded']:,} excluded{left_out}",
    )
    if state["stage"] is None:
        yield "speed", pace_in_words(state)
    if (timed := stages.in_words(state["stage_seconds"])) is not None:
        yield "stages", timed
    yield from ((label, state[label]) for label in ("created", "updated", "deadline") if state[label])
    yield from (("extends", earlier["run"]) for earlier in state["extends"])
    yield from ((f"shard {s}", f"set aside: {reason}") for s, reason in list(state["set_aside"].items())[:ASIDE])
    if (more := len(state["set_aside"]) - ASIDE) > 0:
        yield "set aside", f"{more:,} more shards"
    if state["mixed"] is not None:
        yield "mixed", state["mixed"]
    for event in state["events"][-SHOWN:]:
        yield time_of(event), in_words(event)
    if state["verified"]:
        yield "verified", verified_in_words(state["verified"])


def stage_in_words(state: Mapping[str, Any]) -> str | None:
    """What its driver does while no shard is scored; None: it scores, or nobody tells."""
    stage = state["stage"]
    if stage is None:
        return None
    far = f", {stage['done']:,} of {amount(stage['of'], 'task')}" if stage["of"] else ""
    return f"{STAGES.get(stage['stage'], stage['stage'])}{far}"


def pace_in_words(state: Mapping[str, Any]) -> str:
    """Rows per second, the time left, and the workers; or what else is done."""
    if (stage := stage_in_words(state)) is not None:
        return stage
    now = [f"{state['rows_per_second']:,.0f} rows/s"] if state["rows_per_second"] else []
    now += [f"{duration(state['eta_seconds'])} left"] if state["eta_seconds"] else []
    now += [amount(state["workers"], "worker")] if state["workers"] is not None else []
    return "  ".join([*now, f"{state['rows_per_worker_second']:,.0f} rows/s per worker"])


def driver_in_words(driver: Mapping[str, Any]) -> str:
    """Whether it is at work, and what to do where it is not."""
    process = f"process {driver['pid']} on {driver['host']}"
    if driver["at_work"] is None:
        return f"{process}, of an older version: whether it is at work cannot be told"
    return f"{process} is at work" if driver["at_work"] else f"{process} is gone; the same command goes on with the run"


def time_of(event: Mapping[str, Any]) -> str:
    """When it was, on this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.get("at", 0)))


def _driver_of(run: RunDirectory, ask: Asks) -> dict[str, Any] | None:
    opening = newest(run.storage)
    if opening is None:
        return None
    told = opening.driver
    return {"host": told.get("host"), "pid": told.get("pid"), "at_work": ask(run.storage, opening)}


def _status(state: Mapping[str, Any]) -> str:
    stage = stage_in_words(state)
    if state["finished"]:
        return f"{directory.DONE}: {stage}" if stage else str(directory.DONE)
    if stage is not None:
        return f"{state['status']}: {stage}"
    if state["status"] == directory.RUNNING and state["shards"]["done"] == state["shards"]["all"]:
        return f"{state['status']}: all shards are scored, the batch is selected"
    return f"{state['status']}: {state['stopped_by']}" if state["stopped_by"] else str(state["status"])


def _by_stage(state: Mapping[str, Any]) -> str:
    by_stage = ", ".join(f"{stage} {rows:,}" for stage, rows in state["rejected_by_stage"].items())
    return f" ({by_stage})" if by_stage else ""
