"""What the journal costs: a shard's record, and opening a run of which 5,000 shards are finished.

    python benchmarks/bench_journal.py --out benchmarks/results/journal_DATE.json    # needs moto[server]

On the local disk, and on moto's S3 server on loopback behind a proxy that holds each request back for 0 or 80 ms. For
each: milliseconds of a part's write (200 kB), of the look behind it whether the run goes on, and of a record, and their
share of a 60-second shard; shards a second that the journal takes where each has a record of its own, and where GROUP
of them have one; seconds and requests to open the journal of a run whose driver died with all shards in one epoch, or
whose drivers died in ten. Reports are fabricated, of a usual size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from poolscore.engine.run.compaction import pack, range_at
from poolscore.engine.run.heartbeat import this_process
from poolscore.engine.run.journal import Journal, ShardReport, read_reports
from poolscore.engine.run.records import ADOPTED, folder_of, name_of
from poolscore.engine.run.sweep import keep_unless_sealed
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.open import open_storage
from poolscore.jobs.bench.environment import environment

SHARDS = 5_000
SHARD_SECONDS = 60
PART = 200_000  # bytes
GROUP = 64  # shards that are finished while a record is written
TARGETS = {"resume_seconds": 10.0, "share_of_shard": 0.01}
RUNS = {"one epoch": 1, "ten epochs": 10}
SCORES = ("entropy", "expected_entropy", "bald", "variation_ratio", "mean_std", "least_confidence", "margin", "random")
STAGES = ("read", "decode", "copy", "model", "reduce", "write", "idle")


def main() -> None:
    """Measure all places; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--appends", type=int, default=100)
    parser.add_argument("--note", help="what else must be known of the figures, such as a busy machine")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = dict(places(given.shards, given.appends))
    about = {"environment": environment(), "note": given.note, "load": os.getloadavg(), "targets": TARGETS}
    print(json.dumps(about | {"results": results}, indent=2))
    if given.out:
        given.out.write_text(json.dumps(about | {"results": results}, indent=2) + "\n")


def places(shards: int, appends: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each place with its figures."""
    with tempfile.TemporaryDirectory() as folder:
        fabricate_all(folder, shards)
        yield "local disk", measured(folder, shards, appends, [])
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from s3_server import only_loopback, proxy_before, running

    only_loopback(os.environ)
    with running(os.environ["AWS_ENDPOINT_URL"]) as server:
        bucket = server.new_bucket()
        fabricate_all(bucket, shards)
        for wait in (0.0, 0.08):
            with proxy_before(server.endpoint, lambda request, wait=wait: time.sleep(wait)) as proxy:
                os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
                yield f"S3, {wait * 1000:.0f} ms", measured(bucket, shards, appends, proxy.seen)


def fabricate_all(root: str, shards: int) -> None:
    """The runs that are opened later."""
    for name, epochs in RUNS.items():
        fabricate(open_storage(f"{root}/{name}"), shards, epochs)


def measured(root: str, shards: int, appends: int, seen: list[str]) -> dict[str, Any]:
    """All figures of a place; `seen` are the requests to it so far."""
    figures: dict[str, Any] = costs_of_a_shard(open_storage(f"{root}/new-{len(seen)}"), appends)
    for name in RUNS:
        storage = open_storage(f"{root}/{name}")
        before, started = len(seen), time.perf_counter()
        with Journal(storage) as journal:
            opened, requests = time.perf_counter() - started, len(seen) - before
            assert len(journal.adopted) == shards
        started = time.perf_counter()
        assert len(read_reports(storage)) == shards
        again = time.perf_counter() - started
        figures[name] = {"resume_seconds": opened, "requests": requests, "read_again_seconds": again}
        for entry in storage.names(folder_of(journal.epoch)):  # the next one finds the run as it was
            storage.delete(name_of(journal.epoch, entry))
    return figures


def costs_of_a_shard(storage: Storage, appends: int) -> dict[str, float]:
    """Medians of what a shard's commit, the worker's look whether the run still goes on, and its record take."""
    part = os.urandom(PART)
    commits = [milliseconds(partial(storage.publish, f"scores/{i}", lambda f: f.write(part))) for i in range(20)]
    with Journal(storage) as journal:
        looks = [milliseconds(partial(keep_unless_sealed, storage, journal.epoch, [f"scores/{i}"])) for i in range(20)]
        records = [milliseconds(partial(journal.append, report(i))) for i in range(appends)]
        first = range(appends, appends + 10 * GROUP, GROUP)
        groups = [milliseconds(partial(journal.append, *map(report, range(i, i + GROUP)))) for i in first]
    commit, look = statistics.median(commits), statistics.median(looks)
    record = statistics.fmean(records)  # the mean: every 64th compacts
    share = (commit + look + record) / 1000 / SHARD_SECONDS
    return {
        "commit_ms": commit,
        "look_ms": look,
        "record_ms": record,
        "slowest_record_ms": max(records),
        "group_record_ms": statistics.fmean(groups),
        "shards_per_second": 1000 / record,
        "shards_per_second_in_groups": 1000 * GROUP / statistics.fmean(groups),
        "share_of_shard": share,
    }


def milliseconds(call: Callable[[], object]) -> float:
    """What a call takes."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def fabricate(storage: Storage, shards: int, epochs: int) -> None:
    """The journal of a run whose drivers died, as Journal writes it, without its checks."""
    gone = asdict(replace(this_process(), started="another"))
    adopted: dict[int, int] = {}
    reports = [report(shard) for shard in range(shards)]
    each = shards // epochs
    for epoch in range(1, epochs + 1):
        token = f"token-{epoch}"
        opening = {**gone, "token": token, "beat": 5.0, "time": 0.0, "adopted": adopted}
        storage.create(name_of(epoch, 0), json.dumps(opening).encode())
        earlier = [json.dumps(asdict(one)).encode() for one in reports[: each * (epoch - 1)]]
        if earlier:
            storage.create(name_of(epoch, ADOPTED), pack(token, earlier))
        records = [json.dumps({"token": token, **asdict(one)}).encode() for one in reports[each * (epoch - 1) :][:each]]
        for number, data in enumerate(records, 1):
            storage.create(name_of(epoch, number), data)
            if (compacted := range_at(number)) is not None:
                storage.create(name_of(epoch, compacted), pack(token, records[compacted[0] - 1 : number]))
        adopted[epoch] = each


def report(shard: int) -> ShardReport:
    """A report of a usual size."""
    return ShardReport(
        shard=shard,
        scores=f"scores/part-{shard:05d}-{shard:08x}.parquet",
        errors=f"errors/part-{shard:05d}-{shard:08x}.parquet",
        scored=65_500,
        rejected=36,
        excluded=0,
        best=dict.fromkeys(SCORES, 1.2345678901234567),
        reasons={"cannot identify image file": 30, "null": 6},
        seconds=61.23456789012345,
        worker="worker-3@node-0123456789.cluster.internal",
        peak_memory=3_221_225_472,
        stages=dict.fromkeys(STAGES, 12.3456),
    )


if __name__ == "__main__":
    main()
