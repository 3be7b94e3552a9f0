"""Which workers may score: those of the run's numeric profile, by which alone all bits are the same."""

from __future__ import annotations

from collections.abc import Callable

from poolscore.engine.run.mixed import Profile, differences, profile_name


class Admission:
    """Compares the workers that join with the run.

    Args:
        profile: of the run; None: there is none yet, and the first worker's becomes it.
        allow_mixed: take workers of any profile.
        on_profile: called with each profile that a worker is the first to have.
    """

    def __init__(self, profile: Profile | None, allow_mixed: bool, on_profile: Callable[[Profile], None]) -> None:
        self._profile, self._allow_mixed, self._on_profile = profile, allow_mixed, on_profile
        self._known = {profile_name(profile)} if profile is not None else set[str]()  # told of
        self.refused: list[str] = []  # why, of each worker that is not used

    def differences(self, profile: Profile) -> str | None:
        """In what a worker differs so that it must not be used; None: it may."""
        if self._profile is None:
            self._profile = profile
        different = differences(profile, self._profile)
        if different and not self._allow_mixed:
            return ", ".join(different)
        if (name := profile_name(profile)) not in self._known:
            self._known.add(name)
            self._on_profile(profile)
        return None
