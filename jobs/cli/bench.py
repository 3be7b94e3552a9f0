"""`bench`: how many rows a second."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from poolscore.engine.errors import ConfigError
from poolscore.jobs import scripts, show
from poolscore.jobs.cli.options import AsJson, Overrides


def bench(
    context: typer.Context,
    subject: Annotated[
        str | None, typer.Argument(metavar="NETWORK|CONFIG", help="Built-in network, or YAML configuration of a job.")
    ] = None,
    passes: Annotated[list[int] | None, typer.Option("--passes", "-T", min=1, help="May be repeated: a sweep.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Rows of a batch; may be repeated: a sweep.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: a GPU where there is one.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the model.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=8, help="Of a round, at least; default: as many as some seconds take.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="That are timed; the median counts.")] = 3,
    size: Annotated[int | None, typer.Option(min=1, help="Built in: edge of a picture, tokens or features.")] = None,
    picture: Annotated[
        str | None, typer.Option(metavar="HxW", help="Built in: pixels of the JPEGs; default: 375x500.")
    ] = None,
    pixels: Annotated[bool, typer.Option("--pixels", help="Built in: uint8 tensors instead of JPEGs.")] = False,
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour of a worker: cost of a million rows.")] = None,
    pool_rows: Annotated[
        int | None, typer.Option(min=1, help="To be scored, for the hours; default: those of your pool.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Like this one, for the hours; default: run.workers, or 1.")
    ] = None,
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
        _compare(context, compare, as_json)
        return
    if subject is None:
        raise ConfigError("bench: name a built-in network or a configuration file, or --compare A.json B.json")
    if price is not None and not math.isfinite(price):
        raise ConfigError(f"bench --price: expected a number, got {price}")
    files = Files(out, page)
    files.require_writable()
    from poolscore.jobs.bench.sweep import Asked, run_bench
    from poolscore.jobs.bench.tell import tell_point, tell_subject

    asked = Asked(
        *(subject, passes or (), batch or (), precision, device, threads, rows, rounds, size),
        *(None if picture is None else _edges(picture), pixels, price, pool_rows, workers, overrides or ()),
    )

    def tell(result: dict[str, Any]) -> None:
        if result["points"]:
            tell_point(result["points"][-1])
            files.write(result)
        else:
            tell_subject(result)

    with show.busy("measuring"):
        result = run_bench(asked, tell)
    files.tell()
    if as_json:
        scripts.result(result)


def _compare(context: typer.Context, results: tuple[Path, Path], as_json: bool) -> None:
    """What `--compare` does, with which nothing else makes sense."""
    sources = {option.opts[0]: context.get_parameter_source(option.name or "") for option in context.command.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if others := [name for name in given if name not in ("--compare", "--json")]:
        raise ConfigError(f"bench --compare: takes two results and --json, nothing else; leave out {', '.join(others)}")
    from poolscore.jobs.bench.compare import compare, read_result
    from poolscore.jobs.bench.tell import tell_comparison

    compared = compare(*map(read_result, results))
    tell_comparison(compared)
    if as_json:
        scripts.result(compared)


def _edges(given: str) -> tuple[int, int]:
    height, _, width = given.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) >= 16 and int(width) >= 16):
        raise ConfigError(f"bench --picture: '{given}' is no HEIGHTxWIDTH in pixels, of at least 16 each")
    return int(height), int(width)


@dataclass(frozen=True)
class Files:
    """Where a result goes; after each point, so that a sweep that is broken off leaves what it had."""

    out: Path | None
    page: Path | None

    def require_writable(self) -> None:
        """Before anything is measured.

        Raises:
            ConfigError: one of them cannot be written.
        """
        for path in filter(None, (self.out, self.page)):
            there = path.exists()
            with _failures(path), path.open("a"):
                pass
            if not there:
                path.unlink()

    def write(self, result: dict[str, Any]) -> None:
        """As far as it is there.

        Raises:
            ConfigError: one of them cannot be written any more.
        """
        from poolscore.jobs.bench.page import bench_page

        if self.out is not None:
            with _failures(self.out):
                self.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        if self.page is not None:
            with _failures(self.page):
                self.page.write_text(bench_page(result), encoding="utf-8")

    def tell(self) -> None:
        """Of what was written."""
        for path in filter(None, (self.out, self.page)):
            show.done(f"written: {path}")


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"bench: {path} cannot be written ({error.strerror})") from error
