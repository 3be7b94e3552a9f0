"""When a run ends before its pool is scored: `run.deadline`, `run.max_gpu_hours`.

Shards are handed out in shuffled order, so what is scored by then is a random part of the pool.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from datetime import time as time_of_day

from poolscore.engine.errors import ConfigError

Deadline = timedelta | time_of_day | datetime

_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "m": 60, "s": 1}
_PART = re.compile(r"([0-9]+(?:[.][0-9]+)?) *(d|h|min|m|s)(?![a-z]) *")
DEADLINES = "a duration such as '8h' or '1h 30m', a time such as '06:00', or a date with it: '2026-11-23T06:00'"


def parse_deadline(text: str) -> Deadline:
    """A duration, the time of a day, or a date and a time.

    Raises:
        ValueError: it is none of them.
    """
    if parts := _PART.findall(text):
        if _PART.sub("", text) == "" and any(float(number) for number, _ in parts):
            return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
        raise ValueError(f"must be {DEADLINES}, got '{text}'")
    for form in (time_of_day, datetime):
        try:
            found: Deadline = form.fromisoformat(text)
        except ValueError:
            continue
        if ":" in text:  # a day alone leaves open which hour of it
            return found
    raise ValueError(f"must be {DEADLINES}, in quotes, got '{text}'")


def moment_of(deadline: Deadline, now: datetime) -> datetime:
    """When a deadline is reached. A duration counts from `now`, a time of day is the next one; without a zone times are
    this machine's."""
    if isinstance(deadline, timedelta):
        return now + deadline
    if isinstance(deadline, datetime):
        return deadline.astimezone()
    moment = datetime.combine(now.astimezone(deadline.tzinfo).date(), deadline)
    return moment.astimezone() if moment.astimezone() > now else (moment + timedelta(days=1)).astimezone()


class Limits:
    """Says when no further shard is to be handed out.

    Args:
        deadline: see `parse_deadline`; counts from now.
        max_hours: of workers, added up: GPU hours where each has a GPU.
        spent: seconds of workers that earlier calls of this run took.
        clock: the time of day, which may jump: it says when a time of day comes, and nothing else.
        monotonic: seconds that never run backwards, by which a duration and workers go.

    Raises:
        ConfigError: a limit is reached before anything is started.
    """

    def __init__(
        self,
        deadline: str | None,
        max_hours: float | None,
        spent: float = 0.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._deadline = deadline
        wanted = None if deadline is None else parse_deadline(deadline)
        self.until = None if wanted is None else moment_of(wanted, self._now())  # as it looks now
        self._end = monotonic() + wanted.total_seconds() if isinstance(wanted, timedelta) else None
        self._max_hours = max_hours
        self.spent = spent  # seconds of workers, over all calls
        self._seen: tuple[float, int] | None = None  # when the workers were counted last, and how many there were
        if self._is_late():
            raise ConfigError(
                f"run.deadline: {deadline} has passed, it is {self._now():%Y-%m-%dT%H:%M}; give a later one"
            )
        if self.reached() is not None:
            raise ConfigError(
                f"run.max_gpu_hours: this run has taken {spent / 3600:.2f} hours of workers, and {max_hours:g} are "
                "allowed in all; raise it to go on"
            )

    def count(self, workers: int) -> None:
        """So many workers are held from now on."""
        now = self._monotonic()
        if self._seen is not None:
            since, held = self._seen
            self.spent += held * (now - since)
        self._seen = now, workers

    def reached(self) -> str | None:
        """Which limit is reached, in words."""
        if self._is_late():
            return f"run.deadline ({self._deadline}) was reached"
        if self._max_hours is not None and self.spent >= self._max_hours * 3600:
            return f"run.max_gpu_hours ({self._max_hours:g}) are spent"
        return None

    def _is_late(self) -> bool:
        if self._end is not None:
            return self._monotonic() >= self._end
        return self.until is not None and self._now() >= self.until

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock()).astimezone()
