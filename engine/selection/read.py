"""Reading a selection that was written. Needs no GPU, no model, no pool, and no torch."""

from __future__ import annotations

import pyarrow as pa

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.run.directory import SELECTION, RunDirectory
from poolscore.engine.storage.filesystem import open_parquet, reason


def read_selection(run: RunDirectory, name: str | None = None) -> pa.Table:
    """A batch of rows to label, as it was written into the run directory.

    Args:
        name: of a further selection (`poolscore select --name`); default: the run's own.

    Returns:
        Table, best first, with the columns of `select_batch`, all of them in memory.

    Raises:
        ConfigError: the run has no such selection.
        StoppedError: it cannot be read.
    """
    path = run.storage.path(SELECTION if name is None else f"selections/{name}.parquet")
    try:
        with open_parquet(path) as file:
            return file.read()
    except FileNotFoundError as error:
        remedy = "`poolscore score` writes it at its end" if name is None else "`poolscore select --name` makes one"
        raise ConfigError(f"{path}: there is no such selection; {remedy}") from error
    except (OSError, pa.ArrowException) as error:
        raise StoppedError(f"{path} cannot be read ({reason(error)}); bring it back") from error
