"""What is told after a run, and of rows that were scored again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from poolscore.engine.stages import STAGES, bounding_stage, idle_share
from poolscore.engine.words import amount
from poolscore.jobs.show.terminal import Facts, duration, errors, warn
from poolscore.jobs.verified import RANDOM_PART, verified_in_words

if TYPE_CHECKING:
    from poolscore.engine.run.directory import Totals
    from poolscore.engine.score import RunResult


def summary(result: RunResult, report_path: str) -> None:
    """What the run came to."""
    totals = result.totals
    facts = Facts("done" if not (result.set_aside or result.limit) else "finished, but not whole")
    facts.add("scored", f"{amount(totals.scored, 'row')}")
    if result.limit is not None:
        share = totals.rows / result.pool_rows
        facts.add(
            "coverage", f"{share:.1%} of the pool's rows, {RANDOM_PART}; {amount(result.shards_left, 'shard')} left"
        )
        facts.add("ended", f"{result.limit}; the same command with more of it goes on")
    if totals.rejected:
        reason, count = max(totals.reasons.items(), key=lambda item: item[1])
        facts.add("rejected", f"{amount(totals.rejected, 'row')}, most often ({count:,}): {reason}")
    if totals.filtered:
        facts.add("left out", f"{amount(totals.filtered, 'row')} that pool.filter or pool.sample do not want")
    if totals.excluded or result.listed:
        facts.add("excluded", f"{amount(totals.excluded, 'row')}; pool.exclude lists {amount(result.listed, 'id')}")
    for shard, reason in result.set_aside.items():
        facts.add(f"shard {shard}", f"set aside: {reason}")
    if result.listed and not totals.excluded:
        warn("no id of pool.exclude is in the pool; are they written as in pool.id?")
    facts.add("time", f"{duration(result.seconds)}, {totals.rows_per_worker_second:,.0f} rows/s per worker")
    add_stages(facts, totals)
    if result.mixed is not None:
        facts.add("mixed", result.mixed)
    facts.add("memory", f"{totals.peak_memory / 2**20:,.0f} MiB at the peak of a worker")
    if result.shortlist is not None:
        told = [f"{amount(result.shortlist.rows, 'row')}"] if result.shortlist.rows else []
        facts.add("shortlist", "; ".join([*told, *result.shortlist.notes]))
    entry = result.verified.to_json() if result.verified is not None else None
    if entry is not None:
        facts.add("verified", verified_in_words(entry))
    facts.add("selection", result.selection)
    for note in result.notes:
        facts.add("of it", note)
    facts.add("near-duplicates", result.near_duplicates.in_words())
    facts.add("report", report_path)
    facts.show()
    if entry is not None:
        _warn_of_differences(entry)


def verified(entry: Mapping[str, Any]) -> None:
    """Rows that were scored again, score by score."""
    facts = Facts(verified_in_words(entry))
    for name, found in entry["scores"].items():
        facts.add(name, f"{found['largest']:.1e}; row {found['row_id']:,} may differ by {found['allowed']:.1e}")
    facts.show()
    _warn_of_differences(entry)


def _warn_of_differences(entry: Mapping[str, Any]) -> None:
    for one in entry["wrong"]:
        errors.print(f"[bold red]WRONG SCORES:[/] {escape(one)}", soft_wrap=True)


def add_stages(facts: Facts, totals: Totals) -> None:
    """Where the workers' time went; stages overlap, so theirs are no shares of a whole."""
    bound = bounding_stage(totals.stages)
    if bound is None:
        return  # written by an older version, or nothing is scored yet
    seconds = ", ".join(f"{stage} {totals.stages.get(stage, 0.0):,.1f}" for stage in STAGES if stage != "idle")
    facts.add("stages", f"{seconds} s on all workers; device idle {idle_share(totals.stages):.0%}; '{bound}' bounds")
