"""Compaction: many records of the journal again, in one object. Only a help: the records stay, and are read where a
compaction is damaged.

Every 64th record is followed by an object that holds the last 64, every 512th by one that holds the last 512, and so
on. So a reader of n records asks for a few objects of each size and at most 63 records, and the bytes written for it
are O(n log n).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

LEAST = 64  # records
STEP = 8  # each size is so many times the one before

Range = tuple[int, int]  # first and last sequence number


def range_at(sequence: int) -> Range | None:
    """What is to be compacted once the record of this number is written."""
    if sequence % LEAST:
        return None
    size = LEAST
    while sequence % (size * STEP) == 0:
        size *= STEP
    return sequence - size + 1, sequence


def cover(ranges: Iterable[Range]) -> Iterator[Range]:
    """The largest of nested ranges, in their order."""
    end = 0
    for first, last in sorted(ranges, key=lambda r: (r[0], -r[1])):
        if first > end:
            end = last
            yield first, last


def pack(token: str, records: Iterable[bytes]) -> bytes:
    """One object from the JSON of many records; `token` says whose it is."""
    body = b"[" + b",\n".join(records) + b"]"
    return json.dumps({"token": token, "digest": _digest(body)}).encode() + b"\n" + body


def unpack(data: bytes, token: str) -> list[dict[str, Any]] | None:
    """The records of a compaction; None if it is damaged, or somebody else's."""
    head, _, body = data.partition(b"\n")
    try:
        whole = json.loads(head) == {"token": token, "digest": _digest(body)}
        return list(json.loads(body)) if whole else None
    except ValueError:
        return None


def _digest(body: bytes) -> str:
    return blake2b(body, digest_size=16).hexdigest()
