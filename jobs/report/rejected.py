"""Rows that could not be scored, by reason, from the errors/ parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from poolscore.engine.reasons import kind_of
from poolscore.engine.storage.filesystem import in_order, open_parquet
from poolscore.jobs.report.facts import Facts
from poolscore.jobs.report.text import column_texts, count, esc, percent, rows, shortened

REASONS = 10  # on the page
EXAMPLES = 3  # ids for each
DISTINCT = 10_000  # reasons told apart; messages may hold anything
REASON = 200  # characters
OTHER = ("", "other reasons")

Reason = tuple[str, str]  # stage, kind of message


@dataclass
class Rejected:
    """Rejected rows, counted."""

    counts: Counter[Reason] = field(default_factory=Counter)
    words: dict[Reason, str] = field(default_factory=dict)  # the message, where all of a kind have the same
    examples: dict[Reason, list[str]] = field(default_factory=dict)  # ids


def read_rejected(facts: Facts) -> Rejected:
    """Count the reasons over all parts that the journal names. Memory: a part, or as many as are read at once."""
    found, storage = Rejected(), facts.run.storage

    def read(name: str) -> pa.Table:
        with open_parquet(storage.path(name)) as file:
            return file.read(columns=["id", "stage", "error"])

    names = [report.errors for report in facts.reports.values() if report.errors is not None]
    for table in in_order(read, names, storage.at_once):
        stages, messages = (column_texts(table[name]) for name in ("stage", "error"))
        for i, (stage, message) in enumerate(zip(stages, messages, strict=True)):
            words = shortened(message, REASON)
            reason = (stage, kind_of(words))
            if reason not in found.counts and len(found.counts) >= DISTINCT:
                reason, words = OTHER, OTHER[1]
            found.counts[reason] += 1
            if found.words.setdefault(reason, words) != words:
                found.words[reason] = reason[1]
            examples = found.examples.setdefault(reason, [])
            if len(examples) < EXAMPLES:
                examples += column_texts(table["id"].slice(i, 1))
    return found


def section(facts: Facts) -> str:
    """The commonest reasons; nothing where every row was scored."""
    if not facts.totals.rejected:
        return ""
    found = read_rejected(facts)
    total = facts.totals.rejected
    shown = found.counts.most_common(REASONS)
    lines = "".join(_line(kind[0], found.words[kind], n, found.examples[kind]) for kind, n in shown)
    left = len(found.counts) - len(shown)
    rest = total - sum(n for _, n in shown)
    others = "one more reason" if left == 1 else f"{count(left)} more reasons"
    more = f'<p class="muted">and {rows(rest)} for {others}.</p>' if left else ""
    seen = facts.totals.scored + total
    return f"""
<section aria-labelledby="rejected">
<h2 id="rejected">Rows that could not be scored</h2>
<p class="lead">{rows(total)}, {percent(total, seen)} of what was read. They are in <code>errors/</code>
and cannot be selected.</p>
<div class="card scroll" tabindex="0" role="region" aria-label="Reasons">
<table><thead><tr><th scope="col" class="num">rows</th><th scope="col">reason</th><th scope="col">at</th>
<th scope="col">for example</th></tr></thead><tbody>{lines}</tbody></table></div>
{more}</section>"""


def _line(stage: str, message: str, n: int, ids: list[str]) -> str:
    examples = ", ".join(f"<bdi>{esc(id_, 60)}</bdi>" for id_ in ids)
    return (
        f'<tr><td class="num">{count(n)}</td><th scope="row"><bdi>{esc(message, REASON)}</bdi></th>'
        f'<td>{esc(stage)}</td><td class="ids">{examples}</td></tr>'
    )
