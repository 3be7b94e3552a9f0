"""What is said of each benchmark's result: its table, and the ratios that a second run has to reproduce.

A theme is the first part of a result's file name: `THEME_HARDWARE_DATE.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]  # as it was written to JSON
OURS = "poolscore"


def _no_ratios(result: Result) -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class Theme:
    """A benchmark."""

    name: str
    title: str
    about: str
    table: Callable[[Result], str]  # Markdown
    ratios: Callable[[Result], dict[str, float]] = _no_ratios


def rows_to_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown. Floats keep three digits, thousands have commas."""
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


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


def scaling(result: Result) -> str:
    """Workers and the driver."""
    head = ["workers", "shards/s", "records/s", "efficiency", "driver, cores", "driver, ms a shard"]
    keys = ("workers", "shards_per_second", "records_per_second", "efficiency", "driver_cores", "driver_ms_per_shard")
    return rows_to_table(head, ([one[key] for key in keys] for one in result["results"]))


def ratios_of_scaling(result: Result) -> dict[str, float]:
    """Efficiency."""
    return {f"efficiency, {one['workers']} workers": one["efficiency"] for one in result["results"]}


def journal(result: Result) -> str:
    """What committing costs."""
    head = [
        "",
        "part, ms",
        "look, ms",
        "record, ms",
        "shards/s by single records",
        "in groups of 64",
        "share of a 60 s shard",
    ]
    head += ["resume of 5,000 shards, s", "requests"]
    rows = (
        [
            where,
            one["commit_ms"],
            one["look_ms"],
            one["record_ms"],
            one["shards_per_second"],
            one["shards_per_second_in_groups"],
            f"{one['share_of_shard']:.2%}",
            one["one epoch"]["resume_seconds"],
            one["one epoch"]["requests"],
        ]
        for where, one in result["results"].items()
    )
    return rows_to_table(head, rows)


def recovery(result: Result) -> str:
    """After the death of a machine."""
    head = ["seconds after a machine's death", "median", "worst"]
    says = {"known": "known", "handed_out_again": "its shards have begun elsewhere", "done_again": "and are done"}
    rows = ([text, result["median"][key], max(one[key] for one in result["seconds"])] for key, text in says.items())
    return rows_to_table(head, rows)


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


def select(result: Result) -> str:
    """200 million stored scores."""
    head = ["scores", "method", "k", "found, s", "by reading the column", "written, s", "peak, MiB"]
    rows = (
        [
            one["pool"],
            one["method"],
            one["k"],
            one["seconds"]["found"],
            one["times_read"]["found"],
            one["seconds"].get("written", ""),
            one["MiB"]["peak"],
        ]
        for one in result["results"]
    )
    return rows_to_table(head, rows)


def ratios_of_select(result: Result) -> dict[str, float]:
    """Finding by reading."""
    return {
        f"{one['pool']}, {one['method']}, k={one['k']:,}": one["times_read"]["found"]
        for one in result["results"]
        if one["method"] != "read"
    }


def batchbald(result: Result) -> str:
    """Beside batchbald_redux."""
    head = [
        "candidates, T, C, batch",
        "poolscore, s",
        "batchbald_redux, s",
        "times faster",
        "rows that are exact, equal",
    ]
    rows = (
        [
            f"{case['candidates']:,}, {case['passes']}, {case['classes']}, {case['batch']}",
            *case["median"].values(),
            case["times_faster"],
            f"{case['exact_rows']}, {'yes' if case['same_picks_while_exact'] else 'no'}",
        ]
        for case in result["cases"].values()
    )
    return rows_to_table(head, rows)


def ratios_of_batchbald(result: Result) -> dict[str, float]:
    """batchbald_redux by ours."""
    return {f"batchbald_redux / ours, {name}": case["times_faster"] for name, case in result["cases"].items()}


THEMES = [
    Theme(
        "peers",
        "Beside other libraries",
        "Same weights, pool, T, batch size and threads; each in a process of its own, one at a time. Who reads Parquet "
        "is timed end to end, poolscore from plan to selection; the others have the pool decoded in memory.",
        peers,
        ratios_of_peers,
    ),
    Theme(
        "mnist",
        "The main job",
        "60,000 MNIST images (PNG in Parquet), small CNN, T=20, all scores, k=1,000.",
        main_job,
        ratios_of_main_job,
    ),
    Theme("frontier", "The stochastic frontier", "From a batch in memory to all scores.", frontier, ratios_of_frontier),
    Theme(
        "row_stats", "From logits to scores", "Ours takes one thread, the others two.", row_stats, ratios_of_row_stats
    ),
    Theme(
        "scaling",
        "One driver, many workers",
        "A sleep stands in for each worker's device: 2,000 rows/s, shards of 16,384 rows. All the rest is real.",
        scaling,
        ratios_of_scaling,
    ),
    Theme(
        "scaling_slow",
        "One driver, many workers, slow storage",
        "The same with 10,000 rows/s and 80 ms for each request of the journal, a record taking four, for ten seconds.",
        scaling,
        ratios_of_scaling,
    ),
    Theme(
        "feed_compare",
        "Feeding from JPEGs",
        "Two Ray workers; a bare pyarrow loop and Ray Data written well beside them.",
        feed,
        ratios_of_feed,
    ),
    Theme("feed_latency", "Storage that is far away", "S3 on loopback.", latency, ratios_of_latency),
    Theme(
        "feed_memory",
        "Memory of reading",
        "One shard of 500x375 JPEGs; `run.read_ahead` 134 MB for two.",
        memory,
    ),
    Theme("decode", "Decoding JPEGs", "One core.", decode, ratios_of_decode),
    Theme("plan", "Planning", "300 million rows; the second pool is a table of 33 TB.", plan),
    Theme("select", "Selecting", "From 200 million stored scores.", select, ratios_of_select),
    Theme("batchbald", "BatchBALD", "Beside batchbald_redux 2.0.5.", batchbald, ratios_of_batchbald),
    Theme("journal", "What the journal costs", "Nothing that is committed is ever lost.", journal),
    Theme("recovery", "What a dead machine costs", "Shards of about a second.", recovery),
]
