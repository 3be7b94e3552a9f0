"""Commands on runs that are there: `status`, `report`, `select`, `compare`, `explain`; no GPU, no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poolscore.engine.errors import ConfigError
from poolscore.jobs import scripts, show
from poolscore.jobs.cli.cluster import follow_job
from poolscore.jobs.cli.options import AsJson, RunDir

METHODS = "topk; by chance: power, softmax, softrank; on the shortlist: batchbald, kcenter, badge."
NO_LIMITS = "none"  # takes those of the configuration off
EXCLUDE = "Ids to leave out: Parquet, CSV, or the tasks.json of an export; repeatable."
CAPS = (
    "At most so many rows of each value of a kept column, of 'prediction', or of 'near_duplicates'; repeatable. "
    f"'{NO_LIMITS}': no such caps."
)
QUOTAS = f"At most so many rows of a predicted class, by name or number; repeatable. '{NO_LIMITS}': no quotas."


def status(
    name: Annotated[str, typer.Argument(metavar="RUN|JOB", help="Run directory, or a job of a cluster.")],
    follow: Annotated[bool, typer.Option("--follow", help="Until it ends, and end as it does.")] = False,
    address: Annotated[str | None, typer.Option(help="Dashboard of the job's cluster; see `list`.")] = None,
    as_json: AsJson = False,
) -> None:
    """How far a run is, and whether anybody works on it, from its directory alone; with JOB, where that is."""
    from poolscore.jobs.status import job_of, run_of, show_status

    if follow:
        from poolscore.jobs.follow import follow as follow_run

        job = job_of(name, address)
        raise typer.Exit(follow_run(name, as_json=as_json) or 0 if job is None else follow_job(job, as_json))
    run_dir = run_of(name, address, as_json)
    if run_dir is None:
        return
    from poolscore.engine.run.directory import RunDirectory

    show_status(RunDirectory(run_dir), as_json)


def report(
    run_dir: RunDir,
    images: Annotated[
        bool | None, typer.Option("--images/--no-images", help="Pictures, text, features; not where thumbnails are 0.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write RUN/report.html, a page without outside references."""
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.jobs.report import write_report

    path = write_report(RunDirectory(run_dir), images=images)
    if as_json:
        scripts.result({"report": path})
    else:
        show.done(path)


def select(
    run_dirs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Run directories, of the same model.")],
    name: Annotated[str, typer.Option(help="Name of the selection; it is never overwritten.")],
    k: Annotated[int | None, typer.Option("--k", help="Rows; default: as the run was configured.")] = None,
    by: Annotated[str | None, typer.Option("--score", help="Score; default: as the run was configured.")] = None,
    method: Annotated[str | None, typer.Option(help=METHODS)] = None,
    beta: Annotated[float | None, typer.Option(help="By chance: larger follows the scores more closely.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of chance and control; default: passes.seed.")] = None,
    max_per_group: Annotated[list[str] | None, typer.Option(metavar="COLUMN=ROWS", help=CAPS)] = None,
    quotas: Annotated[list[str] | None, typer.Option("--quota", metavar="CLASS=ROWS", help=QUOTAS)] = None,
    control: Annotated[float | None, typer.Option(help="Share of k that is drawn at random from all scored.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help=EXCLUDE)] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster that reads the scores; default: threads.")] = None,
    as_json: AsJson = False,
) -> None:
    """Another selection from the stored scores of a run, or of several; no GPU, no model, no pool.

    It is written into the first run's directory.
    """
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.engine.run.mixed import mixed_in_words
    from poolscore.engine.selection.alike import OPTION, near_duplicates_of
    from poolscore.engine.selection.batch import require_enough, selected
    from poolscore.engine.selection.choice import Choice
    from poolscore.engine.selection.write import require_free, workers_on, write_named_selection

    exclude = exclude or None
    runs = [RunDirectory(run_dir) for run_dir in run_dirs]
    require_free(runs[0], name)
    config = runs[0].config
    choice = Choice.of(
        config,
        score=by,
        k=k,
        method=method,
        beta=beta,
        seed=seed,
        max_per_group=_limits(max_per_group, "--max-per-group"),
        quotas=_limits(quotas, "--quota"),
        control=control,
    )
    with workers_on(address) as workers, selected(runs, config, choice, exclude=exclude, workers=workers) as batch:
        require_enough(batch, k, exclude)
        alike = near_duplicates_of(runs, batch)
        left_out = exclude[0] if exclude and len(exclude) == 1 else exclude
        about = {**choice.manifest(), "exclude": left_out, "near_duplicates": alike.to_json()}
        path = write_named_selection(runs[0], name, batch, about)
    for run in runs:
        if not run.succeeded:
            show.warn(f"{run.storage.root} is not whole: the selection is made from the shards scored so far")
        if (mixed := mixed_in_words(run.info, run.totals().profiles)) is not None:
            show.warn(f"{run.storage.root} is mixed: {mixed}")
    for note in batch.notes:
        show.warn(note)
    if as_json:
        scripts.result({"name": name, "selection": path, "rows": batch.count, **about, "notes": list(batch.notes)})
    else:
        show.done(f"{batch.count} rows in {path}\nnear-duplicates: {alike.in_words(OPTION)}")


def _limits(given: list[str] | None, option: str) -> dict[str, int] | None:
    """Limits as options give them, group=rows; None: none are given; empty: NO_LIMITS is."""
    if not given:
        return None
    if given == [NO_LIMITS]:
        return {}
    limits: dict[str, int] = {}
    for one in given:
        name, _, rows = one.rpartition("=")
        if not name or not rows.isdecimal():
            raise ConfigError(f"{option} {one}: expected NAME=ROWS, such as {option} {name or 'video'}=3")
        if name in limits:
            raise ConfigError(f"{option} {one}: '{name}' is given twice; give it one limit")
        limits[name] = int(rows)
    return limits


def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="Run directory.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="Another one.")],
    by: Annotated[str | None, typer.Option(help="Kept column by which the batches are broken down.")] = None,
    score_name: Annotated[str | None, typer.Option("--score", help="Score; default: what each run selects by.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Rows of the batches; default: as RUN_A was configured.")] = None,
    out: Annotated[Path | None, typer.Option(help="Parquet: the rows that only one of them would label.")] = None,
    as_json: AsJson = False,
) -> None:
    """Two runs side by side: rank correlation, overlap of the best rows, and what only one of them would label."""
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.engine.selection.compare import compare_runs
    from poolscore.jobs.compare import lines_of, write_only

    with show.busy("reading the scores"):
        found = compare_runs(RunDirectory(run_a), RunDirectory(run_b), score=score_name, k=k, by=by)
    if out is not None:
        write_only(found, out)
    if as_json:
        scripts.result(found.to_dict())
    else:
        show.done("\n".join(lines_of(found)))


def explain(
    run_dir: RunDir,
    row: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="As the pool has it; path#row where it has none.")
    ] = None,
    row_id: Annotated[int | None, typer.Option("--row-id", metavar="N", help="Instead of an id.")] = None,
    thumbnail: Annotated[Path | None, typer.Option(help="Where to write its picture.", metavar="FILE")] = None,
    as_json: AsJson = False,
) -> None:
    """Why a row is where it is: places by each score, selections, what its passes said, rows like it."""
    from poolscore.engine.explain.row import explain as explain_rows
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.jobs.explain import lines_of, to_dict, write_thumbnail

    run = RunDirectory(run_dir)
    with show.busy("reading the scores"):
        found = explain_rows(run, row, row_id)
    if as_json:
        scripts.result([to_dict(one, run.config) for one in found])
    else:
        show.done("\n\n".join("\n".join(lines_of(one, run.config)) for one in found))
    if thumbnail is not None:
        show.warn(write_thumbnail(run, found, thumbnail))
