"""What `verified` in run.json says, in words; for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poolscore.engine.words import amount

RANDOM_PART = "a random part of it"  # shards are handed out in shuffled order


def verified_in_words(entry: Mapping[str, Any]) -> str:
    """One line."""
    note = f" ({entry['note']})" if entry.get("note") else ""
    if not entry["rows"]:
        return f"no row could be scored again{note}"
    name, worst = max(entry["scores"].items(), key=lambda item: float(item[1]["largest"]))
    fine = "as precision explains" if entry["judged"] else "nothing looks wrong, though so few rows prove little"
    wrong = len(entry["wrong"])
    judged = f"{amount(wrong, 'finding')} that precision DOES NOT explain" if wrong else fine
    again = f"{amount(entry['rows'], 'row')} scored again in {entry['precision']}"
    return f"{again}: largest difference {worst['largest']:.1e} ({name}), {judged}{note}"
