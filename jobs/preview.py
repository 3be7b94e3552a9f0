"""`poolscore plan --preview`: a sample scored for real, told in the terminal and shown on a page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from poolscore.engine.before.estimate import Estimate, Work, estimate
from poolscore.engine.config import Config
from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError, UnreadableShard
from poolscore.engine.inputs.base import BadRow
from poolscore.engine.inputs.image import encoded_bytes
from poolscore.engine.inputs.thumbnail import picture_input
from poolscore.engine.machine.cores import usable_cores
from poolscore.engine.model.compiled import NOT_THERE
from poolscore.engine.prepare import Prepared
from poolscore.engine.words import amount
from poolscore.engine.worker.job import Job
from poolscore.engine.worker.preview import Preview, draw_sample, preview, with_cores
from poolscore.engine.worker.stages import idle_share
from poolscore.jobs import show
from poolscore.jobs.report.gallery import cards, table
from poolscore.jobs.report.lines import lines_of
from poolscore.jobs.report.page import page
from poolscore.jobs.report.pictures import Pictures, thumbnail
from poolscore.jobs.report.text import duration, esc, rows, size

Fact = tuple[str, str]


def run_preview(prepared: Prepared, sampled: int, path: Path) -> dict[str, Any]:
    """Score about `sampled` rows of the pool, on the cluster where one is named, and tell what came out.

    Returns:
        The same for scripts; see `plan --json`.

    Raises:
        ConfigError: no row can be scored, a file cannot be read, or the page cannot be written.
    """
    config = prepared.config
    sample = draw_sample(prepared.plan, sampled, config.passes.seed)
    try:
        if config.run.address or os.environ.get("RAY_ADDRESS"):
            from poolscore.engine.run.ray_fleet import preview_on_ray  # Ray is not needed for a try in this process

            previewed, workers = preview_on_ray(_compiled_there(prepared), sample)
        else:
            workers = config.run.workers or 1
            scorer = with_cores(prepared.scorer, prepared.job.row_specs, usable_cores() // workers)
            previewed = preview(scorer, sample, str(scorer.decoder.device))
    except UnreadableShard as error:
        raise ConfigError(f"pool.uri: {error}; write the file again or take it out") from error
    whole = _estimate(prepared, previewed, workers)
    facts = list(_facts(prepared, previewed, whole))
    show.facts(f"preview of {previewed.rows:,} rows", facts)
    try:
        path.write_text(_page(config, previewed, facts), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"--page: {path} cannot be written ({one_line(error.strerror or error)})") from error
    show.done(f"the rows that it would pick: {path}")
    known = {f.name: getattr(previewed, f.name) for f in fields(previewed) if f.name not in ("picks", "inputs")}
    rate, price = previewed.rows_per_second, whole.price
    return {**known, "rows_per_second": rate, "page": path, "whole_pool": {**asdict(whole), "price": price}}


def _compiled_there(prepared: Prepared) -> Job:
    """The job whose worker compiles by itself, where that of the run would have what another machine compiled."""
    run, passes = prepared.config.run, prepared.config.passes
    wanted = prepared.compile_on and (run.device == "cuda" or passes.compile)
    return replace(prepared.job, compiled=NOT_THERE) if wanted else prepared.job


def _estimate(prepared: Prepared, previewed: Preview, workers: int) -> Estimate:
    plan = prepared.plan
    work = Work(
        rows=plan.expected_rows,
        rows_per_second=previewed.rows_per_second,
        cpu_seconds_per_row=previewed.cpu_seconds / previewed.rows,
        requests=plan.files + plan.pieces.num_rows + len(plan.shards),
        bytes=plan.bytes,
    )
    return estimate(work, workers, previewed.on_gpu, prepared.config.prices)


def _facts(prepared: Prepared, previewed: Preview, whole: Estimate) -> Iterator[Fact]:
    config = prepared.config
    yield "measured on", previewed.device
    yield "scored", f"{previewed.scored:,} of {previewed.rows:,} rows"
    for reason, count in sorted(previewed.rejected.items(), key=lambda item: -item[1])[:3]:
        yield "rejected", f"{amount(count, 'row')}: {reason}"
    if config.passes.count > 1:
        yield "passes", f"{config.passes.count} take {previewed.passes_cost:.2f}x the time of one"
    yield "one worker", f"{previewed.rows_per_second:,.0f} rows/s, reading and decoding included"
    for stage, seconds in previewed.stages.items():
        if seconds and stage != "idle":
            yield f"  {stage}", f"{previewed.rows / seconds:,.0f} rows/s by itself"
    yield "bounded by", f"{previewed.bounded_by}; the device idles {idle_share(previewed.stages):.0%} of the time"
    yield (
        "near-duplicates",
        f"{previewed.near_duplicates:.0%} of the {previewed.picks.num_rows} best, "
        f"{previewed.near_duplicates_at_random:.0%} of as many random rows",
    )
    many = f"{whole.workers} workers like this one" if whole.workers > 1 else "one worker"
    yield "the whole pool", f"{duration(whole.hours * 3600)} on {many}"
    yield "GPU", f"{whole.gpu_hours:,.1f} hours" if whole.gpu_hours is not None else "unknown: measured on no GPU"
    yield "CPU", f"{whole.cpu_hours:,.1f} core hours"
    yield "storage", f"about {whole.requests:,} requests, at most {size(whole.bytes)}"
    yield "price", _price(config, whole)


def _price(config: Config, whole: Estimate) -> str:
    known = {name: price for name, price in whole.prices.items() if price is not None}
    unknown = [name for name in whole.prices if name not in known]
    if not known:
        return "unknown; name prices in the section 'prices'"
    parts = ", ".join(f"{name} {price:,.2f}" for name, price in known.items())
    rest = f"; without {', '.join(unknown)}" if unknown else ""
    return f"{whole.price:,.2f} {config.prices.currency} ({parts}){rest}"


def _page(config: Config, previewed: Preview, facts: list[Fact]) -> str:
    best = previewed.picks
    ranked = best.append_column("rank", pa.array(np.arange(1, best.num_rows + 1)))
    lines = lines_of(ranked.append_column("score", best[config.selected_by]), config)
    pictures = _pictures(config, previewed)
    shown = cards(lines, pictures) if pictures.by_row else table(lines)
    told = "".join(f"<div><dt>{esc(name)}</dt><dd>{esc(value, 500)}</dd></div>" for name, value in facts)
    return page(
        "poolscore preview",
        [
            f"""<header><p class="over">poolscore preview</p><h1>{rows(previewed.rows)} scored for a try</h1></header>
<section aria-labelledby="told"><h2 id="told">What a night of it would take</h2>
<dl class="facts">{told}</dl></section>""",
            f"""<section aria-labelledby="batch"><h2 id="batch">The {rows(best.num_rows)} that it would pick</h2>
<p class="lead">The best of the sample by {esc(config.selected_by)}, best first.</p>{shown}</section>""",
        ],
    )


def _pictures(config: Config, previewed: Preview) -> Pictures:
    found = Pictures()
    decode = picture_input(config)
    if decode is None or decode.column is None:
        return found
    row_ids = previewed.picks["row_id"].to_pylist()
    for row_id, data in zip(row_ids, encoded_bytes(previewed.inputs[decode.column]), strict=True):
        try:
            if data is not None:
                found.by_row[row_id] = thumbnail(data, decode)
        except BadRow as error:
            found.problems[str(error)] += 1
    return found
