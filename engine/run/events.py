"""What happened to a run, for a person who asks later. The run directory keeps the latest of it; the log has it all."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from poolscore.engine import log

What = Literal[
    "claimed",  # a driver opened an epoch of the journal, and works on the run from now on
    "joined",  # a worker is ready
    "refused",  # a worker has another numeric profile, and is not used
    "leaving",  # a worker's machine is about to be taken away
    "lost",  # a worker died; `shard`: what it was at
    "killed",  # a worker was given up, because it hangs or fails at what others can do
    "copied",  # a shard was handed out a second time, while a worker still has it; `worker`: who got the copy
    "failed",  # a worker could not score a shard, which is tried again
    "searched",  # a shard is searched for the rows that make it fail
    "set_aside",  # a shard is given up
    "waited",  # storage failed for a while, and works again
    "ended",  # the driver's work is over; `why` begins with the run's status
]
ALARMING = {"refused", "lost", "killed", "failed", "set_aside", "waited"}  # warnings in the log
LONGEST_WHY = 500  # characters


@dataclass(frozen=True)
class RunEvent:
    """Something that a person may want to know later."""

    what: What
    worker: int | None = None
    shard: int | None = None
    why: str = ""
    at: float = field(default_factory=time.time)  # seconds since 1970, UTC

    def to_json(self) -> dict[str, Any]:
        """What is known of it, as run.json and the log have it; bounded in size."""
        known = {name: value for name, value in asdict(self).items() if value not in (None, "")}
        return known | ({"why": self.why[:LONGEST_WHY]} if self.why else {})


def in_words(event: Mapping[str, Any]) -> str:
    """An event, as run.json has it, in one line."""
    worker = f"worker {event['worker']} " if event.get("worker") is not None else ""
    shard = f", shard {event['shard']}" if event.get("shard") is not None else ""
    why = f": {event['why']}" if event.get("why") else ""
    return f"{worker}{str(event.get('what')).replace('_', ' ')}{shard}{why}"


def log_event(event: RunEvent) -> None:
    """A line of the log."""
    fields = event.to_json()
    del fields["at"]
    what = fields.pop("what")
    log.event(logging.WARNING if what in ALARMING else logging.INFO, in_words(event.to_json()), event=what, **fields)
