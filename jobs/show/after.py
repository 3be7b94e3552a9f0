"""What is told after a run, and of rows that were scored again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from poolscore.engine.words import amount
from poolscore.engine.worker import stages
from poolscore.jobs.shortlisted import shortlist_in_words
from poolscore.jobs.show.terminal import Facts, duration, errors, warn
from poolscore.jobs.verified import RANDOM_PART, verified_in_words

if TYPE_CHECKING:
    from poolscore.engine.finish import RunResult
    from poolscore.engine.run.totals import Totals


def summary(result: RunResult, report_path: str) -> None:
    """What the run came to."""
    totals = result.totals
    facts = Facts(_ended(result))
    facts.add("scored", f"{amount(totals.scored, 'row')}")
    if result.limit is not None:
        share = floor(1000 * totals.rows / result.pool_rows) / 1000  # 100 % would be all
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
    took = "" if result.finished_before else f"{duration(result.seconds)}, "
    facts.add("time", f"{took}{totals.rows_per_worker_second:,.0f} rows/s per worker")
    _add_stages(facts, totals)
    if result.mixed is not None:
        facts.add("mixed", result.mixed)
    facts.add("memory", f"{totals.peak_memory / 2**20:,.0f} MiB at the peak of a worker")
    if result.shortlist is not None:
        facts.add("shortlist", shortlist_in_words(result.shortlist.to_json()))
    entry = result.verified.to_json() if result.verified is not None else None
    if entry is not None:
        facts.add("verified", verified_in_words(entry))
    facts.add("selection", result.selection)
    for note in result.notes:
        facts.add("of it", note)
    facts.add("near-duplicates", result.near_duplicates.in_words())
    facts.add("report", report_path)
    facts.show()
    _warn_of_differences(result.wrong)
    if result.wrong:
        warn(
            "the exit code is 3 until `poolscore verify CONFIG` finds nothing any more; do not label this batch unseen"
        )


def _ended(result: RunResult) -> str:
    if result.finished_before and not result.wrong:
        return f"{result.run_dir} was finished before: nothing was left to score; the selection is as configured now"
    if result.wrong:
        return "finished, but scored again some rows come out otherwise"
    return "finished, but not whole" if result.set_aside or result.limit else "done"


def verified(entry: Mapping[str, Any]) -> None:
    """Rows that were scored again, score by score."""
    facts = Facts(verified_in_words(entry))
    for name, found in entry["scores"].items():
        facts.add(name, f"{found['largest']:.1e}; row {found['row_id']:,} may differ by {found['allowed']:.1e}")
    facts.show()
    _warn_of_differences(entry["wrong"])


def _warn_of_differences(wrong: Sequence[str]) -> None:
    for one in wrong:
        errors.print(f"[bold red]WRONG SCORES:[/] {escape(one)}", soft_wrap=True)


def _add_stages(facts: Facts, totals: Totals) -> None:
    """Where the workers' time went; stages overlap, so theirs are no shares of a whole."""
    if (timed := stages.in_words(totals.stages)) is not None:
        facts.add("stages", timed)
