"""Commands about jobs on a cluster: `submit`, `logs`, `stop`, `list`."""

from __future__ import annotations

import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolscore.engine.errors import DONE, INCOMPLETE, INTERRUPTED, STOPPED, ConfigError
from poolscore.jobs import scripts, show
from poolscore.jobs.cli.options import AsJson, ConfigFile, Overrides
from poolscore.jobs.show.terminal import console

if TYPE_CHECKING:
    from poolscore.engine.config import Config
    from poolscore.jobs.submit.cluster import Cluster
    from poolscore.jobs.submit.job import Job

CHECK_SECONDS = 600.0  # for a machine that comes up, and all that travels
END_SECONDS = 90.0  # for a job that is told to end; Ray kills it after travel.STOP_SECONDS
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of a job, as `submit` and `list` tell it.")]
Dashboard = Annotated[
    str | None,
    typer.Option(help="The cluster's dashboard; default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, http://127.0.0.1:8265."),
]


def submit(
    config_file: ConfigFile,
    overrides: Overrides = None,
    address: Dashboard = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show its log, and end as the job ends.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Only go on with a run that is there.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; an old run is moved aside.")] = False,
    extend: Annotated[
        str | None, typer.Option(metavar="RUN", help="Score only the files that the pool has gained since RUN.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the job; default: like run.dir.")] = None,
    as_json: AsJson = False,
) -> None:
    """The job of `score` on a cluster, through Ray Jobs. Returns once it is checked there, which takes seconds."""
    from poolscore.engine.config import load_config
    from poolscore.jobs.submit.cluster import connect
    from poolscore.jobs.submit.order import order_of

    if resume and fresh:
        raise ConfigError("--resume and --fresh: give one of them")
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigError(f"--name: '{name}' must be of letters, digits, '.', '_' and '-', 100 at most")
    config = load_config(config_file, overrides or ())
    if config.run.executor == "local":
        raise ConfigError("run.executor: 'local' scores in one process, without Ray; take it out to submit the job")
    cluster = connect(address, config.submit.address)
    name = name or f"{_last_part(config.run.dir)}-{secrets.token_hex(3)}"
    with show.busy(f"submitting {name}"):
        name = _hand_in(cluster, config, name, order_of(config, fresh=fresh, must_resume=resume, extends=extend))
    try:
        job = _attended(cluster, name, wait)
    except KeyboardInterrupt:
        show.warn(f"{name} goes on; `poolscore logs {name} --follow` shows it, `poolscore stop {name}` ends it")
        raise typer.Exit(INTERRUPTED) from None
    code = job.exit_code if job is not None else None
    if as_json and code in (None, DONE, INCOMPLETE):  # a command that fails writes nothing
        scripts.result(asdict(job or cluster.require_job(name)))
    if job is not None and not job.at_work:
        raise typer.Exit(_tell_end(job))


def logs(
    name: JobName,
    address: Dashboard = None,
    follow: Annotated[bool, typer.Option("--follow", help="Until the job ends, and end as it does.")] = False,
) -> None:
    """What a job of a cluster says."""
    from poolscore.jobs.submit import follow as following
    from poolscore.jobs.submit.cluster import connect

    cluster = connect(address)
    name = cluster.require_found(name).name
    if not follow:
        _write(cluster.log(name))
        return
    try:
        job = following.follow(cluster, name, _write)
    except KeyboardInterrupt:
        show.warn(f"{name} goes on; `poolscore stop {name}` ends it")
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(_tell_end(job))


def stop(name: JobName, address: Dashboard = None, as_json: AsJson = False) -> None:
    """End a job of a cluster in good order; the same `submit` goes on with its run."""
    from poolscore.jobs.submit.cluster import connect
    from poolscore.jobs.submit.follow import wait_for_end

    cluster = connect(address)
    job = cluster.require_found(name)
    name, ended_before = job.name, not job.at_work
    if not ended_before:
        cluster.stop(name)
        with show.busy(f"waiting for {name} to end"):
            job = wait_for_end(cluster, name, END_SECONDS)
    if as_json:
        scripts.result(asdict(job))
    elif ended_before:
        show.done(f"{name} has ended already: {job.state}")
    elif not job.at_work:
        show.done(f"{name}: {job.state}; the same `poolscore submit` goes on with {job.run_dir or 'its run'}")
    if job.at_work:
        show.warn(f"{name} has not ended yet; `poolscore list` tells when it has")
        raise typer.Exit(STOPPED)


def list_jobs(address: Dashboard = None, as_json: AsJson = False) -> None:
    """The jobs of a cluster, the latest first."""
    from poolscore.jobs.submit.cluster import connect

    jobs = connect(address).jobs()
    if as_json:
        scripts.result([asdict(job) for job in jobs])
    else:
        show.done("\n".join(_line(job) for job in jobs) if jobs else "no jobs")


def _hand_in(cluster: Cluster, config: Config, name: str, order: Mapping[str, Any]) -> str:
    """Gives the job's id, which is not its name where that has been a job's before."""
    from poolscore.engine.run.directory import redacted
    from poolscore.jobs.submit.job import CALLED, RUN_DIR, VERSION, next_id
    from poolscore.jobs.submit.place import place_of_driver, require_room
    from poolscore.jobs.submit.travel import runtime_env

    run_dir = redacted(config.run.dir)
    jobs = cluster.jobs()
    for job in jobs:
        if job.at_work and job.run_dir == run_dir:
            raise ConfigError(
                f"run.dir: {job.name} is at work on {run_dir} ({job.state}); `poolscore stop {job.name}` ends it"
            )
        if job.at_work and name in (job.name, job.called):
            raise ConfigError(
                f"--name: {job.name} is at work ({job.state}); choose another, or `poolscore stop {name}`"
            )
    nodes = cluster.nodes()
    require_room(config.run, nodes)
    place = place_of_driver(config.submit, nodes)
    _warn(config)
    with tempfile.TemporaryDirectory(prefix="poolscore-") as staging:
        env = runtime_env(config, order, Path(staging), cluster.upload)
        metadata = {RUN_DIR: run_dir, VERSION: version("poolscore"), CALLED: name}
        job_id = next_id(name, jobs)
        cluster.submit(job_id, entrypoint(config.submit.python), runtime_env=env, metadata=metadata, **place.asked)
    show.done(f"submitted {job_id} to {cluster.url}; its driver runs {place.in_words}; results go to {run_dir}")
    return job_id


def entrypoint(python: str) -> str:
    """The job's command line, which everybody sees."""
    command = f"{shlex.quote(python)} -P"
    sorry = (
        f"poolscore: '{python}' on the cluster cannot import poolscore (the line above says why); look at "
        "submit.python and submit.bring"
    )
    return (
        f"{command} -c 'import poolscore.jobs.submit.driver' || {{ echo {shlex.quote(sorry)}; exit 2; }}; "
        f"exec {command} -m poolscore.jobs.submit.driver"
    )


def _attended(cluster: Cluster, name: str, wait: bool) -> Job | None:
    """The job as it ended, or as it is once its check is done; None: it has not begun."""
    from poolscore.jobs.submit.follow import follow, wait_for_check

    if wait:
        return follow(cluster, name, _write)
    with show.busy("waiting for its check on the cluster"):
        job = wait_for_check(cluster, name, CHECK_SECONDS)
    if job is None:
        show.warn(
            f"{name} has not begun, and is not checked: so far the cluster has had no free machine for it, or still "
            f"installs what it brings; Ray gives it up after 15 minutes. `poolscore status {name}` tells"
        )
    elif job.at_work:
        show.done(f"{name} is at work; `poolscore status {name}` and `poolscore logs {name} --follow` show it")
    return job


def follow_job(job: Job, as_json: bool) -> int:
    """Show the run of a job, which need not be there yet, until the job ends; gives the job's exit code."""
    from poolscore.jobs.follow import follow
    from poolscore.jobs.submit.cluster import connect
    from poolscore.jobs.submit.follow import Watched

    if job.run_dir is None:
        raise ConfigError(f"{job.name} is none of poolscore's jobs; `poolscore logs {job.name} --follow` shows it")
    cluster = connect(job.address)
    follow(job.run_dir, stop=Watched(cluster, job.name).has_ended, as_json=as_json)
    return _tell_end(cluster.require_job(job.name))


def _tell_end(job: Job) -> int:
    """Say how a job ended; gives the exit code."""
    code = job.exit_code or 0
    if code == INCOMPLETE:
        show.warn(f"{job.name} is done, but not whole: its log and `poolscore status {job.run_dir}` say more")
    elif code:
        show.failure(f"{job.name} {job.state}" + (f": {job.message}" if job.message else ""))
    return code


def _warn(config: Config) -> None:
    from poolscore.engine.run.directory import REDACTED, redacted

    for key in config.submit.env_vars:
        if redacted({key: "x"})[key] == REDACTED:
            show.warn(
                f"submit.env_vars: who may ask the cluster for its jobs can read {key}; give secrets to its machines"
            )


def _line(job: Job) -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started)) if job.started else "-"
    code = "" if job.exit_code is None else f" ({job.exit_code})"
    return f"{job.name}  {job.state}{code}  {started}  {job.run_dir or 'none of poolscore'}"


def _last_part(run_dir: str) -> str:
    """Of a path or URI, as part of a name."""
    last = [part for part in re.split(r"[/\\]", run_dir) if part][-1:]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last[0] if last else "run").strip("-._") or "run"


def _write(text: str) -> None:
    console.file.write(text)
    console.file.flush()
