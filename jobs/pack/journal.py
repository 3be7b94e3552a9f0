"""What a stopped pack leaves for the next try: `.pack.journal` in the pool, a line of JSON for each whole part.

A part is taken up again if its size and its footer are what the journal says; its bytes are not read. The first part
that is not, and all after it, are written again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack.contract import Tally
from poolscore.jobs.pack.destination import FAILURES, Destination, Log, read_text
from poolscore.jobs.pack.set_aside import SetAside

JOURNAL = ".pack.journal"
_FOOTER_END = 8  # bytes: the footer's length, and PAR1


@dataclass(frozen=True)
class Place:
    """A place between two items of a source's listing.

    Attributes:
        items: items before it.
        rows: rows that they gave.
        listed: bytes of the list of what was set aside of them.
        tally: of what they left out.
    """

    items: int = 0
    rows: int = 0
    listed: int = 0
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True)
class Part:
    """A whole part.

    Attributes:
        name: its final name.
        bytes: its size.
        footer: a digest of its footer.
        rows: rows of the pool up to its end.
        place: a place at or before its end.
    """

    name: str
    bytes: int
    footer: str
    rows: int
    place: Place


class Journal:
    """The journal of one pool."""

    def __init__(self, pool: Destination) -> None:
        self._pool = pool
        self._log: Log | None = None

    def names(self) -> set[str]:
        """Final names of the parts that it tells of."""
        return {line["name"] for line in self._lines()[1:]}

    def rows(self) -> int:
        """Rows in the parts that it tells of."""
        return int(self._lines()[-1]["rows"])

    def begin(self, source: str, options: Mapping[str, Any], *, fresh: bool) -> list[tuple[str, Part]]:
        """Takes up what an earlier try of the same pack left, and begins anew after that.

        Args:
            source: the fingerprint of what is packed.
            options: all that the rows and the cuts depend on.
            fresh: take up nothing.

        Returns:
            The whole parts with the names that they have now.

        Raises:
            ConfigError: there are parts of another source or of other options, and not `fresh`.
        """
        head: dict[str, Any] = {"source": source, "options": dict(options)}
        old, *lines = self._lines() or [head]
        parts = [] if fresh else self._whole([_part(line) for line in lines])
        if parts:
            self._require(old, head)
        self._write(head, *(part for _, part in parts))
        return parts

    def add(self, file: str, name: str, rows: int, place: Place) -> None:
        """Tells of a part that is whole and sealed."""
        size = self._pool.size(file)
        assert size is not None
        self._write(Part(name, size, footer_digest(self._pool, file), rows, place))

    def close(self) -> None:
        """Before the end; it stays."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def remove(self) -> None:
        """After the commit, or where nothing is worth keeping."""
        self.close()
        self._pool.remove(JOURNAL)

    def _write(self, *lines: object) -> None:
        self._log = self._log or self._pool.log(JOURNAL)
        for line in lines:
            self._log.write(json.dumps(line, default=vars) + "\n")
        self._log.sync()

    def _lines(self) -> list[Any]:
        lines = []
        for line in read_text(self._pool, JOURNAL).splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # the one being written when it was killed
                break
        return lines

    def _whole(self, parts: Sequence[Part]) -> list[tuple[str, Part]]:
        found: list[tuple[str, Part]] = []
        for part in parts:
            names = (f".{part.name}.tmp", part.name)
            file = next((name for name in names if _is_whole(self._pool, name, part)), None)
            if file is None or SetAside.size(self._pool) < part.place.listed:
                break
            found.append((file, part))
        return found

    def _require(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        pool = self._pool.path
        anew = f"to begin anew, give `--fresh` or empty {pool}"
        was, now = old.get("options", {}), new["options"]
        if was != now:
            other = sorted(key for key in {*was, *now} if was.get(key) != now.get(key))
            raise ConfigError(
                f"POOL {pool} holds an unfinished pack with other options ({', '.join(other)}): repeat it as it "
                f"was to go on; {anew}"
            )
        if old["source"] != new["source"]:
            raise ConfigError(
                f"POOL {pool} holds an unfinished pack, and SOURCE has changed since it began (files came, went "
                f"or changed): {anew}"
            )


def footer_digest(pool: Destination, name: str) -> str:
    """A digest of a Parquet file's footer: of the offsets, sizes and statistics of all that is in it."""
    with pool.open(name) as file:
        size = file.size()
        length = _FOOTER_END + int.from_bytes(file.read_at(4, max(0, size - _FOOTER_END)), "little")
        return sha256(file.read_at(min(length, size), max(0, size - length))).hexdigest()[:16]


def _part(line: Mapping[str, Any]) -> Part:
    place = dict(line["place"])
    tally = dict(place.pop("tally"))
    tally["skipped"] = Counter(tally["skipped"])
    return Part(**{**line, "place": Place(**place, tally=Tally(**tally))})


def _is_whole(pool: Destination, name: str, part: Part) -> bool:
    try:
        return pool.size(name) == part.bytes and footer_digest(pool, name) == part.footer
    except FAILURES:
        return False
