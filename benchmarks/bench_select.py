"""Time and memory of selecting from 200 million stored scores, each case in a process of its own.

    python benchmarks/bench_select.py --out benchmarks/results/select_cpu_DATE.json

The scores are fabricated: parts of 65,536 rows with row_id, key, id, one score, prediction and confidence, plain, as a
worker writes them. Two pools, one after the other, 7 GB of disk each, deleted at the end unless --folder is given:

    random      scores in no order
    ascending   scores rise along the pool; `climbing` is the same pool where the journal does not say what the best
                score of a part is: every part is read, and the rows of later ones are always better

`read` merely reads the column of scores with Arrow, part by part, on as many threads, and is what the ratio is to.
`found` is the time till the rows are known, sorted, with key and row_id; `written` has fetched the other columns too
and has written the Parquet file; with `_cpu` it is the seconds of all cores, and the ratio to those of `read`. Memory
is the peak of the process, with and without what its imports take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.keys import IdSet
from poolscore.engine.machine.cores import usable_cores
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.columns import Columns
from poolscore.engine.selection.others import Others
from poolscore.engine.selection.parts import Part
from poolscore.engine.selection.ranking import ranking_of
from poolscore.engine.selection.result import Batch
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.threshold import Question, Threads
from poolscore.engine.selection.top import Scored, fill
from poolscore.engine.selection.write import write_selection
from poolscore.engine.storage.local import LocalStorage

PART_ROWS = 65_536
SCORE = "bald"
CASES = (  # pool, method, k
    ("random", "read", 0),
    ("random", "topk", 1_000),
    ("random", "topk", 1_000_000),
    ("random", "topk", 10_000_000),
    ("random", "power", 1_000),
    ("random", "power", 1_000_000),
    ("ascending", "read", 0),
    ("ascending", "topk", 1_000),
    ("ascending", "topk", 1_000_000),
    ("climbing", "topk", 1_000),
    ("climbing", "topk", 1_000_000),
    ("climbing", "topk", 10_000_000),
)


def main() -> None:
    """Write the pools, run every case in turn, print and write the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=200_000_000)
    arguments.add_argument("--repeats", type=int, default=3, help="of each case; the median counts")
    arguments.add_argument("--folder", type=Path, help="of the pools, to keep them; default: a temporary one")
    arguments.add_argument("--note", help="what else must be known of the figures, such as a busy machine")
    arguments.add_argument("--out", type=Path, help="JSON, with the environment beside the figures")
    arguments.add_argument("--inside", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.inside:
        pool, method, k = given.inside.split(",")
        print(json.dumps(run_case(given.folder, pool, method, int(k))))
        return
    with tempfile.TemporaryDirectory(prefix="poolscore-bench-") as temporary:
        folder = given.folder or Path(temporary)
        results = [figures for pool in POOLS for figures in of_pool(folder, pool, given)]
    from poolscore.jobs.bench.environment import (
        environment,  # it imports torch, and a child begins with its parent's peak memory
    )

    about = {"environment": environment(), "note": given.note, "load": os.getloadavg(), "rows": given.rows}
    print(json.dumps({**about, "results": results}, indent=2))
    if given.out:
        given.out.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")


def of_pool(folder: Path, pool: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Every case of a pool, in turn, so that all of them meet the same machine."""
    write_pool(folder / pool, POOLS[pool], given.rows)
    cases = [case for case in CASES if _folder(case[0]) == pool and case[2] <= given.rows]
    for _ in range(2):  # from disk into the system's cache
        in_own_process(folder, cases[0])
    runs = [[in_own_process(folder, case) for case in cases] for _ in range(given.repeats)]
    if not given.folder:
        shutil.rmtree(folder / pool)
    figures = [_median([turn[i] for turn in runs]) for i in range(len(cases))]
    read = figures[0]["seconds"]
    for case, found in zip(cases, figures, strict=True):
        found |= {"pool": case[0], "method": case[1], "k": case[2]}
        wall, cores = found["seconds"], ("found_cpu", "written_cpu")
        found["times_read"] = {
            step: round(wall[step] / read["found_cpu" if step in cores else "found"], 2) for step in wall
        }
    return figures


def in_own_process(folder: Path, case: tuple[str, str, int]) -> dict[str, Any]:
    """What a case gives."""
    command = [sys.executable, __file__, "--inside", ",".join(map(str, case)), "--folder", str(folder)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def run_case(folder: Path, pool: str, method: str, k: int) -> dict[str, Any]:
    """Seconds and memory of one selection, or of reading."""
    numbers = json.loads((folder / _folder(pool) / "parts.json").read_text())
    parts = [Part(**number, path=str(folder / _folder(pool) / f"{number['number']}.parquet")) for number in numbers]
    if pool == "climbing":
        parts = [replace(part, best=float("inf")) for part in parts]
    imported, clock = peak_mib(), Clock()
    if method == "read":
        list(Threads(usable_cores()).map(read, SCORE, parts))
        seconds = clock.until("found")
    else:
        seconds = select(parts, Choice(SCORE, k, method, beta=1.0, seed=0), folder, clock)
    peak = peak_mib()
    return {"seconds": seconds, "MiB": {"peak": peak, "above_imports": peak - imported}}


def read(_: Any, score: str, part: Part) -> int:
    """Reads the scores of a part and does nothing with them."""
    with pq.ParquetFile(part.path) as file:
        rows: int = file.read([score], use_threads=False).num_rows
    return rows


def select(parts: list[Part], choice: Choice, folder: Path, clock: Clock) -> dict[str, float]:
    """Seconds till the rows are found, and till they are written."""
    question = Question(SCORE, ranking_of(choice.method, choice.beta, choice.seed), IdSet())
    scored = Scored(parts, [0], Threads(usable_cores()))
    with SortedRuns(choice.k) as best:
        assert fill(best, scored, question, choice.k) == choice.k
        assert sum(map(len, best.merged())) == choice.k
        found = clock.until("found")
        columns = Columns(parts, SCORE, ("id", "prediction", "confidence"), usable_cores())
        with tempfile.TemporaryDirectory(dir=folder) as run:
            write_selection(LocalStorage(run), Batch(choice, {}, columns, Others(choice.k, best.merged)))
    return found | clock.until("written")


class Clock:
    """Seconds since it was made: of the wall, and of all cores."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def until(self, step: str) -> dict[str, float]:
        """Both, by the name of what is done now."""
        wall, cores = self._started
        return {step: time.perf_counter() - wall, f"{step}_cpu": time.process_time() - cores}


def write_pool(folder: Path, scores_of: Callable[[np.random.Generator, int, int], Any], rows: int) -> None:
    """Parts of a pool, unless they are there."""
    if (folder / "parts.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    random, parts = np.random.default_rng(0), []
    for number, start in enumerate(range(0, rows, PART_ROWS)):
        count = min(PART_ROWS, rows - start)
        scores = scores_of(random, start, count).astype(np.float32)
        row_ids = np.arange(start, start + count)
        table = {
            "row_id": row_ids,
            "key": random.integers(0, 2**64, count, np.uint64),
            "id": row_ids,
            SCORE: scores,
            "prediction": random.integers(0, 10, count, np.int32),
            "confidence": random.random(count, np.float32),
        }
        pq.write_table(pa.table(table), folder / f"{number}.parquet", compression="none", use_dictionary=False)
        parts.append({"number": number, "run": 0, "rows": count, "best": float(scores.max())})
    (folder / "parts.json").write_text(json.dumps(parts))


POOLS: dict[str, Callable[[np.random.Generator, int, int], Any]] = {
    "random": lambda random, start, count: random.beta(0.5, 4, count),
    "ascending": lambda random, start, count: np.arange(start, start + count) / 2**24,
}


def peak_mib() -> int:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _folder(pool: str) -> str:
    return "ascending" if pool == "climbing" else pool


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = {step: round(statistics.median(run["seconds"][step] for run in runs), 3) for step in runs[0]["seconds"]}
    return {"seconds": seconds, "MiB": {name: max(run["MiB"][name] for run in runs) for name in runs[0]["MiB"]}}


if __name__ == "__main__":
    main()
