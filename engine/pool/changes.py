"""What became of a pool's files between two plans, by path and size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from poolscore.engine.pool.plan import UNKNOWN, Plan

NAMED = 3  # files, of many


@dataclass(frozen=True)
class Changes:
    """Paths, in sorted order."""

    came: Sequence[str]
    gone: Sequence[str]
    resized: Sequence[str]

    def __str__(self) -> str:
        """In words; empty if there is none."""
        kinds = (("came", self.came), ("went", self.gone), ("changed size", self.resized))
        return "; ".join(f"{named(paths)} {verb}" for verb, paths in kinds if paths)


def files_of(plan: Plan) -> dict[str, int]:
    """Path → bytes of each file that has a row in the plan."""
    paths = plan.pieces["path"].combine_chunks()
    used, first = np.unique(paths.indices.to_numpy(), return_index=True)
    sizes = plan.pieces["file_bytes"].to_numpy()[first]
    return dict(zip(paths.dictionary.take(used).to_pylist(), sizes.tolist(), strict=True))


def changes(before: Mapping[str, int], now: Mapping[str, int]) -> Changes:
    """What became of the files `before`, path → bytes."""
    known = before.keys() & now.keys()
    resized = (path for path in known if UNKNOWN not in (before[path], now[path]) and before[path] != now[path])
    return Changes(sorted(now.keys() - known), sorted(before.keys() - known), sorted(resized))


def named(paths: Iterable[str]) -> str:
    """The first few of many."""
    every = list(paths)
    more = f" and {len(every) - NAMED:,} more files" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more
