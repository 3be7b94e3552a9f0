"""What can go wrong, for users.

x PoolscoreError
  + ConfigError        exit code 2: the configuration or the input is wrong; nothing was started or spent
    + TooFewRows       the pool has fewer rows left than are asked for
  + StoppedError       exit code 4: storage or cluster failed; the run directory can be resumed
    + PoolAway         the pool's storage is busy or away: waited for, before the job stops
    + BrokenDevice     a GPU is of no more use to its process; on Ray the worker is replaced and the job goes on
  + InterruptedRun     exit code 130: Ctrl-C or SIGTERM; the run directory can be resumed
  + UnreadableShard    a part of the pool cannot be read; the shard is tried again, then set aside and named
  + OutOfMemory        a batch does not fit on the device; the shard is tried again, then the job stops (exit code 4)

Every message says what is wrong, where, and what to do. A message is one line. Exit code 3 is no
exception: a selection was written, but some shards could not be scored, a limit came first, or scoring rows again found
scores that precision does not explain. The run says which.
"""

from __future__ import annotations

DONE = 0
WRONG_INPUT = 2
INCOMPLETE = 3  # finished, but not to be taken for done unseen
STOPPED = 4
INTERRUPTED = 130


class PoolscoreError(Exception):
    """Base of everything that poolscore raises for its users."""

    exit_code = 1


class ConfigError(PoolscoreError):
    """The configuration or the input is wrong."""

    exit_code = WRONG_INPUT


class TooFewRows(ConfigError):
    """The pool has fewer rows left than are asked for.

    Args:
        left: rows, at most.
    """

    def __init__(self, message: str, left: int) -> None:
        super().__init__(message)
        self.left = left


class StoppedError(PoolscoreError):
    """Storage or cluster stopped the job; it can be resumed."""

    exit_code = STOPPED


class PoolAway(StoppedError):
    """The pool cannot be read, for a reason that may pass."""


class BrokenDevice(StoppedError):
    """After an error on a GPU, such as an index out of range, whatever its process does there fails."""


class InterruptedRun(PoolscoreError):
    """The user or the machine asked the job to stop; it can be resumed."""

    exit_code = INTERRUPTED


class UnreadableShard(PoolscoreError):
    """A part of the pool cannot be read."""


class OutOfMemory(PoolscoreError):
    """A batch does not fit on the device."""
