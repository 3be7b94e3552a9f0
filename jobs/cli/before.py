"""Commands before a job: `init`, `schema`, `plan`, `export`; and `demo`, all of it at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poolscore.jobs import scripts, show
from poolscore.jobs.cli.options import AsJson, ConfigFile, Overrides, Pool, changes

if TYPE_CHECKING:
    from poolscore.engine.before.check import CheckResult
    from poolscore.engine.config import Config
    from poolscore.engine.prepare import Prepared


def init(
    pool: Pool,
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


def schema() -> None:
    """Print the JSON schema of the configuration."""
    from poolscore.engine.config import Config

    print(json.dumps(Config.model_json_schema(), indent=2))


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
    as_json: AsJson = False,
) -> None:
    """Dry run: rows, shards, bytes, live dropout, and one batch scored; with --preview also a real try on a sample."""
    from poolscore.engine.config import load_config
    from poolscore.engine.prepare import look_at_labelled, prepare_job

    config = load_config(config_file, changes(overrides, address))
    with show.busy("looking at pool and model"):
        look_at_labelled(config)
        prepared = prepare_job(config)
    show.plan(prepared)
    checked = _check(config, prepared)
    advised, previewed = None, None
    if advise:
        from poolscore.engine.before.advise import advise as try_settings

        with show.busy("scoring a sample in each way"):
            advised = try_settings(prepared, rows)
        show.advice(advised)
    if preview is not None:
        from poolscore.jobs.preview import run_preview

        with show.busy(f"scoring {preview:,} rows"):
            previewed = run_preview(prepared, preview, page)
    if as_json:
        from poolscore.jobs.results import of_plan

        scripts.result(of_plan(prepared, checked, advised, previewed))


def _check(config: Config, prepared: Prepared) -> CheckResult | None:
    if config.check is None:
        return None
    from poolscore.engine.before.check import check_labelled

    result = check_labelled(config, prepared.scorer)
    show.check(result)
    result.require(config.check.min_accuracy)
    return result


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


def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where to work; made anew.")] = Path("poolscore-demo"),
    workers: Annotated[int, typer.Option(help="Ray workers.")] = 2,
) -> None:
    """The whole way on real handwritten digits: pack, train, check, score on Ray, select, report."""
    from poolscore.jobs.demo import run_demo

    raise typer.Exit(run_demo(folder, workers))
