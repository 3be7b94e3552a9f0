"""What `--json` prints for commands that prepare or score; the names of the fields are kept."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from poolscore.engine.run.directory import RunDirectory
from poolscore.jobs.status import state_of

if TYPE_CHECKING:
    from poolscore.engine.before.advise import Advised
    from poolscore.engine.before.check import CheckResult
    from poolscore.engine.finish import RunResult
    from poolscore.engine.prepare import Prepared


def of_run(result: RunResult, report: str | None) -> dict[str, Any]:
    """`score` and `retry`: what `status` tells, and what came of it."""
    run = RunDirectory(result.run_dir)
    return {
        **state_of(run, result.totals),
        "exit_code": result.exit_code,
        "finished_before": result.finished_before,
        "seconds": result.seconds,
        "selection": result.selection,
        "report": report,
        "shortlist": result.shortlist.to_json() if result.shortlist is not None else None,
        "near_duplicates": result.near_duplicates.to_json(),
        "notes": list(result.notes),
    }


def of_plan(
    prepared: Prepared,
    checked: CheckResult | None,
    advised: Advised | None,
    preview: dict[str, Any] | None,
) -> dict[str, Any]:
    """`plan`: sizes in rows and bytes, times in seconds."""
    config, pool, probe, cut = prepared.config, prepared.plan, prepared.job.probe, prepared.scorer.model.cut
    rate = config.run.batch_size / prepared.batch_seconds
    return {
        "pool": {
            "uri": config.pool.uri,
            "rows": pool.rows,
            "expected_rows": pool.expected_rows,
            "files": pool.files,
            "bytes": pool.bytes,
            "row_groups": len(prepared.pool.group_rows_G),
            "bad_files": len(pool.unreadable),
            "excluded_ids": prepared.listed,
            "digest": pool.digest,
        },
        "shards": len(pool.shards),
        "model": {"source": config.model.source, "task": config.model.task, "outputs": probe.outputs},
        "passes": {
            "count": config.passes.count,
            "masks": config.passes.masks,
            "precision": config.passes.precision,
            "mask_bytes": prepared.mask_bytes,
        },
        "frontier": None if cut is None else {"operators_once": cut.operators[0], "operators_each": cut.operators[1]},
        "repeated_because": prepared.scorer.model.repeated_because,
        "cost": prepared.cost.relative,
        "dropout": [{"name": one.name, "kind": one.kind, "p": one.p, "live": one.live} for one in probe.layers],
        "stays_off": dict(probe.stays_off),
        "batch_size": config.run.batch_size,
        "batch_seconds": prepared.batch_seconds,
        "rows_per_second": rate,
        "seconds": pool.expected_rows / rate,
        "findings": [str(finding) for finding in prepared.findings],
        "check": asdict(checked) if checked is not None else None,
        "advised": asdict(advised) if advised is not None else None,
        "preview": preview,
    }
