"""Results in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from poolscore.engine.words import amount
from poolscore.jobs import show
from poolscore.jobs.bench.words import by_bytes, facts_of, in_hours, number, share

SHOWN = 60  # characters of a setting in which two results differ


def tell_subject(result: Mapping[str, Any]) -> None:
    """What is being measured, before the first point."""
    show.facts(f"measuring {result['subject']['name']}", facts_of(result))


def tell_point(point: Mapping[str, Any]) -> None:
    """One point of a sweep."""
    show.facts(f"T = {point['passes']}, batches of {point['batch']}", _facts(point))
    for note in point["notes"]:
        show.warn(note)


def tell_comparison(compared: Mapping[str, Any]) -> None:
    """Ratios of the second result to the first."""
    if compared["differs"]:
        pairs = ((name, f"{_short(a)}  →  {_short(b)}") for name, (a, b) in compared["differs"].items())
        show.facts("what differs", pairs)
    for point in compared["points"]:
        show.facts(f"T = {point['passes']}, batches of {point['batch']}", _compared(point))


def _compared(point: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    a, b = point["rows_per_second"]
    sure = "" if point["rounds_apart"] else "  (rounds overlap: it may be chance)"
    yield "rows/s", f"{number(a)}  →  {number(b)}   {point['ratio']:.2f}x{sure}"
    for name, (one, other) in point["stages"].items():
        yield f"  {name}", f"{number(one)}  →  {number(other)} rows/s, beside the others"
    for part, ratio in point["time_of_parts"].items():
        yield part, f"takes {ratio:.2f} times as long a batch"
    one, other = point["idle_share"]
    yield "idle", f"{one:.0%}  →  {other:.0%} of the device's time"
    if "price_per_million_rows" in point:
        one, other = point["price_per_million_rows"]
        yield "price", f"{number(one)}  →  {number(other)} for a million rows"
    if "hours" in point:
        one, other = point["hours"]
        yield "the pool", f"{in_hours(one)}  →  {in_hours(other)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _facts(point: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rates = ", ".join(map(number, point["rounds"]))
    yield "one worker", f"{number(point['rows_per_second'])} rows/s from storage to scores (rounds: {rates})"
    cut = "" if point["shard_rows"] >= point["job_shard_rows"] else f" cut to {point['shard_rows']:,} rows"
    seconds = ", ".join(f"{seconds:.1f}" for seconds in point["round_seconds"])
    counts = f"{amount(point['rows'], 'row')} in {amount(point['shards'], 'shard')}"
    yield "measured", f"{counts}{cut}; rounds of {seconds} s"
    for stage, rate in point["stage_rows_per_second"].items():
        yield f"  {stage}", f"{number(rate)} rows/s while at work for one of two shards at a time"
    yield "bounded by", f"{point['bounded_by']}; the device idles {point['idle_share']:.0%} of the time"
    yield "the model alone", f"{number(point['model_rows_per_second'])} rows/s, batch after batch on the device"
    for name, rate in point["part_rows_per_second"].items():
        yield f"  {name}", f"{number(rate)} rows/s; {number(point['batch_ms'][name])} ms a batch"
    reduction = point["reduction"]
    yield (
        "reduction",
        f"{by_bytes(reduction['bytes'])} a batch, {by_bytes(reduction['bytes_per_second'])}/s: "
        f"{share(reduction['fraction_of_copy'])} of what the device's own copy moves",
    )
    if point["rejected"]:
        yield "rejected", amount(point["rejected"], "row")
    if (price := point["price_per_million_rows"]) is not None:
        yield "price", f"{number(price)} for a million rows, at {number(point['price_per_hour'])} an hour of a worker"
    if (hours := point["hours"]) is not None:
        cost = "" if (whole := point["price_of_pool"]) is None else f", {number(whole)} in all"
        who = f"{point['workers']} such worker{'s' if point['workers'] > 1 else ''}"
        yield "the pool", f"{amount(point['pool_rows'], 'row')} on {who}: {in_hours(hours)}{cost}"
