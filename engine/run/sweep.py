"""What nobody counts is taken away at the end of a run."""

from __future__ import annotations

import re

from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import Journal
from poolscore.engine.run.records import FOLDER

_PART = re.compile(r"part-\d{5,}-[0-9a-f]{8}\.parquet|\.part-\d{5,}-[0-9a-f]{8}\.parquet\.[0-9a-f]{8}\.tmp")
_OF_DRIVER = re.compile(r"\.(writable|run\.json|plan\.parquet|selection\.parquet|_SUCCESS)\.")


def sweep(run: RunDirectory, journal: Journal) -> None:
    """Take away parts, and temporary files of parts, that the journal does not count: those of workers that died or
    were interrupted. Also the temporary files of drivers that died. Only names of our own form are touched. A later
    driver's are never among them: what is swept was there before this one saw that there is no later one.

    Raises:
        StoppedError: there is one.
    """
    counted = {name for report in run.reports().values() for name in (report.scores, report.errors)}
    found = [
        f"{folder}/{name}"
        for folder in ("scores", "errors")
        for name in [*run.storage.names(folder), *run.storage.leftovers(folder)]
        if _PART.fullmatch(name)
    ]
    sealed = [name for name in run.storage.names(FOLDER) if name.isdecimal() and int(name) < journal.epoch]
    found += [f"{FOLDER}/{epoch}/{name}" for epoch in sealed for name in run.storage.leftovers(f"{FOLDER}/{epoch}")]
    found += [name for name in run.storage.leftovers("") if _OF_DRIVER.match(name)]
    journal.require_ours()
    for name in found:
        if name not in counted:
            run.storage.delete(name)
