"""What about a pool costs time or memory, for `plan` and `score` to tell of: what, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from poolscore.engine.pool.files import PoolFiles
from poolscore.engine.pool.health import FileHealth, Finding, PoolHealth
from poolscore.engine.pool.plan import Plan

SHARDS_PER_WORKER = 4  # so that workers end at about the same time
LEAST_ROWS = 1_000  # of a worker: with fewer, nothing is gained by more shards


def findings_of(pool: PoolFiles, plan: Plan, uri: str, workers: int | None) -> list[Finding]:
    """Findings of the pool's footers and of its plan.

    Args:
        uri: how the advice names the pool.
        workers: None: not known yet.
    """
    health = PoolHealth()
    for path, file in _health(pool):
        health.add(path, file)
    found = health.findings(uri)
    if workers is not None and len(plan.shards) < workers and plan.rows >= LEAST_ROWS * workers:
        found.append(_few_shards(pool, plan, workers))
    return found


def _health(pool: PoolFiles) -> Iterator[tuple[str, FileHealth]]:
    names = ("path", "bytes", "group_rows", "group_bytes", "compressed_twice", "codecs", "dictionary")
    for batch in pool.table.to_batches(max_chunksize=4096):  # never an object for each file of a large pool
        schemas = batch.column("schema").indices.to_pylist()
        columns = (batch.column(name).to_pylist() for name in names)
        for schema, path, size, rows, sizes, twice, codecs, dictionary in zip(schemas, *columns, strict=True):
            of_column = dict(zip(twice, codecs, strict=True))
            yield (
                path,
                FileHealth(
                    bytes=size,
                    group_rows=tuple(rows),
                    group_bytes=tuple(sizes),
                    schema=str(schema),
                    codecs=of_column,
                    compressed_twice=tuple(twice),
                    dictionary=tuple(dictionary),
                ),
            )


def _few_shards(pool: PoolFiles, plan: Plan, workers: int) -> Finding:
    shards = len(plan.shards)
    wanted = max(1, plan.rows // (SHARDS_PER_WORKER * workers))
    what = f"{shards} shard{'s' * (shards > 1)} for {workers} workers: {workers - shards} have nothing to do"
    small = int(pool.group_rows_G.max()) <= wanted
    advice = f"set run.shard_rows to {wanted} or less" + ("" if small else ", or write smaller row groups")
    return Finding("few_shards", what, pool.first, advice)
