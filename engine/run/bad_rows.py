"""When too many rows cannot be scored: a job that is obviously misconfigured is stopped."""

from __future__ import annotations

from dataclasses import dataclass

from poolscore.engine.errors import ConfigError
from poolscore.engine.run.totals import Totals

ENOUGH_SHARDS = 10  # finished, before bad rows in half of them are taken for a misconfigured job


@dataclass(frozen=True)
class BadRows:
    """How many there may be."""

    pool_rows: int
    max_fraction: float  # of the pool
    max_rows: int | None

    def require_few(self, t: Totals) -> None:
        """Raise ConfigError, with the commonest reason, where there are more."""
        seen = t.scored + t.rejected
        allowed = self.max_fraction
        # Bad rows cluster, by file: a few bad shards among the first say nothing of the pool. Half of them do.
        everywhere = t.shards >= ENOUGH_SHARDS and t.rejected > allowed * seen and 2 * t.bad_shards >= t.shards
        if self.max_rows is not None and t.rejected > self.max_rows:
            limit = f"run.max_bad_rows={self.max_rows}"
        elif t.rejected > allowed * self.pool_rows or everywhere:
            limit = f"run.max_bad_fraction={allowed:g}"
        else:
            return
        reason, count = max(t.reasons.items(), key=lambda item: item[1])
        raise ConfigError(
            f"pool: {t.rejected} of {seen} rows could not be scored, more than {limit} allows; the commonest reason "
            f"({count} rows): {reason}. Raise the limit and give the same command; or mend the input and begin "
            "anew, with --fresh: rows that were rejected are not tried again"
        )
