"""A run's shortlist of which only some rows are read: their features, part by part, or the passes of one.

Memory: what is asked for, and these columns of a part at a time.

Legend: N rows, T passes, C classes, labels or outputs, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.shortlist.read import (
    FEATURES,
    LOG_PROBS,
    OUTPUTS,
    damaged,
    matrix,
    of_newest,
    parts_in,
    read_centre,
    read_part,
    what_lacks,
)
from poolscore.engine.storage.filesystem import open_parquet

A = TypeVar("A")


def look_at(run: RunDirectory, read: Callable[[Listing], A]) -> A:
    """What is read of a run's shortlist; of the next one, where a driver makes that meanwhile and takes this one away.

    Raises:
        ConfigError: the run has no shortlist.
        StoppedError: it cannot be read.
    """
    return of_newest(run, lambda about: read(Listing(run, about)))


class Listing:
    """What a run's shortlist holds. Each of its members raises StoppedError where that cannot be read.

    Args:
        about: what shortlist.json says.
    """

    def __init__(self, run: RunDirectory, about: Mapping[str, Any]) -> None:
        self._run = run
        self._about = about
        self._parts = parts_in(about["parts"])
        self.rows = self._columns(self._about["table"], ["row_id", "id"])  # of all

    @cached_property
    def centre_F(self) -> NDArray[np.float64]:
        """Mean of the features of many rows of the pool."""
        return read_centre(self._run, self._about)

    def lacks(self, reports: Mapping[int, ShardReport]) -> str | None:
        """See `Shortlist.lacks`."""
        return what_lacks(self._about["wanted"]["of"]["scores"], self._about["missing"], reports)

    def features(self, row_ids_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """[N, F] features of rows that it holds, each given once."""
        features_NF = np.empty((len(row_ids_N), len(self.centre_F)), np.float32)
        order = np.argsort(row_ids_N)
        in_order = row_ids_N[order]
        for part in self._parts:
            wanted = slice(*np.searchsorted(in_order, [part.first, part.last + 1]))
            if wanted.start == wanted.stop:
                continue
            table = self._columns(part.name, ["row_id", FEATURES])
            there = np.isin(table["row_id"].to_numpy(), in_order[wanted])
            table = table.filter(pa.array(there))
            places = order[np.searchsorted(in_order, table["row_id"].to_numpy())]
            features_NF[places] = matrix(table[FEATURES])
        return features_NF

    def passes(self, row_id: int) -> tuple[NDArray[np.float32], bool]:
        """[T, C] what the passes said of a row that it holds: ln p where True, otherwise what the model gave."""
        log_probs = bool(self._about["log_probs"])
        wide = LOG_PROBS if log_probs else OUTPUTS
        part = next(part for part in self._parts if part.first <= row_id <= part.last)
        table = self._columns(part.name, ["row_id", wide])
        values = matrix(table.filter(pa.array(table["row_id"].to_numpy() == row_id))[wide])
        return values[0].reshape(int(self._about["passes"]), -1), log_probs

    def _columns(self, name: str, columns: list[str]) -> pa.Table:
        try:
            with open_parquet(self._run.storage.path(name)) as file:
                return file.read(columns).select(columns)
        except (FileNotFoundError, pa.ArrowException, KeyError) as error:
            raise damaged(self._run, name, error) from error
        except OSError:  # storage that wavers: as patiently as all else is read
            return read_part(self._run, name, columns)
