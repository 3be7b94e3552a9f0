"""What the run's shortlist knows of the rows on the page: what their passes voted for, and their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.explain.shortlisted import Passes, passes_of
from poolscore.engine.inputs.base import BadRow
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.shortlist.read import (
    LOG_PROBS,
    OUTPUTS,
    THUMBNAIL,
    matrix,
    of_newest,
    parts_in,
    read_part,
)
from poolscore.jobs.report.pictures import Picture, of_shortlist


@dataclass(frozen=True)
class Shortlisted:
    """By row_id; rows that are not on the shortlist are missing."""

    passes: dict[int, Passes] = field(default_factory=dict)
    pictures: dict[int, Picture] = field(default_factory=dict)
    damaged: str | None = None  # why nothing is known although there is a shortlist


def read_shortlisted(run: RunDirectory, row_ids: NDArray[np.int64], images: bool) -> Shortlisted:
    """Of some rows, ascending. Memory: what is given, and one part of the shortlist.

    Args:
        images: pictures, too.
    """
    try:
        return of_newest(run, lambda about: _read(run, about, row_ids, images))
    except ConfigError:  # the run has none
        return Shortlisted()
    except (StoppedError, OSError) as error:
        return Shortlisted(damaged=str(error))


def _read(run: RunDirectory, about: Mapping[str, Any], row_ids: NDArray[np.int64], images: bool) -> Shortlisted:
    found = Shortlisted()
    log_probs, passes = bool(about["log_probs"]), int(about["passes"])
    wide = LOG_PROBS if log_probs else OUTPUTS
    for part in parts_in(about["parts"]):
        if not len(row_ids[(row_ids >= part.first) & (row_ids <= part.last)]):
            continue
        table = read_part(run, part.name, ["row_id", wide, *([THUMBNAIL] if images else [])])
        table = table.filter(pa.array(np.isin(table["row_id"].to_numpy(), row_ids)))
        ids: list[int] = table["row_id"].to_pylist()
        for row_id, values in zip(ids, matrix(table[wide]), strict=True):
            found.passes[row_id] = passes_of(values.reshape(passes, -1), log_probs, run.config.model.task)
        for row_id, data in zip(ids, table[THUMBNAIL].to_pylist() if images else (), strict=False):
            if data is not None:
                with suppress(BadRow):  # it is read from the pool
                    found.pictures[row_id] = of_shortlist(data)
    return found
