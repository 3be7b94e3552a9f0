"""poolscore beside what people use today, four workloads, T=20, every contestant in a process of its own.

    python benchmarks/bench_peers.py --peers /tmp/peers/bin/python --data ../shared/data/mnist --out FILE.json

`peers/requirements.txt` says how the peers' interpreter is made. Every process has the same weights, pool, batch size
and number of threads; one computes at a time, in turn. The scores are compared before anything is said about time.

A rate is rows by the median of the rounds. Who reads the pool from Parquet is timed end to end, and has a marginal
rate, too: in each round it also scores a pool of one batch, and what that takes is its start. Who runs the whole
network (or most of it) T times scores fewer rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "peers"))
if "--device" in sys.argv[:-1]:  # before the workloads are read, which it changes
    os.environ["PEERS_DEVICE"] = sys.argv[sys.argv.index("--device") + 1]

from agreement import agreement
from contestants import OURS, WAYS, Process, of_library
from workloads import PASSES, WORKLOADS
from write_pools import write_subject

from poolscore.jobs.bench.environment import environment

COLUMNS = (
    "pool",
    "rows",
    "rows/s in all",
    "rows/s without its start",
    "poolscore is faster, in all",
    "poolscore is faster, without starts",
    "mean BALD, nats",
    "rank correlation with poolscore",
)
Seconds = Mapping[int, Sequence[float]]  # rows of the pool → of each round


def compare(
    name: str, contestants: Sequence[str], peers: Path, data: Path, rounds: int, threads: int, most: int | None = None
) -> dict[str, Any]:
    """One workload.

    Args:
        name: of the workload.
        contestants: in the order of their turns.
        peers: the peers' interpreter.
        data: folder of MNIST.
        most: rows that anybody scores.

    Raises:
        RuntimeError: a contestant fails, its passes do not differ, or its mean score is not that of the others.
    """
    workload = WORKLOADS[name]
    rows = {one: min(WAYS[one].rows(workload), most or workload.rows) for one in contestants}
    few = min(workload.batch, *rows.values())
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        write_subject(name, folder, data, sorted({few, *rows.values()}))
        processes: dict[str, Process] = {}
        for one in contestants:
            processes[one] = Process(one, name, peers, folder, threads)
            stack.callback(processes[one].close)
        checks = {one: check(process, rows[one], few) for one, process in processes.items()}
        agree = agreement({one: np.array(found["bald"]) for one, found in checks.items()})
        seconds = measure(processes, rows, few, rounds)
    results = {one: timed(one, seconds[one]) | {"packages": checks[one]["packages"]} for one in contestants}
    return {
        "workload": workload.about,
        "passes": PASSES,
        "batch": workload.batch,
        "threads": threads,
        "agreement": agree,
        "contestants": results,
        **ratios({one: result["marginal_rows_per_s"] for one, result in results.items()}, "marginal_"),
        **ratios({one: result["rows_per_s"] for one, result in results.items()}),
    }


def check(process: Process, rows: int, few: int) -> dict[str, Any]:
    """What a contestant says of its scores of the small pool, which warm it up, too.

    Raises:
        RuntimeError: its passes do not differ.
    """
    process.ask("ready", rows, few)
    process.ask("score", few)
    found = process.ask("check")
    if not found["passes_differ"] > 0:
        raise RuntimeError(f"two passes of {process.name} are the same: its dropout is off")
    return found


def measure(
    processes: Mapping[str, Process], rows: Mapping[str, int], few: int, rounds: int
) -> dict[str, dict[int, list[float]]]:
    """Seconds of every contestant, in turn, by the rows of the pool."""
    seconds: dict[str, dict[int, list[float]]] = {name: {} for name in processes}
    for _ in range(rounds):
        for name, process in processes.items():
            for count in sorted({few, rows[name]} if WAYS[name].parquet else {rows[name]}):
                seconds[name].setdefault(count, []).append(process.ask("score", count)["seconds"])
    return seconds


def timed(name: str, seconds: Seconds) -> dict[str, Any]:
    """The rates of a contestant."""
    medians = {rows: statistics.median(values) for rows, values in seconds.items()}
    few, rows = min(medians), max(medians)
    rate = rows / medians[rows]
    faster = few < rows and medians[few] < medians[rows]  # not so where hardly a row is scored, in a test
    marginal = (rows - few) / (medians[rows] - medians[few]) if faster else rate
    return {
        "pool": "Parquet" if WAYS[name].parquet else "memory",
        "rows": rows,
        "rows_per_s": round(rate, 2),
        "marginal_rows_per_s": round(marginal, 2),
        "seconds": {str(rows): [round(value, 3) for value in values] for rows, values in seconds.items()},
    }


def ratios(rates: Mapping[str, float], prefix: str = "") -> dict[str, Any]:
    """poolscore's rate by every other's, and the fastest of the libraries as they come."""
    if OURS not in rates:
        return {}
    shelf = [name for name in rates if of_library(name) and not WAYS[name].cut]
    return {
        f"{prefix}times": {name: round(rates[OURS] / rate, 2) for name, rate in rates.items() if name != OURS},
        f"{prefix}fastest_library": max(shelf, key=lambda name: rates[name]) if shelf else None,
    }


def table(result: Mapping[str, Any]) -> str:
    """A workload as Markdown."""
    agree = result["agreement"]
    lines = [
        f"{result['workload']}; T={result['passes']}, batch {result['batch']}, {result['threads']} threads",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name, one in result["contestants"].items():
        times = [result.get(f"{prefix}times", {}).get(name, "") for prefix in ("", "marginal_")]
        correlation = agree["spearman"].get(OURS, {}).get(name, "")
        lines.append(
            f"| {name} | {one['pool']} | {one['rows']:,} | {one['rows_per_s']:,} | {one['marginal_rows_per_s']:,} | "
            f"{times[0]} | {times[1]} | {agree['mean_bald_nats'][name]:.4f} | {correlation} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure what is asked for; print and write it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", type=Path, help="the peers' interpreter; default: only who needs none")
    arguments.add_argument("--data", type=Path, default=Path("../shared/data/mnist"), help="without it random pictures")
    arguments.add_argument("--workload", choices=list(WORKLOADS), action="append", help="default: all")
    arguments.add_argument("--contestant", choices=list(WAYS), action="append", help="default: all")
    arguments.add_argument("--rows", type=int, help="that anybody scores at most, to try whether everything runs")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of those who need no library")
    arguments.add_argument("--out", type=Path, help="JSON, with the environment beside the figures")
    given = arguments.parse_args()
    results: dict[str, Any] = {}
    for name in given.workload or WORKLOADS:
        contestants = [
            one
            for one, way in WAYS.items()
            if one in (given.contestant or WAYS)
            and (given.peers or not of_library(one))
            and (WORKLOADS[name].cut or not way.cut)
        ]
        try:
            results[name] = compare(name, contestants, given.peers, given.data, given.rounds, given.threads, given.rows)
            print(table(results[name]), flush=True)
        except RuntimeError as error:  # the other workloads are measured all the same
            results[name] = {"error": str(error)}
            print(f"{name}: {error}", flush=True)
        if given.out:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps({"environment": environment(), "results": results}, indent=2) + "\n")
    return 1 if any("error" in result for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
