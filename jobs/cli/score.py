"""Commands that score: `score`, `retry`, `verify`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.jobs import scripts, show
from poolscore.jobs.cli.options import Address, AsJson, ConfigFile, Overrides, RunDir, changes

if TYPE_CHECKING:
    from poolscore.engine.config import Config
    from poolscore.engine.finish import RunResult

DIFFERS = 1  # exit code of `verify`


def score(
    config_file: ConfigFile,
    overrides: Overrides = None,
    address: Address = None,
    resume: Annotated[bool, typer.Option("--resume", help="Only go on with a run that is there.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; an old run is moved aside.")] = False,
    extend: Annotated[
        str | None, typer.Option(metavar="RUN", help="Score only the files that the pool has gained since RUN.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The main job: score the pool, select the batch to label."""
    from poolscore.engine.config import load_config

    if resume and fresh:
        raise ConfigError("--resume and --fresh: give one of them")
    config = load_config(config_file, changes(overrides, address))
    raise typer.Exit(run_score(config, fresh=fresh, must_resume=resume, extends=extend, as_json=as_json))


def run_score(
    config: Config,
    *,
    fresh: bool = False,
    must_resume: bool = False,
    extends: str | None = None,
    as_json: bool = False,
) -> int:
    """Check, score, select, report, tell; returns the exit code."""
    from poolscore.jobs.results import of_run

    result, report_path = scored(config, fresh=fresh, must_resume=must_resume, extends=extends)
    if as_json:
        scripts.result(of_run(result, report_path))
    else:
        show.summary(result, report_path or "not written")
    return result.exit_code


def scored(
    config: Config, *, fresh: bool = False, must_resume: bool = False, extends: str | None = None
) -> tuple[RunResult, str | None]:
    """Check, score, select and report, with progress; gives the result and the report's path, if there is one."""
    from poolscore.engine.prepare import look_at_labelled, prepare_job
    from poolscore.engine.run.directory import RunDirectory, require_usable
    from poolscore.engine.score import score_pool
    from poolscore.jobs.report import write_report

    require_usable(config.run.dir)
    _ask_cluster(config)
    with show.busy("looking at pool and model"):
        look_at_labelled(config)
        prepared = prepare_job(config, fresh=fresh, extends=extends)
    show.warnings(prepared)
    with show.Progress(prepared.plan) as progress:
        result = score_pool(
            config,
            fresh=fresh,
            must_resume=must_resume,
            extends=extends,
            prepared=prepared,
            on_check=show.check,
            on_progress=progress.update,
            on_shortlist=progress.shortlist,
        )
    try:
        return result, write_report(RunDirectory(config.run.dir))
    except Exception as error:  # whatever it is: the scores and the selection are there
        show.warn(f"no report: {one_line(error)}; `poolscore report {config.run.dir}` tries again")
    return result, None


def _ask_cluster(config: Config) -> None:
    """Whether anybody answers is told before pool and model are looked at, which may take minutes."""
    address = config.run.address or os.environ.get("RAY_ADDRESS")
    if config.run.executor == "ray" and address:
        show.done(f"asking the Ray cluster at {address}")
        from poolscore.engine.run.ray_cluster import require_answer

        require_answer(address, "run.address" if config.run.address else "RAY_ADDRESS")


def retry(
    run_dir: RunDir,
    config_file: Annotated[Path | None, typer.Option("--config", metavar="CONFIG", help="The run's own.")] = None,
    overrides: Overrides = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that RUN/run.json names.")] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Try the shards again that a run has set aside or left."""
    from poolscore.engine.config import load_config
    from poolscore.engine.retry import config_of_run, extends_of, in_directory
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.jobs.status import state_of

    run = RunDirectory(run_dir)
    if run.succeeded:
        if as_json:
            return scripts.result(state_of(run, run.totals()))
        return show.done(f"{run_dir} is whole: there is nothing to try again")
    if config_file is None and overrides:
        raise ConfigError("--set: changes a configuration; give --config CONFIG")
    if config_file is None:
        config = config_of_run(run, trust=trust, address=address)
    else:
        config = load_config(config_file, changes(overrides, address))
        config = in_directory(config, run_dir)
    raise typer.Exit(run_score(config, must_resume=True, extends=extends_of(run), as_json=as_json))


def verify(
    config_file: ConfigFile,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(help="Rows, drawn by passes.seed.", min=1)] = 1000,
    precision: Annotated[str, typer.Option(help="float64, or fp32: quicker, and tells less.")] = "float64",
    as_json: AsJson = False,
) -> None:
    """Score rows of a run again by the plain way, and tell by how much they differ. Exit code 1: by too much."""
    from poolscore.engine.config import load_config
    from poolscore.engine.identity import require_same
    from poolscore.engine.prepare import prepare_job
    from poolscore.engine.retry import extends_of
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.engine.verify.verify import verify_run

    if precision not in ("float64", "fp32"):
        raise ConfigError(f"--precision {precision}: there are float64 and fp32")
    config = load_config(config_file, overrides or ())
    run = RunDirectory(config.run.dir)
    with show.busy("looking at pool and model"):
        prepared = prepare_job(config, extends=extends_of(run))
        require_same(run, prepared.identity, prepared.plan, prepared.config)
    with show.busy(f"scoring up to {rows:,} rows again"):
        verified = verify_run(run, prepared, rows, "float64" if precision == "float64" else "fp32")
    run.update(verified=verified.to_json())
    if as_json:
        scripts.result(verified.to_json())
    else:
        show.verified(verified.to_json())
    raise typer.Exit(DIFFERS if verified.wrong else 0)
