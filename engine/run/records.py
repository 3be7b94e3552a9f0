"""How the journal lies in storage, and which of its records count. What a record says is not known here.

    _log/<epoch>/00000000.json         who opened the epoch, and how much of each earlier one it adopted
    _log/<epoch>/<sequence>.json       a record, of one shard or several
    _log/<epoch>/<first>-<last>.json   those records again, in one object (compaction.py)
    _log/<epoch>/adopted.json          the records that the epoch adopted, in one object
    _log/<epoch>/heartbeat.json        whether its driver lives (heartbeat.py), and closed.json, once it is done

What counts is what the newest epoch adopted, and its own records. An epoch is claimed by creating its record 0 where
there is none, so it has one owner; every record names that owner's token. Epochs of older versions adopted nothing by
name: as long as one of them is the newest, all records count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from poolscore.engine.errors import StoppedError
from poolscore.engine.run.compaction import Range, cover, unpack
from poolscore.engine.storage.base import Storage

FOLDER = "_log"
ADOPTED = "adopted.json"
_EPOCH = re.compile("[0-9]{6}")
_RECORD = re.compile("[0-9]{8}[.]json")
_COMPACTION = re.compile("([0-9]{8})-([0-9]{8})[.]json")


@dataclass(frozen=True)
class Opening:
    """Record 0 of an epoch."""

    epoch: int
    token: str
    driver: Mapping[str, Any]  # who opened it; see heartbeat.py
    adopted: Mapping[int, int] | None  # earlier epoch → its last record that counts; None: an older version's


class Record(NamedTuple):
    """A record and the object it was read from."""

    name: str
    values: dict[str, Any]


@dataclass(frozen=True)
class View:
    """The journal at one moment."""

    opening: Opening | None  # of the newest epoch
    last: Mapping[int, int]  # epoch → its last record
    records: Sequence[Record]  # those that count, in the order in which they were written
    objects: int  # read one by one, those in the newest epoch's `adopted.json` apart


def folder_of(epoch: int) -> str:
    """Where an epoch's objects lie."""
    return f"{FOLDER}/{epoch:06d}"


def name_of(epoch: int, entry: int | Range | str) -> str:
    """The object of a record, of a compaction, or of another name."""
    match entry:
        case int():
            entry = f"{entry:08d}.json"
        case (first, last):
            entry = f"{first:08d}-{last:08d}.json"
    return f"{folder_of(epoch)}/{entry}"


def newest(storage: Storage, known: int = 0) -> Opening | None:
    """Record 0 of the newest epoch.

    Args:
        known: an epoch that is there; what a listing says may be some seconds old on a network file system.

    Raises:
        StoppedError: it is damaged.
    """
    for epoch in sorted({*_epochs(storage), known} - {0}, reverse=True):
        with suppress(FileNotFoundError):  # one who wanted to claim it died before
            return _opening(storage, epoch)
    return None


def read_view(storage: Storage, known: int = 0) -> View:
    """All records that count; `known` as for `newest`. If another epoch is opened meanwhile it is read anew: so what is
    given is what counted at one moment within the call.

    Raises:
        StoppedError: a record is damaged. It is not passed over: a run must not lose a shard and still look whole.
    """
    opening = newest(storage, known)
    while True:
        view = _read(storage, opening)
        before, opening = opening, newest(storage, known)
        if opening == before:
            return view


def damaged(storage: Storage, name: str, error: Exception) -> StoppedError:
    """What is said of a record that cannot be read."""
    return StoppedError(
        f"{storage.path(name)} is damaged ({' '.join(str(error).split())}); delete it, and _SUCCESS if it is there, "
        "then run the same command again: what it told of is scored anew"
    )


def _read(storage: Storage, opening: Opening | None) -> View:
    if opening is None or opening.adopted is None:
        limits: Mapping[int, int | None] = dict.fromkeys(_epochs(storage))
    else:
        limits = {**opening.adopted, opening.epoch: None}
    last = {epoch: limit for epoch, limit in limits.items() if limit is not None}
    if opening is not None:
        last[opening.epoch] = 0
    pieces: list[list[Record]] = []
    objects = 0
    for epoch in sorted(limits, reverse=True):
        if limits[epoch] == 0:
            continue
        reader = _Epoch(storage, epoch, opening)
        pieces.append(reader.records(limits[epoch]))
        if limits[epoch] is None and reader.last:
            last[epoch] = reader.last
        objects += reader.objects
        if (adopted := reader.adopted()) is not None:
            pieces.append(adopted)
            break
    return View(opening, last, [record for piece in reversed(pieces) for record in piece], objects)


class _Epoch:
    """Reads the records of one epoch."""

    def __init__(self, storage: Storage, epoch: int, opening: Opening | None) -> None:
        self._storage = storage
        self._epoch = epoch
        self._at = partial(name_of, epoch)
        self._names = storage.names(folder_of(epoch))
        self.last = 0  # record that was read
        self.objects = 1
        if opening is None or opening.epoch != epoch:
            with suppress(FileNotFoundError):
                opening = _opening(storage, epoch)
        self._token = opening.token if opening is not None and opening.epoch == epoch else None

    def records(self, limit: int | None) -> list[Record]:
        """In the order in which they were written, up to a limit."""
        there = self._numbers(limit)
        self.last = max(there, default=0)
        if len(there) < self.last:  # a folder that grows while it is listed may show a record and not the one before
            self._names = self._storage.names(folder_of(self._epoch))
            there = self._numbers(self.last)
        found: dict[int, list[Record]] = {}
        for (first, last), records in self._compacted().items():
            found[first] = [Record(self._at((first, last)), values) for values in records]
            there -= set(range(first, last + 1))
        loose = sorted(there)
        names = [self._at(number) for number in loose]
        for number, name, data in zip(loose, names, self._storage.read_all(names), strict=True):
            found[number] = [Record(name, self._parse(name, data))]
        self.objects += len(found)
        return [
            r for number in sorted(found) for r in found[number] if r.values.pop("token", self._token) == self._token
        ]

    def adopted(self) -> list[Record] | None:
        """The records that the epoch adopted, if they lie there in one whole object."""
        if ADOPTED not in self._names or self._token is None:
            return None
        name = self._at(ADOPTED)
        records = unpack(self._storage.read(name), self._token)
        return None if records is None else [Record(name, values) for values in records]

    def _numbers(self, limit: int | None) -> set[int]:
        numbers = {int(name[:8]) for name in self._names if _RECORD.fullmatch(name)}
        return {number for number in numbers if number and (limit is None or number <= limit)}

    def _compacted(self) -> dict[Range, list[dict[str, Any]]]:
        """The compactions to read instead of their records; damaged ones are passed over for smaller ones."""
        found = (match for name in self._names if (match := _COMPACTION.fullmatch(name)))
        left = {(int(match[1]), int(match[2])) for match in found if int(match[2]) <= self.last}
        whole: dict[Range, list[dict[str, Any]]] = {}
        while chosen := [r for r in cover(left) if r not in whole]:
            for r, data in zip(chosen, self._storage.read_all([self._at(r) for r in chosen]), strict=True):
                records = unpack(data, self._token or "")
                if records is None:
                    left.discard(r)
                else:
                    whole[r] = records
        return {r: whole[r] for r in cover(left)}

    def _parse(self, name: str, data: bytes) -> dict[str, Any]:
        try:
            values = json.loads(data)
            return dict(values.items())
        except (ValueError, AttributeError) as error:
            raise damaged(self._storage, name, error) from error


def _opening(storage: Storage, epoch: int) -> Opening:
    name = name_of(epoch, 0)
    try:
        told = json.loads(storage.read(name))
        adopted = told.pop("adopted", None)
        limits = None if adopted is None else {int(earlier): int(last) for earlier, last in adopted.items()}
        return Opening(epoch, str(told.get("token", "")), told, limits)
    except (ValueError, AttributeError, TypeError) as error:
        raise damaged(storage, name, error) from error


def _epochs(storage: Storage) -> list[int]:
    """Numbers of the journal's own form; what others leave in its folder says nothing."""
    return [int(name) for name in storage.names(FOLDER) if _EPOCH.fullmatch(name)]
