"""`poolscore compare`: two runs side by side, in plain lines."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError
from poolscore.engine.selection.compare import Comparison

SHOWN = 20  # groups


def lines_of(found: Comparison) -> list[str]:
    """What a person reads."""
    same = found.scores[0] == found.scores[1]
    sampled = " of a sample, the rows with the smallest keys" if found.sampled else ""
    correlation = "not defined" if found.spearman is None else f"{found.spearman:.4f}"
    lines = [
        f"score: {found.scores[0]}" if same else f"scores: {found.scores[0]} in A, {found.scores[1]} in B",
        f"rows: {found.rows[0]:,} in A, {found.rows[1]:,} in B; {found.common:,} in both{sampled}",
        f"Spearman's rank correlation over them: {correlation}",
        *(f"the best {o.k:,}: {o.rows:,} in both ({o.share:.1%})" for o in found.overlaps),
        f"batches of {found.k:,}: {found.only_in('a'):,} rows only in A, {found.only_in('b'):,} only in B",
    ]
    if found.by:
        lines += [
            f"{found.by} = {g.value}: {g.a:,} in A, {g.b:,} in B, {g.both:,} in both" for g in found.groups[:SHOWN]
        ]
    if len(found.groups) > SHOWN:
        lines.append(f"… and {len(found.groups) - SHOWN:,} more values of {found.by} (--json has all)")
    return lines


def write_only(found: Comparison, out: Path) -> None:
    """Write the rows that only one of the batches has.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        pq.write_table(found.only, out, compression="zstd")
    except OSError as error:
        raise ConfigError(f"--out: {out} cannot be written ({error.strerror or error})") from error
