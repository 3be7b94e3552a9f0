"""Tables of how fast a pool is scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from page_parts.theme import OURS, Result, rows_to_table


def peers(result: Result) -> str:
    """A table a workload."""
    return "\n\n".join(_workload(name, one) for name, one in result["results"].items())


def _workload(name: str, result: Mapping[str, Any]) -> str:
    if "error" in result:
        return f"**{name}**: not measured: {result['error']}."
    spearman = result["agreement"]["spearman"].get(OURS, {})
    head = [
        "",
        "pool",
        "rows",
        "rows/s",
        "poolscore is faster",
        "without starts",
        "mean BALD, nats",
        "rank correlation",
    ]
    rows = [
        [
            who,
            one["pool"],
            one["rows"],
            one["rows_per_s"],
            result["times"].get(who, ""),
            result["marginal_times"].get(who, ""),
            f"{result['agreement']['mean_bald_nats'][who]:.4f}",
            spearman.get(who, ""),
        ]
        for who, one in result["contestants"].items()
    ]
    about = (
        f"**{name}**: {result['workload']}; T={result['passes']}, batch {result['batch']}, {result['threads']} threads"
    )
    return f"{about}\n\n{rows_to_table(head, rows)}"


def ratios_of_peers(result: Result) -> dict[str, float]:
    """poolscore by the fastest library as it comes, in all and without starts."""
    return {
        f"{name}, {kind}": one[f"{prefix}times"][one[f"{prefix}fastest_library"]]
        for name, one in result["results"].items()
        if one.get("fastest_library")
        for prefix, kind in (("", "in all"), ("marginal_", "without starts"))
    }


def main_job(result: Result) -> str:
    """The ways one after the other."""
    head = ["", "rows/s", "seconds in all", "worker, MiB", "driver, MiB", "shards tried again"]
    keys = ("rows_per_second", "seconds", "worker_peak_MiB", "driver_peak_MiB", "retried")
    return rows_to_table(head, ([way, *(one[key] for key in keys)] for way, one in _ways(result).items()))


def ratios_of_main_job(result: Result) -> dict[str, float]:
    """What the split saves in a whole job."""
    ways = _ways(result)
    split, repeated = ways["in-process"], ways["in-process, repeated at the input"]
    return {"split / repeated, whole job": split["rows_per_second"] / repeated["rows_per_second"]}


def _ways(result: Result) -> dict[str, Any]:
    return {way: one for way, one in result["results"].items() if isinstance(one, dict) and "seconds" in one}


def frontier(result: Result) -> str:
    """ResNet-50."""
    net = result["results"]["resnet"]
    head = [f"{net['model']}, {net['precision']}, batch {net['batch']}", "ms", "GFLOP", "of a large matrix product"]
    names = [name for name in net["ms"] if name != "gemm"]
    return rows_to_table(head, ([name, net["ms"][name], net["GFLOP"][name], net["of_gemm"][name]] for name in names))


def ratios_of_frontier(result: Result) -> dict[str, float]:
    """100 passes by one, and repeating by the split."""
    net = result["results"]["resnet"]
    return {name: net[name] for name in ("T=100 / T=1", "repeated / split, T=20")}


def row_stats(result: Result) -> str:
    """BALD of logits, ms."""
    shapes = result["shapes"]
    head = ["BALD, ms", *(str(shape["shape_NTC"]) for shape in shapes), "largest error"]
    names = shapes[0]["ms"]
    worst = {name: max(shape["max_error"].get(name, 0.0) for shape in shapes) for name in names}
    return rows_to_table(
        head, ([name, *(shape["ms"].get(name, "") for shape in shapes), worst[name]] for name in names)
    )


def ratios_of_row_stats(result: Result) -> dict[str, float]:
    """Others by ours."""
    return {
        f"{name}, {shape['shape_NTC']}": shape[name]
        for shape in result["shapes"]
        for name in ("torch.compile / ours", "best peer / ours")
    }
