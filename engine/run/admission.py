"""Which workers may score: those of the run's numeric profile, in which alone all bits are the same.

A run that has no profile yet takes the one that most of its first workers have, so that one odd machine that is quick
to join does not shut out all others. It is chosen once, before anything is scored, and never changes again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from poolscore.engine.run.mixed import Profile, differences, profile_name

SETTLE = 20.0  # seconds after the first worker of a new run is ready: so long the others have a say


class Admission:
    """Compares the workers that join with the run.

    Args:
        profile: of the run; None: there is none yet.
        allow_mixed: take workers of any profile, at once.
        expected: workers that are likely to be ready soon.
        on_profile: called with each profile that a worker is the first to have.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        profile: Profile | None,
        allow_mixed: bool,
        expected: int,
        on_profile: Callable[[Profile], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._profile, self._allow_mixed, self._expected = profile, allow_mixed, expected
        self._on_profile, self._clock = on_profile, clock
        self._known = {profile_name(profile)} if profile is not None else set[str]()  # told of
        self._since = 0.0  # when the first of those that wait was ready
        self.waiting: dict[int, Profile] = {}  # workers that are not judged yet, in the order in which they joined
        self.refused: list[str] = []  # why, of each worker that is not used

    def join(self, worker: int, profile: Profile) -> None:
        """A worker is ready."""
        if not self.waiting:
            self._since = self._clock()
        self.waiting[worker] = profile

    def lose(self, worker: int) -> None:
        """A worker is no more."""
        self.waiting.pop(worker, None)

    def judge(self) -> dict[int, str | None]:
        """Workers that are judged now: in what they differ, so that they must not be used; None: they may."""
        if not self.waiting or (self._profile is None and self._is_early()):
            return {}
        judged, self.waiting = self.waiting, {}
        told = ""
        if self._profile is None:
            self._profile, votes = _most_common(list(judged.values()))
            told = f" ({votes} of the first {len(judged)} workers have the run's)"
        return {worker: self._why_not(profile, told) for worker, profile in judged.items()}

    def _is_early(self) -> bool:
        alone = self._allow_mixed or len(self.waiting) >= self._expected
        return not alone and self._clock() - self._since < SETTLE

    def _why_not(self, profile: Profile, told: str) -> str | None:
        assert self._profile is not None
        different = differences(profile, self._profile)
        if different and not self._allow_mixed:
            return ", ".join(different) + told
        if (name := profile_name(profile)) not in self._known:
            self._known.add(name)
            self._on_profile(profile)
        return None


def _most_common(profiles: list[Profile]) -> tuple[Profile, int]:
    """And how many have it; of several the one that was there first."""
    name, votes = Counter(map(profile_name, profiles)).most_common(1)[0]
    return next(profile for profile in profiles if profile_name(profile) == name), votes
