"""Results in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from poolscore.engine.words import amount
from poolscore.jobs import show

GB = 1e9


def tell_point(point: Mapping[str, Any]) -> None:
    """One point of a sweep."""
    show.facts(f"T = {point['passes']}, batches of {point['batch']}", _facts(point))


def tell_comparison(compared: Mapping[str, Any]) -> None:
    """Ratios of the second result to the first."""
    if compared["differs"]:
        show.facts("what differs", [(name, f"{a}  →  {b}") for name, (a, b) in compared["differs"].items()])
    for point in compared["points"]:
        a, b = point["rows_per_second"]
        sure = "" if point["rounds_apart"] else "  (rounds overlap: it may be chance)"
        lines = [("rows/s", f"{a:,.0f}  →  {b:,.0f}   {point['ratio']:.2f}x{sure}")]
        lines += [(part, f"takes {ratio:.2f} times as long a batch") for part, ratio in point["time_of_parts"].items()]
        show.facts(f"T = {point['passes']}, batches of {point['batch']}", lines)


def _facts(point: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rates = ", ".join(f"{rate:,.0f}" for rate in point["rounds"])
    yield "one worker", f"{point['rows_per_second']:,.0f} rows/s from storage to scores (rounds: {rates})"
    for stage, rate in point["stage_rows_per_second"].items():
        yield f"  {stage}", f"{rate:,.0f} rows/s by itself"
    yield "bounded by", f"{point['bounded_by']}; the device idles {point['idle_share']:.0%} of the time"
    parts = point["batch_ms"]
    yield "a batch", "; ".join(f"{name} {parts[name]:,.2f} ms" for name in ("prefix", "suffix", "reduce"))
    yield "the model", f"{point['model_rows_per_second']:,.0f} rows/s by itself, scores included"
    reduction = point["reduction"]
    yield (
        "reduction",
        f"{reduction['bytes_per_second'] / GB:,.1f} GB/s, {reduction['fraction_of_copy']:.0%} of the device's copy",
    )
    if point["rejected"]:
        yield "rejected", amount(point["rejected"], "row")
    if point["price_per_million_rows"] is not None:
        yield "price", f"{point['price_per_million_rows']:,.2f} for a million rows"
    if point["hours"] is not None:
        yield "your pool", f"{point['hours']:,.2f} hours"
