"""The files of a pool that pack wrote: their names, the mark in them, and whether a folder may take new ones."""

from __future__ import annotations

import re

import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError
from poolscore.engine.storage.filesystem import reason
from poolscore.jobs.pack.destination import FAILURES, Destination
from poolscore.jobs.pack.journal import JOURNAL, Journal
from poolscore.jobs.pack.set_aside import LIST, UNFINISHED

_PART = re.compile(r"part-\d{5,}\.parquet")
TEMPORARY = re.compile(r"\.part-\d{5,}\.parquet\.tmp")
MARK = {b"poolscore.pack": b"1"}
"""In the metadata of every part: `--overwrite` takes up and removes only parts that carry it."""


def check_pool(pool: Destination, *, overwrite: bool) -> None:
    """Refuses a pool that cannot be written to; changes nothing.

    Raises:
        ConfigError: it is a file, or holds anything but what a stopped pack left. With `overwrite` it may also hold
            hidden entries and a pool that pack wrote.
    """
    try:
        entries = sorted(name for name in pool.entries() if not TEMPORARY.fullmatch(name))
        if JOURNAL in entries:  # parts and list lie under their names where a pack was stopped amid its commit
            left = {JOURNAL, UNFINISHED, LIST} | Journal(pool).names()
            entries = [name for name in entries if name not in left]
    except NotADirectoryError as error:
        raise ConfigError(f"POOL {pool.path} is a file: name a folder") from error
    except FAILURES as error:
        raise ConfigError(f"cannot read POOL {pool.path}: {reason(error)}; name another folder") from error
    if entries and not overwrite:
        raise ConfigError(
            f"POOL {pool.path} is not empty (it holds {entries[0]!r}): choose another folder, or replace an older pool "
            "of pack with `--overwrite`"
        )
    foreign = next((name for name in entries if name != LIST and name[0] != "." and not is_part(pool, name)), None)
    if foreign is not None:
        raise ConfigError(
            f"POOL {pool.path} holds {foreign!r}, which pack did not write: `--overwrite` replaces only folders that "
            "hold nothing but a pool of pack; choose another folder"
        )


def final_name(part: str) -> str:
    """`part-00000.parquet` of `.part-00000.parquet.tmp`, also of itself."""
    return part.removeprefix(".").removesuffix(".tmp")


def is_part(pool: Destination, name: str) -> bool:
    """Whether an entry of a pool is a part that pack wrote: by its name and the mark in it."""
    if not _PART.fullmatch(name) or pool.size(name) is None:
        return False
    try:
        with pool.open(name) as file:
            metadata = pq.read_metadata(file).metadata or {}
    except FAILURES:
        return False
    return MARK.items() <= metadata.items()
