"""What README.md says of a result: a line or two of each theme."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from page_parts.theme import OURS, Result

Line = list[object]  # what was asked, our figure, and what stands beside it


def _rate(rows_per_s: float) -> str:
    return f"{rows_per_s:,.0f} rows/s" if rows_per_s >= 100 else f"{rows_per_s:.3g} rows/s"


def _of_peers(result: Result) -> list[Line]:
    return [
        [
            one["workload"],
            _rate(one["contestants"]["poolscore"]["rows_per_s"]),
            f"{one['times'][one['fastest_library']]:,} times {one['fastest_library']}, the fastest library as it comes"
            + _and_of_all(one),
        ]
        for one in result["results"].values()
        if one.get("fastest_library")
    ]


def _and_of_all(one: Mapping[str, Any]) -> str:
    """Whoever is the fastest of all, where that is no library as it comes: a loop by hand may beat us."""
    others = {name: times for name, times in one["times"].items() if not name.startswith(OURS)}
    fastest = min(others, key=lambda name: others[name])
    return "" if fastest == one["fastest_library"] else f"; {others[fastest]:,} times {fastest}"


def _of_frontier(result: Result) -> list[Line]:
    net = result["results"]["resnet"]
    passes = f"{net['T=100 / T=1']:.2f} times the time of one"
    return [
        [
            "100 passes of ResNet-50, dropout before its head",
            passes,
            f"20 passes repeated at the input: {net['repeated / split, T=20']} times the split's",
        ]
    ]


def _of_feed(result: Result) -> list[Line]:
    return [
        [
            f"JPEGs of {size}, two Ray workers",
            _rate(ways["poolscore"]["rows_per_second"]),
            f"Ray Data {ways['raydata']['rows_per_second']:,.0f}, a bare loop {ways['loop']['rows_per_second']:,.0f}",
        ]
        for run in result.get("runs", [result])
        for size, ways in run["compare"].items()
    ]


def _of_scaling(result: Result) -> list[Line]:
    one = next(one for one in result["results"] if one["workers"] == 64)
    return [
        [
            "64 simulated workers, one driver",
            f"{one['efficiency']:.1%} of the ideal",
            f"{one['driver_cores']} cores of the driver",
        ]
    ]


def _of_select(result: Result) -> list[Line]:
    one = next(
        one
        for one in result["results"]
        if one["k"] == 1_000_000 and one["pool"] == "random" and one["method"] == "topk"
    )
    return [
        [
            "the best million of 200 million stored scores",
            f"{one['seconds']['found']:.1f} s",
            f"{one['times_read']['found']:.1f} times reading the column",
        ]
    ]


def _of_batchbald(result: Result) -> list[Line]:
    case = result["cases"]["speed"]
    what = f"batchbald, {case['batch']} of {case['candidates']:,} candidates, T={case['passes']}"
    return [
        [what, f"{case['median']['poolscore']:.1f} s", f"batchbald_redux {case['median']['batchbald_redux']:.1f} s"]
    ]


def _of_journal(result: Result) -> list[Line]:
    one = result["results"]["S3, 80 ms"]
    return [
        [
            "storage that takes 80 ms to answer",
            f"{one['share_of_shard']:.1%} of a 60-second shard",
            f"resume of 5,000 shards: {one['one epoch']['resume_seconds']:.1f} s",
        ]
    ]


HEADLINES: dict[str, Callable[[Result], list[Line]]] = {
    "peers": _of_peers,
    "frontier": _of_frontier,
    "feed_compare": _of_feed,
    "scaling": _of_scaling,
    "select": _of_select,
    "batchbald": _of_batchbald,
    "journal": _of_journal,
}
