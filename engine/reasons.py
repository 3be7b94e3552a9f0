"""Reasons of rejection, counted by kind: those that differ in numbers and names only are one.

"312 tokens, more than length 128" and "205 tokens, more than length 128" are both "N tokens, more than length N".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_VARIES = re.compile(
    r"""(?P<name>(?<!\w)(?:'[^']*' | "[^"]*" | `[^`]*`)(?!\w) | (?<!\S)\S*/\S+)   # quoted, or a path
      | 0x[0-9a-fA-F]+ | [0-9]+(?:[.,][0-9]+)*""",
    re.VERBOSE,
)


def kind_of(reason: str) -> str:
    """The reason with N for each number and '…' for each name. Of a kind it is that kind."""
    return _VARIES.sub(lambda found: "'…'" if found["name"] else "N", reason)


def by_kind(reasons: Iterable[tuple[str, int]]) -> Counter[str]:
    """Adds up how often each kind was met. A kind of which there is one reason only is called by that reason; so sums
    may be added up again."""
    kinds: dict[str, Counter[str]] = {}
    for reason, count in reasons:
        kinds.setdefault(kind_of(reason), Counter())[reason] += count
    return Counter({next(iter(met)) if len(met) == 1 else kind: met.total() for kind, met in kinds.items()})
