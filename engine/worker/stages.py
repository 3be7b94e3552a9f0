"""Where a worker's time goes: seconds of each stage of the pipeline, and which of them bounds.

Stages overlap, so their seconds do not add up to the time that passed. Those of the device do: idle, copying, the
model and the reduction follow each other there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

STAGES = ("read", "decode", "copy", "model", "reduce", "write", "idle")
ON_DEVICE = ("idle", "copy", "model", "reduce")
BUSY = 0.1  # idle share of the device below which the device is what bounds


@dataclass
class Stages:
    """Seconds by stage. Each stage is timed by one thread."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count the block for a stage."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] += time.monotonic() - started

    def each(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """The items; the time until each is there counts for a stage."""
        try:
            while True:
                with self.time(stage):
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item
        finally:
            if hasattr(items, "close"):
                items.close()


def idle_share(seconds: Mapping[str, float]) -> float:
    """Share of its time in which the device had nothing to do; nan if nothing was timed."""
    total = sum(seconds.get(stage, 0.0) for stage in ON_DEVICE)
    return seconds.get("idle", 0.0) / total if total else float("nan")


def bounding_stage(seconds: Mapping[str, float]) -> str | None:
    """The stage that a faster machine would need to be faster at; None if nothing was timed."""
    share = idle_share(seconds)
    if share != share:
        return None
    if seconds.get("write", 0.0) > sum(seconds.get(stage, 0.0) for stage in ON_DEVICE):
        return "write"  # of the two shards at work, the one that is written takes longer than the one on the device
    waited_for = ("read", "decode") if share > BUSY else ("copy", "model", "reduce")
    return max(waited_for, key=lambda stage: seconds.get(stage, 0.0))


def in_words(seconds: Mapping[str, float]) -> str | None:
    """One line; None if nothing was timed. Stages overlap, so their seconds are no shares of a whole."""
    bound = bounding_stage(seconds)
    if bound is None:
        return None
    told = ", ".join(f"{stage} {seconds.get(stage, 0.0):,.1f}" for stage in STAGES if stage != "idle")
    return f"{told} s on all workers; device idle {idle_share(seconds):.0%}; '{bound}' bounds"
