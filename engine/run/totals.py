"""What the finished shards of a run come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from poolscore.engine.reasons import by_kind
from poolscore.engine.run.journal import ShardReport

REASONS = 20  # commonest reasons of rejection that are kept


@dataclass(frozen=True)
class Totals:
    """Sums over the finished shards."""

    shards: int = 0
    scored: int = 0  # rows
    rejected: int = 0  # rows
    excluded: int = 0  # rows
    filtered: int = 0  # rows that filter or sample leave out
    bad_shards: int = 0  # with a rejected row
    worker_seconds: float = 0.0  # spent scoring, added over the workers
    peak_memory: int = 0  # bytes, of the largest worker
    reasons: Mapping[str, int] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds of each, added over the workers
    profiles: Mapping[str, int] = field(default_factory=dict)  # name of a numeric profile → shards
    rejected_by: Mapping[str, int] = field(default_factory=dict)  # stage of errors/ → rows

    @classmethod
    def of(cls, reports: Mapping[int, ShardReport]) -> Totals:
        """Sums over these shards."""
        totals = cls()
        for report in reports.values():
            totals = totals.plus(report)
        return totals

    @property
    def rows(self) -> int:
        """Rows that something became of."""
        return self.scored + self.rejected + self.excluded + self.filtered

    @property
    def rows_per_worker_second(self) -> float:
        """Scored and rejected rows per second of one worker."""
        return (self.scored + self.rejected) / self.worker_seconds if self.worker_seconds else 0.0

    def plus(self, report: ShardReport) -> Totals:
        """With one more shard."""
        reasons = by_kind([*self.reasons.items(), *report.reasons.items()])
        names = dict.fromkeys([*self.stages, *report.stages])
        stages = {name: self.stages.get(name, 0.0) + report.stages.get(name, 0.0) for name in names}
        profiles = dict(self.profiles)
        if report.profile:
            profiles[report.profile] = profiles.get(report.profile, 0) + 1
        return Totals(
            shards=self.shards + 1,
            scored=self.scored + report.scored,
            rejected=self.rejected + report.rejected,
            excluded=self.excluded + report.excluded,
            filtered=self.filtered + report.filtered,
            bad_shards=self.bad_shards + bool(report.rejected),
            worker_seconds=self.worker_seconds + report.seconds,
            peak_memory=max(self.peak_memory, report.peak_memory),
            reasons=dict(reasons.most_common(REASONS)),
            stages=stages,
            profiles=profiles,
            rejected_by=dict(Counter(self.rejected_by) + Counter(report.rejected_by)),
        )
