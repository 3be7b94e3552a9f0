"""`bench`: how many rows a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from poolscore.engine.errors import ConfigError
from poolscore.jobs import scripts, show
from poolscore.jobs.cli.options import AsJson, Overrides


def bench(
    subject: Annotated[
        str | None, typer.Argument(metavar="NETWORK|CONFIG", help="Built-in network, or YAML configuration of a job.")
    ] = None,
    passes: Annotated[list[int] | None, typer.Option("--passes", "-T", min=1, help="May be repeated: a sweep.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Rows of a batch; may be repeated: a sweep.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: a GPU where there is one.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the model.")] = None,
    rows: Annotated[int | None, typer.Option(min=8, help="Of a round, about.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="That are timed; the median counts.")] = 3,
    size: Annotated[int | None, typer.Option(min=1, help="Built in: edge of a picture, tokens or features.")] = None,
    picture: Annotated[str, typer.Option(metavar="HxW", help="Built in: pixels of the JPEGs.")] = "375x500",
    pixels: Annotated[bool, typer.Option("--pixels", help="Built in: uint8 tensors instead of JPEGs.")] = False,
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour of a worker: cost of a million rows.")] = None,
    pool_rows: Annotated[int | None, typer.Option(min=1, help="Of your pool: hours that it takes.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Like this one, for the hours.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="The result, with its environment.")] = None,
    page: Annotated[Path | None, typer.Option(metavar="FILE.html", help="The result as a page with plots.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A.json B.json", help="Two results side by side instead.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Rows a second of one worker, end to end and by stage: a built-in network or your own job.

    Built in: resnet18, resnet50, vgg16, vit_b16, bert_base, mlp; weights are random, rows are made up.
    """
    if compare is not None:
        from poolscore.jobs.bench.compare import compare as compare_results
        from poolscore.jobs.bench.compare import read_result
        from poolscore.jobs.bench.tell import tell_comparison

        compared = compare_results(*map(read_result, compare))
        tell_comparison(compared)
        if as_json:
            scripts.result(compared)
        return
    if subject is None:
        raise ConfigError("bench: name a built-in network or a configuration file, or --compare A.json B.json")
    from poolscore.jobs.bench.sweep import Asked, run_bench
    from poolscore.jobs.bench.tell import tell_point

    asked = Asked(
        *(subject, passes or (), batch or (), precision, device, threads, rows, rounds, size, _edges(picture), pixels),
        *(price, pool_rows, workers, overrides or ()),
    )
    with show.busy("measuring"):
        result = run_bench(asked, tell_point)
    _write(result, out, page)
    if as_json:
        scripts.result(result)


def _edges(given: str) -> tuple[int, int]:
    height, _, width = given.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) >= 16 and int(width) >= 16):
        raise ConfigError(f"bench --picture: '{given}' is no HEIGHTxWIDTH in pixels, of at least 16 each")
    return int(height), int(width)


def _write(result: dict[str, Any], out: Path | None, page: Path | None) -> None:
    from poolscore.jobs.bench.page import bench_page

    try:
        if out is not None:
            out.write_text(json.dumps(result, indent=1) + "\n")
            show.done(f"written: {out}")
        if page is not None:
            page.write_text(bench_page(result), encoding="utf-8")
            show.done(f"written: {page}")
    except OSError as error:
        raise ConfigError(f"bench: {error.filename} cannot be written ({error.strerror})") from error
