"""Feeding: poolscore against Ray Data and a bare pyarrow loop, peak memory over row groups, slow object storage.

    python benchmarks/bench_feed.py compare --dir /tmp/feed    # needs pandas, for Ray Data
    python benchmarks/bench_feed.py memory --dir /tmp/feed
    python benchmarks/bench_feed.py latency --dir /tmp/feed    # needs moto[server]

Each run is a process of its own (`feed_ways.py`). Rates are marginal: what the rows cost that a larger pool has over a
smaller one, so that starting Ray and loading the model are apart. CPU seconds are those of all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from feed_pools import ARROW_PAGE, PACK_PAGE, write_pool, write_weights

from poolscore.engine.storage.filesystem import locate
from poolscore.jobs.bench.environment import environment

HERE = Path(__file__).parent
WORKERS = 2
MEMORY_MB = (16, 64, 256, 700)  # of a row group
BUDGET = 128 << 20  # run.read_ahead
BATCH_ROWS, BATCHES = 16, 4  # one that is used, one that is made, and those ahead round up
PAGES = 3  # one whose rows are in use, one that is read, and its bytes as they were fetched
LATENCY = 0.08  # seconds before the first byte
TARGETS = {"cpu_against_loop": 1.15, "rate_against_ray_data": 1.6, "rate_with_latency": 0.95}

Result = dict[str, Any]


@dataclass(frozen=True)
class Pools:
    """Two pools of one kind of picture."""

    name: str
    height: int
    width: int
    small: int  # rows
    large: int
    group_rows: int
    shard_rows: int


KINDS = (
    Pools("64x64", 64, 64, 20_000, 100_000, 2_000, 5_000),
    Pools("500x375", 375, 500, 400, 2_000, 100, 200),
)


def compare(folder: Path, repeats: int, scale: float, only: str | None) -> Result:
    """Rows/s and CPU per row of every way, in turn."""
    found: Result = {}
    for kind in (kind for kind in KINDS if only in (None, kind.name)):
        rows = {size: int(count * scale) for size, count in (("small", kind.small), ("large", kind.large))}
        uris = {size: _pool(folder, kind, count) for size, count in rows.items()}
        ways = ("loop", "poolscore", "local", "raydata")
        runs: dict[tuple[str, str], list[Result]] = {(way, size): [] for way in ways for size in uris}
        for _ in range(repeats):
            for (way, size), results in runs.items():
                results.append(_run(way, folder, uris[size], workers=WORKERS, shard_rows=kind.shard_rows))
        more = rows["large"] - rows["small"]
        found[kind.name] = {way: _marginal(runs[way, "small"], runs[way, "large"], more) for way in ways}
        _show(kind.name, found[kind.name])
    return found


def _marginal(small: list[Result], large: list[Result], rows: int) -> Result:
    def more(key: str) -> float:
        return float(statistics.median(r[key] for r in large) - statistics.median(r[key] for r in small))

    return {
        "rows_per_second": rows / more("seconds"),
        "cpu_us_per_row": more("cpu_seconds") / rows * 1e6,
        "start_seconds": statistics.median(r["seconds"] for r in small) - more("seconds") / rows * small[0]["rows"],
        "peak_MB": max(r["peak_MB"] for r in large),
        "stages": large[0]["stages"],
    }


def _show(name: str, ways: Mapping[str, Result]) -> None:
    print(f"{name:10} {'rows/s':>8} {'CPU µs/row':>11} {'start s':>8} {'peak MB':>8}")
    for way, r in ways.items():
        rate, cpu_us = r["rows_per_second"], r["cpu_us_per_row"]
        print(f"{way:10} {rate:8,.0f} {cpu_us:11.1f} {r['start_seconds']:8.1f} {r['peak_MB']:8}")
    cpu = {way: r["cpu_us_per_row"] for way, r in ways.items()}
    rates = {way: r["rows_per_second"] for way, r in ways.items()}
    print(
        f"CPU against the loop: {cpu['poolscore'] / cpu['loop']:.2f}x on Ray, {cpu['local'] / cpu['loop']:.2f}x in one "
        f"process (at most {TARGETS['cpu_against_loop']}); rate against Ray Data: "
        f"{rates['poolscore'] / rates['raydata']:.2f}x (at least {TARGETS['rate_against_ray_data']})",
        flush=True,
    )


def memory(folder: Path, scale: float) -> Result:
    """How much a process grows that reads and decodes a shard as a worker does, without a model. What is stated: a
    shard's half of `run.read_ahead`, BATCHES batches, and PAGES pages of the file, which Arrow reads whole."""
    found: Result = {}
    row_bytes, batch = _row_bytes(_pool(folder, KINDS[1], 200)), BATCH_ROWS * 500 * 375 * 3
    for page_rows, megabytes in product((PACK_PAGE, ARROW_PAGE), MEMORY_MB):
        group = max(1, int(megabytes * scale * 1e6 / row_bytes))
        uri = folder / f"memory-{group}-{page_rows}"
        if not uri.exists():
            write_pool(uri, max(2 * group, 500), 375, 500, group, files=1, page_rows=page_rows)
        r = _run("feed", folder, str(uri), batch_size=BATCH_ROWS, read_ahead=BUDGET)
        page = max(1 << 20, min(page_rows, group) * row_bytes)
        grew, stated = r["peak_MB"] - r["before_MB"], (BUDGET / 2 + BATCHES * batch + PAGES * page) / 1e6
        case = f"row groups of {megabytes} MB, pages of {page / 1e6:.1f} MB"
        found[case] = {"grew_MB": grew, "stated_MB": stated, "rows": r["rows"]}
        print(f"{case}: {grew} MB more than before the first shard, stated {stated:.0f} MB", flush=True)
    return found


def _row_bytes(uri: str) -> float:
    files = list(Path(uri).glob("*.parquet"))
    return sum(file.stat().st_size for file in files) / 200


def latency(folder: Path, repeats: int, scale: float) -> Result:
    """Rows/s from an S3 server on loopback, with and without a wait before the first byte of every answer."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from s3_server import only_loopback, proxy_before, running

    kind = Pools("latency", 64, 64, 20_000, 100_000, 2_000, 10_000)
    rows = {"small": int(kind.small * scale), "large": int(kind.large * scale)}
    uris = {size: Path(_pool(folder, kind, count)) for size, count in rows.items()}
    only_loopback(os.environ)
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    times: dict[tuple[float, str], list[float]] = {(wait, size): [] for wait in (0.0, LATENCY) for size in uris}
    with running(endpoint) as server:
        bucket = server.new_bucket()
        for uri in uris.values():
            for file in uri.glob("*.parquet"):
                _upload(file, f"{bucket}/{uri.name}/{file.name}")
        for _ in range(repeats):
            for (wait, size), seconds in times.items():
                with _waiting(proxy_before, server.endpoint, wait):
                    seconds.append(_from(bucket, folder, uris[size].name, kind.shard_rows))
    more = rows["large"] - rows["small"]
    rates = {
        wait: more / (statistics.median(times[wait, "large"]) - statistics.median(times[wait, "small"]))
        for wait in (0.0, LATENCY)
    }
    print(
        f"{rates[0.0]:,.0f} rows/s; with {LATENCY * 1e3:.0f} ms before each first byte {rates[LATENCY]:,.0f}: ", end=""
    )
    print(f"{rates[LATENCY] / rates[0.0]:.3f} of it (at least {TARGETS['rate_with_latency']})")
    return {"rows_per_second": rates[0.0], "with_latency": rates[LATENCY]}


def _from(bucket: str, folder: Path, name: str, shard_rows: int) -> float:
    seconds: float = _run("local", folder, f"{bucket}/{name}", decode_threads=1, shard_rows=shard_rows)["seconds"]
    return seconds


def _upload(file: Path, uri: str) -> None:
    at = locate(uri)
    with at.filesystem.open_output_stream(at.path) as target:
        target.write(file.read_bytes())


@contextmanager
def _waiting(proxy_before: Any, endpoint: str, wait: float) -> Iterator[None]:
    """The endpoint that processes started in the block find."""
    with proxy_before(endpoint, lambda request: time.sleep(wait)) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        yield


def _pool(folder: Path, kind: Pools, rows: int) -> str:
    uri = folder / f"{kind.name}-{rows}"
    if not uri.exists():
        write_pool(uri, rows, kind.height, kind.width, kind.group_rows or 100, files=max(1, rows // 10_000))
    return str(uri)


def _run(way: str, folder: Path, uri: str, **options: Any) -> Result:
    if way in ("loop", "local"):
        options.pop("workers", None)
    given = [f"{key}={json.dumps(value)}" for key, value in options.items()]
    command = [sys.executable, str(HERE / "feed_ways.py"), way, str(folder), uri, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed: {done.stderr[-3000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run one part; write its figures beside the environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("compare", "memory", "latency"))
    parser.add_argument("--dir", type=Path, required=True, help="for pools and runs; pools are kept")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the pools' rows, to try the benchmark")
    parser.add_argument("--only", choices=[kind.name for kind in KINDS], help="pictures to compare with")
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args()
    given.dir.mkdir(parents=True, exist_ok=True)
    write_weights(given.dir)
    parts = {
        "compare": lambda: compare(given.dir, given.repeats, given.scale, given.only),
        "memory": lambda: memory(given.dir, given.scale),
        "latency": lambda: latency(given.dir, given.repeats, given.scale),
    }
    found = parts[given.part]()
    if given.out:
        given.out.write_text(json.dumps({given.part: found, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
