"""Journals as they are while no two shards come at a time."""

from __future__ import annotations

from collections.abc import Callable

from poolscore.engine.run.journal import Journal, ShardReport


def one_by_one(append: Callable[..., None]) -> Callable[..., None]:
    """In place of Journal.append: a record for each shard. How many come together is chance, and tests that count what
    is written want the same in every run."""

    def appended(self: Journal, *reports: ShardReport) -> None:
        for report in reports:
            append(self, report)

    return appended
