"""What `shortlist` in run.json says, in words; for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poolscore.engine.words import amount


def shortlist_in_words(entry: Mapping[str, Any]) -> str:
    """One line."""
    told = [amount(entry["rows"], "row")] if entry["rows"] else []
    if entry.get("labelled") is not None:  # older versions did not say it
        told.append(f"features of {amount(entry['labelled'], 'labelled row')}")
    return "; ".join([*told, *entry["notes"]])
