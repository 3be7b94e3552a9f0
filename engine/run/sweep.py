"""What nobody counts is taken away at the end of a run: parts of workers that died, were interrupted, or came second.

A worker that was given up may still be at work, on a machine that is out of reach, and write its part after the driver
has looked for such parts. So it takes away what comes too late by itself. The driver first seals its epoch of the
journal, and all before, and then looks; a worker first writes, and then looks whether its driver's epoch is sealed. In
whatever order the four things happen, one of the two sees the part. Only what a worker leaves that dies between its two
steps, or is not permitted to delete, stays, and is taken away when the same command is given again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

from poolscore.engine.errors import StoppedError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import Journal
from poolscore.engine.run.records import FOLDER, folder_of, name_of
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.patient import impatient

SEALED = "sealed.json"  # in an epoch's folder: no part counts that is written from now on
_PART = re.compile(r"part-\d{5,}-[0-9a-f]{8}\.parquet|\.part-\d{5,}-[0-9a-f]{8}\.parquet\.[0-9a-f]{8}\.tmp")
_OF_DRIVER = re.compile(r"\.(writable|run\.json|plan\.parquet|selection\.parquet|_SUCCESS)\.")


def seal(run: RunDirectory, journal: Journal) -> None:
    """From now on workers take away what they write: every shard's result is in the journal."""
    for epoch in [*_before(run, journal), journal.epoch]:
        run.storage.create(name_of(epoch, SEALED), b"{}\n")


def keep_unless_sealed(storage: Storage, epoch: int | None, names: Iterable[str]) -> None:
    """The worker's side, after it wrote objects and before it reports them.

    Args:
        epoch: of its driver; None: it has no journal.

    Raises:
        StoppedError: they are taken away again, because nobody will count them.
    """
    if epoch is None:
        return
    storage = impatient(storage)
    try:
        storage.read(name_of(epoch, SEALED))
    except (FileNotFoundError, StoppedError):  # it is open; or a worker may not look, or storage fails just now
        return
    for name in names:
        with suppress(StoppedError):  # where a worker may not delete the driver's next command does
            storage.delete(name)
    raise StoppedError(f"{storage.path(folder_of(epoch))} is sealed: the run ended without this worker")


def sweep(run: RunDirectory, journal: Journal) -> None:
    """Take away what nobody counts of a run that is sealed: parts, and temporary files of drivers that died. Only names
    of our own form are touched. A later driver's are never among them: what is swept was there before this one saw that
    there is no later one.

    Raises:
        StoppedError: there is one.
    """
    found = _uncounted_parts(run)
    for epoch in _before(run, journal):
        found += [f"{folder_of(epoch)}/{name}" for name in run.storage.leftovers(folder_of(epoch))]
    folder, opening = name_of(journal.epoch, 0).rsplit("/", 1)  # who died while it opened the epoch that became ours
    found += [f"{folder}/{name}" for name in run.storage.leftovers(folder) if name.startswith(f".{opening}.")]
    found += _of_dead_drivers(run)
    journal.require_ours()
    _delete(run, found)


def sweep_parts(run: RunDirectory) -> None:
    """The same of a run that is whole, where nothing is opened: every shard's result counts for ever, and no other part
    ever will. A driver may have died at its very last write."""
    _delete(run, [*_uncounted_parts(run), *_of_dead_drivers(run)])


def _uncounted_parts(run: RunDirectory) -> list[str]:
    counted = {name for report in run.reports().values() for name in (report.scores, report.errors)}
    found = [
        f"{folder}/{name}"
        for folder in ("scores", "errors")
        for name in [*run.storage.names(folder), *run.storage.leftovers(folder)]
        if _PART.fullmatch(name)
    ]
    return [name for name in found if name not in counted]


def _of_dead_drivers(run: RunDirectory) -> list[str]:
    return [name for name in run.storage.leftovers("") if _OF_DRIVER.match(name)]


def _before(run: RunDirectory, journal: Journal) -> list[int]:
    """Earlier epochs."""
    numbers = [int(name) for name in run.storage.names(FOLDER) if name.isdecimal()]
    return [epoch for epoch in numbers if epoch < journal.epoch]


def _delete(run: RunDirectory, names: Iterable[str]) -> None:
    for name in names:
        run.storage.delete(name)
