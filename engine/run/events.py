"""What happened to a run's workers, for a person who asks later. The run directory keeps the latest of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

What = Literal["joined", "lost", "leaving", "refused", "killed", "copied"]


@dataclass(frozen=True)
class RunEvent:
    """Something that a person may want to know later."""

    what: What  # copied: a shard was handed out a second time, while a worker still has it
    worker: int  # copied: the one that got the copy
    shard: int | None = None
    why: str = ""
    at: float = field(default_factory=time.time)  # seconds since 1970, UTC
