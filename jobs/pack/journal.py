"""What a stopped pack leaves for the next try: `.pack.journal` in the pool, a line of JSON for each whole part.

A part is taken up again if its size and its footer are what the journal says; its bytes are not read. The first part
that is not, and all after it, are written again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack.contract import Tally
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
    """The journal of one pool folder."""

    def __init__(self, pool: Path) -> None:
        self._pool, self._path = pool, pool / JOURNAL

    def names(self) -> set[str]:
        """Final names of the parts that it tells of."""
        return {line["name"] for line in self._lines()[1:]}

    def rows(self) -> int:
        """Rows in the parts that it tells of."""
        return int(self._lines()[-1]["rows"])

    def begin(self, source: str, options: Mapping[str, Any], *, fresh: bool) -> list[tuple[Path, Part]]:
        """Takes up what an earlier try of the same pack left, and begins anew after that.

        Args:
            source: the fingerprint of what is packed.
            options: all that the rows and the cuts depend on.
            fresh: take up nothing.

        Returns:
            The whole parts with the files they are in now.

        Raises:
            ConfigError: there are parts of another source or of other options, and not `fresh`.
        """
        head: dict[str, Any] = {"source": source, "options": dict(options)}
        old, *lines = self._lines() or [head]
        parts = [] if fresh else self._whole([_part(line) for line in lines])
        if parts:
            self._require(old, head)
        with self._path.open("w", encoding="utf-8") as file:
            for line in (head, *(part for _, part in parts)):
                file.write(json.dumps(line, default=vars) + "\n")
            os.fsync(file.fileno())
        return parts

    def add(self, file: Path, name: str, rows: int, place: Place) -> None:
        """Tells of a part that is whole and synced."""
        part = Part(name, file.stat().st_size, footer_digest(file), rows, place)
        with self._path.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(part, default=vars) + "\n")
            os.fsync(journal.fileno())

    def remove(self) -> None:
        """After the commit, or where nothing is worth keeping."""
        self._path.unlink(missing_ok=True)

    def _lines(self) -> list[Any]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError:
            return []
        lines = []
        for line in text.splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # the one being written when it was killed
                break
        return lines

    def _whole(self, parts: Sequence[Part]) -> list[tuple[Path, Part]]:
        found: list[tuple[Path, Part]] = []
        for part in parts:
            places = (self._pool / f".{part.name}.tmp", self._pool / part.name)
            file = next((place for place in places if _is_whole(place, part)), None)
            if file is None or SetAside.size(self._pool) < part.place.listed:
                break
            found.append((file, part))
        return found

    def _require(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        anew = f"to begin anew, give `--fresh` or empty {self._pool}"
        was, now = old.get("options", {}), new["options"]
        if was != now:
            other = sorted(key for key in {*was, *now} if was.get(key) != now.get(key))
            raise ConfigError(
                f"POOL {self._pool} holds an unfinished pack with other options ({', '.join(other)}): repeat it as it "
                f"was to go on; {anew}"
            )
        if old["source"] != new["source"]:
            raise ConfigError(
                f"POOL {self._pool} holds an unfinished pack, and SOURCE has changed since it began (files came, went "
                f"or changed): {anew}"
            )


def footer_digest(file: Path) -> str:
    """A digest of a Parquet file's footer: of the offsets, sizes and statistics of all that is in it."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _FOOTER_END))
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(max(0, size - _FOOTER_END - length))
        return sha256(stream.read(length + _FOOTER_END)).hexdigest()[:16]


def _part(line: Mapping[str, Any]) -> Part:
    place = dict(line["place"])
    tally = dict(place.pop("tally"))
    tally["skipped"] = Counter(tally["skipped"])
    return Part(**{**line, "place": Place(**place, tally=Tally(**tally))})


def _is_whole(file: Path, part: Part) -> bool:
    try:
        return file.stat().st_size == part.bytes and footer_digest(file) == part.footer
    except OSError:
        return False
