"""What `verified` in run.json says, in words; for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RANDOM_PART = "a random part of it"  # shards are handed out in shuffled order


def verified_in_words(entry: Mapping[str, Any]) -> str:
    """One line."""
    note = f" ({entry['note']})" if entry.get("note") else ""
    if not entry["rows"]:
        return f"no row could be scored again{note}"
    name, worst = max(entry["scores"].items(), key=lambda item: float(item[1]["largest"]))
    judged = (
        f"{len(entry['wrong'])} FINDINGS THAT PRECISION DOES NOT EXPLAIN" if entry["wrong"] else "as precision explains"
    )
    return (
        f"{entry['rows']:,} rows scored again in {entry['precision']}: largest difference {worst['largest']:.1e} "
        f"({name}), {judged}{note}"
    )
