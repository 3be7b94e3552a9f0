"""The command line. Exit codes: 0 done, 2 wrong configuration or input, 3 incomplete, 4 stopped, 130 interrupted; 1 is
for `verify`, where precision does not explain a difference.

Each command is a function call into `poolscore.engine` or a module beside this one. Torch and Ray are imported by the
commands that need them only: `select`, `report` and `status` run on a colleague's laptop.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import INTERRUPTED, STOPPED, ConfigError, PoolscoreError
from poolscore.engine.storage_threads import calls_left_behind
from poolscore.jobs import show

app = typer.Typer(
    help="Score a pool of unlabelled rows with Monte-Carlo dropout; select the batch most worth labelling.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DIFFERS = 1  # exit code of `verify`

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML configuration; `poolscore init` writes one.")]
RunDir = Annotated[str, typer.Argument(metavar="RUN", help="Run directory.")]
METHODS = "topk; by chance: power, softmax, softrank; on the shortlist: batchbald, kcenter, badge."
NO_LIMITS = "none"  # takes those of the configuration off
CAPS = (
    "At most so many rows of each value of a kept column, of 'prediction', or of 'near_duplicates'; repeatable. "
    f"'{NO_LIMITS}': no such caps."
)
QUOTAS = f"At most so many rows of a predicted class, by name or number; repeatable. '{NO_LIMITS}': no quotas."
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a configuration value.")]


@app.command()
def init(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="A Parquet file, a folder of them, or a glob.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="package.module:factory, or a .pt2 or .onnx file.")],
    weights: Annotated[str | None, typer.Option(help="Weights: .safetensors or a checkpoint.")] = None,
    task: Annotated[str, typer.Option(help="multiclass, binary, multilabel or regression.")] = "multiclass",
    k: Annotated[int, typer.Option("--k", help="Rows to select.")] = 1000,
    out: Annotated[Path, typer.Option(help="Where to write.")] = Path("poolscore.yaml"),
) -> None:
    """Look at a pool and a model, and write a commented configuration for them."""
    from poolscore.jobs.init import write_configuration

    write_configuration(pool, model, weights=weights, task=task, k=k, out=out)
    show.done(f"wrote {out}; next: poolscore plan {out}")


@app.command()
def plan(
    config_file: ConfigFile,
    overrides: Overrides = None,
    advise: Annotated[bool, typer.Option("--advise", help="Try other passes, layers and precisions.")] = False,
    rows: Annotated[int, typer.Option(help="Rows that --advise scores in each way.", min=1)] = 512,
    preview: Annotated[
        int | None, typer.Option(help="Score N rows for real: rates, pictures, hours, price.", metavar="N", min=1)
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster on whose GPU --preview measures.")] = None,
    page: Annotated[Path, typer.Option(help="Where --preview writes its page.")] = Path("preview.html"),
) -> None:
    """Dry run: rows, shards, bytes, live dropout, and one batch scored; with --preview also a real try on a sample."""
    from poolscore.engine.config import load_config
    from poolscore.engine.prepare import prepare_job

    changes = [*(overrides or ()), *([f"run.address={address}"] if address else [])]
    config = load_config(config_file, changes)
    with show.busy("looking at pool and model"):
        prepared = prepare_job(config)
    show.plan(prepared)
    _check(config, prepared)
    if advise:
        from poolscore.engine.advise import advise as try_settings

        with show.busy("scoring a sample in each way"):
            advised = try_settings(prepared, rows)
        show.advice(advised)
    if preview is not None:
        from poolscore.jobs.preview import run_preview

        with show.busy(f"scoring {preview:,} rows"):
            run_preview(prepared, preview, page)


@app.command()
def export(
    config_file: ConfigFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .pt2 or .onnx.")],
    overrides: Overrides = None,
) -> None:
    """Write the model as .pt2 or .onnx, with its dropout live and everything else in eval mode."""
    from poolscore.engine.config import load_config
    from poolscore.engine.export import export_model

    config = load_config(config_file, overrides or ())
    with show.busy("tracing the model"):
        exported = export_model(config, out)
    show.exported(exported)


@app.command()
def score(
    config_file: ConfigFile,
    overrides: Overrides = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster; default: RAY_ADDRESS or an embedded one.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Only go on with a run that is there.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; an old run is moved aside.")] = False,
    extend: Annotated[
        str | None, typer.Option(metavar="RUN", help="Score only the files that the pool has gained since RUN.")
    ] = None,
) -> None:
    """The main job: score the pool, select the batch to label."""
    from poolscore.engine.config import load_config

    if resume and fresh:
        raise ConfigError("--resume and --fresh: give one of them")
    changes = [*(overrides or ()), *([f"run.address={address}"] if address else [])]
    raise typer.Exit(run_score(load_config(config_file, changes), fresh=fresh, must_resume=resume, extends=extend))


@app.command()
def retry(
    run_dir: RunDir,
    config_file: Annotated[Path | None, typer.Option("--config", metavar="CONFIG", help="The run's own.")] = None,
    overrides: Overrides = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that RUN/run.json names.")] = False,
    address: Annotated[str | None, typer.Option(help="Ray cluster; default: RAY_ADDRESS or an embedded one.")] = None,
) -> None:
    """Try the shards again that a run has set aside or left."""
    from poolscore.engine.config import load_config
    from poolscore.engine.retry import config_of_run, extends_of, in_directory
    from poolscore.engine.run.directory import RunDirectory

    run = RunDirectory(run_dir)
    if run.succeeded:
        return show.done(f"{run_dir} is whole: there is nothing to try again")
    if config_file is None and overrides:
        raise ConfigError("--set: changes a configuration; give --config CONFIG")
    if config_file is None:
        config = config_of_run(run, trust=trust, address=address)
    else:
        config = load_config(config_file, [*(overrides or ()), *([f"run.address={address}"] if address else [])])
        config = in_directory(config, run_dir)
    raise typer.Exit(run_score(config, must_resume=True, extends=extends_of(run)))


@app.command()
def verify(
    config_file: ConfigFile,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(help="Rows, drawn by passes.seed.", min=1)] = 1000,
    precision: Annotated[str, typer.Option(help="float64, or fp32: quicker, and tells less.")] = "float64",
) -> None:
    """Score rows of a run again by the plain way, and tell by how much they differ. Exit code 1: by too much."""
    from poolscore.engine.config import load_config
    from poolscore.engine.identity import require_same
    from poolscore.engine.prepare import prepare_job
    from poolscore.engine.retry import extends_of
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.engine.verify import verify_run

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
    show.verified(verified.to_json())
    raise typer.Exit(DIFFERS if verified.wrong else 0)


def run_score(config: Any, *, fresh: bool = False, must_resume: bool = False, extends: str | None = None) -> int:
    """Check, score, select, report; returns the exit code."""
    from poolscore.engine.prepare import prepare_job
    from poolscore.engine.run.directory import RunDirectory, require_usable
    from poolscore.engine.score import score_pool
    from poolscore.jobs.report import write_report

    require_usable(config.run.dir)
    with show.busy("looking at pool and model"):
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
        )
    try:
        report_path = write_report(RunDirectory(config.run.dir))
    except Exception as error:  # whatever it is: the scores and the selection are there
        report_path = "not written"
        show.warn(f"no report: {one_line(error)}; `poolscore report {config.run.dir}` tries again")
    show.summary(result, report_path)
    return result.exit_code


@app.command()
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
    exclude: Annotated[str | None, typer.Option(help="Parquet or CSV of ids to leave out.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster that reads the scores; default: threads.")] = None,
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
        about = {**choice.manifest(), "exclude": exclude, "near_duplicates": alike.to_json()}
        path = write_named_selection(runs[0], name, batch, about)
    for run in runs:
        if not run.succeeded:
            show.warn(f"{run.storage.root} is not whole: the selection is made from the shards scored so far")
        if (mixed := mixed_in_words(run.info, run.totals().profiles)) is not None:
            show.warn(f"{run.storage.root} is mixed: {mixed}")
    for note in batch.notes:
        show.warn(note)
    show.done(f"{batch.count} rows in {path}\nnear-duplicates: {alike.in_words(OPTION)}")


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="Run directory.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="Another one.")],
    by: Annotated[str | None, typer.Option(help="Kept column by which the batches are broken down.")] = None,
    score_name: Annotated[str | None, typer.Option("--score", help="Score; default: what each run selects by.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Rows of the batches; default: as RUN_A was configured.")] = None,
    out: Annotated[Path | None, typer.Option(help="Parquet: the rows that only one of them would label.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Two runs side by side: rank correlation, overlap of the best rows, and what only one of them would label."""
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.engine.selection.compare import compare_runs
    from poolscore.jobs.compare import lines_of, write_only

    with show.busy("reading the scores"):
        found = compare_runs(RunDirectory(run_a), RunDirectory(run_b), score=score_name, k=k, by=by)
    if out is not None:
        write_only(found, out)
    show.done(json.dumps(found.to_dict(), indent=2, default=str) if as_json else "\n".join(lines_of(found)))


@app.command()
def explain(
    run_dir: RunDir,
    row: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="As the pool has it; path#row where it has none.")
    ] = None,
    row_id: Annotated[int | None, typer.Option("--row-id", metavar="N", help="Instead of an id.")] = None,
    thumbnail: Annotated[Path | None, typer.Option(help="Where to write its picture.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Why a row is where it is: places by each score, selections, what its passes said, rows like it."""
    from poolscore.engine.explain.row import explain as explain_rows
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.jobs.explain import lines_of, to_dict, write_thumbnail

    run = RunDirectory(run_dir)
    with show.busy("reading the scores"):
        found = explain_rows(run, row, row_id)
    if as_json:
        show.done(json.dumps([to_dict(one, run.config) for one in found], indent=2, default=str))
    else:
        show.done("\n\n".join("\n".join(lines_of(one, run.config)) for one in found))
    if thumbnail is not None:
        show.warn(write_thumbnail(run, found, thumbnail))


@app.command()
def report(run_dir: RunDir, images: Annotated[bool, typer.Option(help="Show pictures from the pool.")] = True) -> None:
    """Write RUN/report.html, a page without outside references."""
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.jobs.report import write_report

    show.done(write_report(RunDirectory(run_dir), images=images))


@app.command()
def status(run_dir: RunDir, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """How far a run is, and whether anybody works on it, from its directory alone."""
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.jobs.status import show_status

    show_status(RunDirectory(run_dir), as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration."""
    from poolscore.engine.config import Config

    print(json.dumps(Config.model_json_schema(), indent=2))


@app.command()
def pack(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder of images, .tar, Parquet pool, IDX, .npy, .npz or CSV.")
    ],
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Folder to write, also s3:// or gs://.")],
    labels: Annotated[Path | None, typer.Option(help="IDX or NumPy file with one label per row.")] = None,
    label_from_folder: Annotated[bool, typer.Option(help="An image's first folder is its label.")] = False,
    as_tensor: Annotated[bool, typer.Option(help="Keep image arrays as numbers instead of PNG.")] = False,
    array_key: Annotated[str | None, typer.Option(help="Array of a .npz that holds the rows.")] = None,
    label_key: Annotated[str | None, typer.Option(help="Array of a .npz that holds the labels.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of a CSV; default: comma, .tsv: tab.")] = None,
    id_column: Annotated[str, typer.Option(help="Name of the id column.")] = "id",
    image_column: Annotated[str, typer.Option(help="Name of the column of pictures.")] = "image",
    resize: Annotated[str | None, typer.Option(metavar="SIDE", help="Shorter side, or HEIGHTxWIDTH; pixels.")] = None,
    encode: Annotated[str, typer.Option(help="Resized pictures: jpeg, or png (without loss).")] = "jpeg",
    quality: Annotated[int, typer.Option(help="Of resized JPEGs.", min=1, max=100)] = 95,
    exif: Annotated[str, typer.Option(help="Resized pictures: ignore the camera's turn, or apply it.")] = "ignore",
    overwrite: Annotated[bool, typer.Option(help="Replace an older pool of `pack`.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.", min=1)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where a stopped pack left parts.")] = False,
) -> None:
    """A folder of images, tar files, a pool, IDX or NumPy arrays, or a CSV into a well-shaped Parquet pool.

    A pack that was stopped goes on where it was when it is given again.
    """
    from poolscore.engine.cores import usable_cores
    from poolscore.jobs.pack import Resize
    from poolscore.jobs.pack import pack as run_pack

    with show.counting("packing") as progress:
        summary = run_pack(
            source,
            pool,
            labels=labels,
            label_from_folder=label_from_folder,
            as_tensor=as_tensor,
            array_key=array_key,
            label_key=label_key,
            delimiter=delimiter,
            resize=None if resize is None else Resize.of(resize, encode, quality, exif),
            id_column=id_column,
            image_column=image_column,
            overwrite=overwrite,
            workers=workers or usable_cores(),
            fresh=fresh,
            progress=progress,
        )
    show.done(str(summary))


@app.command()
def doctor(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="A Parquet file, a folder of them, or a glob.")],
    id_column: Annotated[str, typer.Option(help="Name of the id column.")] = "id",
    rows: Annotated[int, typer.Option(help="Pictures to decode, about.", min=1)] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """The health of a pool: row groups, files, codecs, ids, a sample of pictures, and what to repack."""
    from poolscore.jobs.doctor import examine

    with show.busy("looking at the pool"):
        found = examine(pool, id_column=id_column, rows=rows)
    show.done(json.dumps(found.to_dict(), indent=2) if as_json else str(found))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where to work; made anew.")] = Path("poolscore-demo"),
    workers: Annotated[int, typer.Option(help="Ray workers.")] = 2,
) -> None:
    """The whole way on real handwritten digits: pack, train, check, score on Ray, select, report."""
    from poolscore.jobs.demo import run_demo

    raise typer.Exit(run_demo(folder, workers))


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


def _check(config: Any, prepared: Any) -> None:
    if config.check is None:
        return
    from poolscore.engine.check import check_labelled

    result = check_labelled(config, prepared.scorer)
    show.check(result)
    result.require(config.check.min_accuracy)


def process() -> None:
    """Entry point of a process. It ends without C++'s destructors, once Python and Ray have cleaned up: one in thirty
    processes that end right after they read Parquet is aborted by those of Arrow's threads (pyarrow 26)."""
    code = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)  # before all others, and so called after them
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if calls_left_behind():  # nobody is to wait for storage that is silent
            leave()


def main() -> None:
    """The command: one clear line for what users can mend, no traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except PoolscoreError as error:
        show.failure(str(error))
        sys.exit(error.exit_code)
    except OSError as error:  # of the system, where nobody knew better: a full disk, a folder without permission
        show.failure(one_line(error))
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        show.failure("interrupted")
        sys.exit(INTERRUPTED)


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    process()
