"""Time and driver memory of planning a pool of 300 million rows, in three subjects, each in a process of its own:

    files      10,000 real files of 30,000 rows on the local disk: listed, read, planned, written, handed out; then the
               same with the footers known
    table      300,000 files of 1,000 rows as a table of footers (33 TB of 110 KB pictures): the same
    latency    footers/s where every footer costs two requests of 80 ms, as in object storage (a sleep, no network)

    python benchmarks/bench_plan.py --out benchmarks/results/plan_cpu_DATE.json

Real files are small: their columns are constant, so that 30,000 rows take 18 kB. What a plan costs depends on footers.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.jobs.bench.environment import environment

SHARD_ROWS = 65_536
FILES, FILE_ROWS, GROUP_ROWS = 10_000, 30_000, 5_000
TABLE_FILES, TABLE_FILE_ROWS, TABLE_GROUPS = 300_000, 1_000, 7
LATENCY, REQUESTS = 0.08, 2
LONG_AGO = 1_700_000_000  # seconds since 1970; footers of files that were written just now are not kept


def main() -> None:
    """Run what is asked for, each subject in a fresh process; print and write the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--subject", choices=SUBJECTS, action="append", help="default: all")
    arguments.add_argument("--note", help="what else must be known of the figures, such as a busy machine")
    arguments.add_argument("--folder", type=Path, help="of the real files, to keep them; default: a temporary one")
    arguments.add_argument("--out", type=Path, help="JSON, with the environment beside the figures")
    arguments.add_argument("--inside", choices=SUBJECTS, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.inside:
        print(json.dumps(SUBJECTS[given.inside](given.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        write_pool(folder / "pool")
        results = {name: in_own_process(name, folder) for name in given.subject or SUBJECTS}
    about = {"environment": environment(), "note": given.note, "load": os.getloadavg(), "results": results}
    print(json.dumps(about, indent=2))
    if given.out:
        given.out.write_text(json.dumps(about, indent=2) + "\n")


def in_own_process(subject: str, folder: Path) -> dict[str, Any]:
    """What the subject gives, and the peak memory of its process."""
    command = [sys.executable, __file__, "--inside", subject, "--folder", str(folder)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def write_pool(folder: Path) -> None:
    """FILES copies of one file of constant columns, unless they are there."""
    if folder.exists():
        return
    columns = {"id": pa.array(np.zeros(FILE_ROWS, np.int64)), "label": ["cat"] * FILE_ROWS}
    columns["image"] = pa.array([b"x" * 600] * FILE_ROWS, pa.binary())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=GROUP_ROWS)
    for i in range(FILES):
        path = folder / f"{i % 100:02}" / f"part-{i:05}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
        os.utime(path, (LONG_AGO, LONG_AGO))


def real_files(folder: Path) -> dict[str, Any]:
    """First and second plan of the real files."""
    from poolscore.engine.pool.cut import make_plan
    from poolscore.engine.pool.files import PoolFiles
    from poolscore.engine.pool.find import find_files
    from poolscore.engine.run.footers import RunFooters
    from poolscore.engine.storage.local import LocalStorage

    driver = Driver()
    with tempfile.TemporaryDirectory() as run_dir:
        cache = RunFooters(LocalStorage(run_dir))

        def look() -> PoolFiles:
            return find_files(str(folder / "pool"), cache=cache)

        pool = driver.time("find_files", look)
        plan = driver.time("make_plan", lambda: make_plan(pool, SHARD_ROWS))
        use(driver, plan)
        first = sum(driver.seconds.values())
        again = driver.time("find_files_again", look)
        assert (pool.read, again.read, plan.rows) == (FILES, 0, FILES * FILE_ROWS)
    return {
        "files": len(pool),
        "rows": plan.rows,
        "shards": len(plan.shards),
        "footers_per_second": round(len(pool) / driver.seconds["find_files"]),
        "first_plan_seconds": round(first, 2),
        **driver.figures(),
    }


def table_of_footers(folder: Path) -> dict[str, Any]:
    """A plan of files that do not exist, from their footers as the cache keeps them."""
    from poolscore.engine.pool.cut import make_plan
    from poolscore.engine.pool.files import PoolFiles, table_of
    from poolscore.engine.pool.findings import findings_of
    from poolscore.engine.pool.footer import PoolFile
    from poolscore.engine.run.footers import RunFooters
    from poolscore.engine.storage.local import LocalStorage

    schema = pa.schema([("id", pa.string()), ("image", pa.binary()), ("label", pa.string())])
    rows = tuple(np.diff(np.linspace(0, TABLE_FILE_ROWS, TABLE_GROUPS + 1).astype(int)).tolist())
    sizes = tuple(110_000 * count for count in rows)

    def file(i: int) -> PoolFile:
        path = f"date=2026-{1 + i % 12:02}-{1 + i % 28:02}/part-{i:06}-3f2a9c1e.c000.parquet"
        return PoolFile(path, sum(sizes), i, f"{i:016x}", schema, rows, sizes, (True,) * len(rows))

    driver = Driver()
    parts = (table_of(map(file, range(at, at + 1000))) for at in range(0, TABLE_FILES, 1000))
    pool = PoolFiles("s3://bucket/pool", pa.concat_tables(parts).unify_dictionaries().combine_chunks().sort_by("path"))
    with tempfile.TemporaryDirectory() as run_dir:
        cache = RunFooters(LocalStorage(run_dir))
        driver.time("save_footers", lambda: cache.save(pool.table, None))
        driver.time("load_footers", lambda: cache.load(None))
    plan = driver.time("make_plan", lambda: make_plan(pool, SHARD_ROWS))
    driver.time("findings", lambda: findings_of(pool, plan, pool.root, 8))
    use(driver, plan)
    return {
        "files": len(pool),
        "row_groups": len(pool.group_rows_G),
        "rows": plan.rows,
        "bytes": pool.bytes,
        "shards": len(plan.shards),
        "plan_seconds": round(sum(driver.seconds.values()), 2),
        **driver.figures(),
    }


def use(driver: Driver, plan: Any) -> None:
    """What a run does with a plan: write it, read it again, shuffle its shards and hand them out one by one."""
    from poolscore.engine.pool.plan import Plan

    data = driver.time("write_plan", plan.to_parquet)
    again = driver.time("read_plan", lambda: Plan.from_parquet(data))
    assert again == plan

    def hand_out() -> int:
        queue = list(again.shards)
        random.Random(0).shuffle(queue)
        return sum(len(tuple(shard.pieces)) for shard in queue)

    assert driver.time("hand_out", hand_out) == plan.pieces.num_rows


def latent(folder: Path) -> dict[str, Any]:
    """Footers/s of the threads that read from object storage."""
    from poolscore.engine.pool import find, footer

    read, threads = footer.read_footer, find.REMOTE_THREADS

    def slowly(*arguments: Any) -> Any:
        time.sleep(REQUESTS * LATENCY)
        return read(*arguments)

    with changed(find, read_footer=slowly, LOCAL_THREADS=threads):
        started = time.monotonic()
        pool = find.find_files(str(folder / "pool"))
        rate = len(pool) / (time.monotonic() - started)
    return {
        "files": len(pool),
        "threads": threads,
        "requests_of_seconds": [REQUESTS, LATENCY],
        "footers_per_second": round(rate),
        "minutes_for_300_000": round(TABLE_FILES / rate / 60, 1),
    }


class Driver:
    """Times steps in a process that has imported what the driver of a job imports."""

    def __init__(self) -> None:
        import poolscore.engine.prepare  # noqa: F401  with torch

        self.seconds: dict[str, float] = {}
        self._before = peak_mib()

    def time(self, step: str, do: Callable[[], Any]) -> Any:
        started = time.monotonic()
        result = do()
        self.seconds[step] = time.monotonic() - started
        return result

    def figures(self) -> dict[str, Any]:
        return {
            "seconds": {step: round(seconds, 2) for step, seconds in self.seconds.items()},
            "driver_MiB": {"after_imports": self._before, "peak": peak_mib()},
        }


def peak_mib() -> int:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@contextmanager
def changed(module: Any, **values: Any) -> Iterator[None]:
    """A module with other values for a while."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


SUBJECTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "files": real_files,
    "table": table_of_footers,
    "latency": latent,
}

if __name__ == "__main__":
    main()
