"""Tables of how rows come to the model: plan, storage, decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from page_parts.theme import Result, rows_to_table


def feed(result: Result) -> str:
    """Rows a second of each way, a size of pictures each."""
    says = {
        "poolscore": "poolscore on Ray",
        "local": "poolscore, one process",
        "loop": "bare loop",
        "raydata": "Ray Data",
    }
    rows = (
        [f"{size}, {text}", ways[key]["rows_per_second"], ways[key]["cpu_us_per_row"], ways[key]["start_seconds"]]
        for size, ways in _sizes(result)
        for key, text in says.items()
    )
    return rows_to_table(["", "rows/s", "CPU, µs a row", "start, s (not in the rate)"], rows)


def ratios_of_feed(result: Result) -> dict[str, float]:
    """poolscore on Ray by Ray Data."""
    return {
        f"poolscore / Ray Data, {size}": ways["poolscore"]["rows_per_second"] / ways["raydata"]["rows_per_second"]
        for size, ways in _sizes(result)
    }


def _sizes(result: Result) -> list[tuple[str, Mapping[str, Any]]]:
    return [pair for run in result.get("runs", [result]) for pair in run["compare"].items()]


def latency(result: Result) -> str:
    """Storage that is far away."""
    of = result["latency"]
    share = of["with_latency"] / of["rows_per_second"]
    return rows_to_table(["rows/s", "with 80 ms before every answer", "ratio"], [[*of.values(), share]])


def ratios_of_latency(result: Result) -> dict[str, float]:
    """With latency by without."""
    of = result["latency"]
    return {"with 80 ms / without": of["with_latency"] / of["rows_per_second"]}


def memory(result: Result) -> str:
    """What a process grows by."""
    rows = ([pages, one["grew_MB"], round(one["stated_MB"])] for pages, one in result["memory"].items())
    return rows_to_table(["", "grew by, MB", "stated, MB"], rows)


def decode(result: Result) -> str:
    """CPU time of a picture."""
    head = ["CPU, µs a picture", *(f"{size['width']}x{size['height']}" for size in result["sizes"])]
    names = dict.fromkeys(name for size in result["sizes"] for name in size["cpu_us"])
    return rows_to_table(head, ([name, *(size["cpu_us"].get(name, "") for size in result["sizes"])] for name in names))


def ratios_of_decode(result: Result) -> dict[str, float]:
    """Ours by a bare loop."""
    return {
        f"ours / bare loop, {size['width']}x{size['height']}": size["cpu_us"]["ours"]
        / size["cpu_us"]["simplejpeg, bare loop"]
        for size in result["sizes"]
    }


def plan(result: Result) -> str:
    """Large pools."""
    files, table = result["results"]["files"], result["results"]["table"]
    rows = [
        [files["files"], files["rows"], files["shards"], files["first_plan_seconds"], files["driver_MiB"]["peak"]],
        [table["files"], table["rows"], table["shards"], table["plan_seconds"], table["driver_MiB"]["peak"]],
    ]
    return rows_to_table(["files", "rows", "shards", "plan, s (the second: footers apart)", "driver, MiB"], rows)
