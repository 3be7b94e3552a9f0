"""Numeric profiles of a run's workers: compared, named, and told of. Needs no torch: readers of runs use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

Profile = dict[str, str | int]  # see `engine/worker/profile.py`

NAMED = 3  # differences that a sentence names


def profile_name(profile: Profile) -> str:
    """A short digest, by which a shard's report says in which profile it was scored."""
    return blake2b(json.dumps(profile, sort_keys=True).encode(), digest_size=4).hexdigest()


def differences(here: Profile, there: Profile) -> list[str]:
    """Each entry in which two profiles differ, in words."""
    return [f"{name} ({there.get(name)}, here {here.get(name)})" for name in _unlike(here, there)]


def with_profile(info: Mapping[str, Any], profile: Profile) -> dict[str, Any]:
    """The entries of run.json that are new once a worker of this profile has joined."""
    first: Profile = info.get("profile") or profile
    known = info.get("profiles") or {profile_name(first): first}
    return {"profile": first, "profiles": {**known, profile_name(profile): profile}}


def is_mixed(shards: Mapping[str, int]) -> bool:
    """Whether shards were scored in different profiles.

    Args:
        shards: profile's name → number of shards, as in `Totals.profiles`.
    """
    return len(shards) > 1


def mixed_in_words(info: Mapping[str, Any], shards: Mapping[str, int]) -> str | None:
    """What a person should know of a mixed run; None: it is not mixed.

    Args:
        info: run.json.
        shards: see `is_mixed`.
    """
    if not is_mixed(shards):
        return None
    known = info.get("profiles") or {}
    most, *others = sorted(shards, key=lambda name: -shards[name])
    different = dict.fromkeys(
        f"{entry} ({known[most].get(entry)}; {known[name].get(entry)})"
        for name in others
        if name in known and most in known
        for entry in _unlike(known[name], known[most])
    )
    named = "; ".join([*list(different)[:NAMED], *(["…"] if len(different) > NAMED else [])])
    apart = sum(shards[name] for name in others)
    return (
        f"{apart:,} of {sum(shards.values()):,} shards were scored in another numeric profile than the rest"
        + (f": {named}" if named else "")
        + "; scores that are close may be in another order on machines of one kind"
    )


def _unlike(here: Profile, there: Profile) -> list[str]:
    """Entries in which two profiles differ."""
    return [name for name in dict.fromkeys([*there, *here]) if here.get(name) != there.get(name)]
