"""The files of a selection: that of a run, and named ones. Readers of them need nothing but Parquet."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.run.directory import SELECTION, RunDirectory
from poolscore.engine.selection.alike import NearDuplicates, near_duplicates_of
from poolscore.engine.selection.batch import selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.columns import BLOCK
from poolscore.engine.selection.result import ABOUT, Batch
from poolscore.engine.selection.threshold import Workers
from poolscore.engine.storage.base import Storage

LARGE = 50_000_000  # rows; fewer are selected sooner than a cluster answers
NAME = "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}"
NAME_FORMAT = "up to 100 letters, digits, '-', '_' and '.' (not first)"


@dataclass(frozen=True)
class Written:
    """What is to be said of a selection."""

    near_duplicates: NearDuplicates
    notes: Sequence[str]


def write_batch(
    run: RunDirectory,
    config: Config,
    rows: int = 0,
    before: Callable[[], object] = lambda: None,
    then: Callable[[], object] = lambda: None,
) -> Written:
    """Select as configured and write `selection.parquet`; as many rows as there are where there are fewer than k.

    Args:
        rows: scored; LARGE or more of a run on a Ray cluster are read there.
        before: called when the file is complete, before it takes the place of an older one; it may raise.
        then: called when it is there, before its near-duplicates are counted; it may raise.

    Returns:
        What is to be said of it.
    """
    with ExitStack() as opened:
        with workers_on(cluster_for(config, rows)) as workers:
            batch = opened.enter_context(selected([run], config, Choice.of(config), workers=workers))
        write_selection(run.storage, batch, before=before)
        then()
        return Written(near_duplicates_of([run], batch), batch.notes)


def cluster_for(config: Config, rows: int) -> str | None:
    """Address of the cluster that reads so many scored rows; None: threads of this process do."""
    address = config.run.address or os.environ.get("RAY_ADDRESS")
    return address if config.run.executor == "ray" and rows >= LARGE else None


def workers_on(address: str | None) -> AbstractContextManager[Workers | None]:
    """Workers of the Ray cluster at this address; None: none, where threads of this process do."""
    if address is None:
        return nullcontext()
    from poolscore.engine.selection.on_ray import ray_workers

    return ray_workers(address)


def write_selection(
    storage: Storage, batch: pa.Table | Batch, name: str = SELECTION, before: Callable[[], object] = lambda: None
) -> None:
    """Write a selection; the same rows give the same bytes. `before`: see `write_batch`."""

    def write(file: Any) -> None:
        tables = iter([batch] if isinstance(batch, pa.Table) else batch.tables())
        first = next(tables)
        with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
            for table in chain([first], tables):
                writer.write_table(table, row_group_size=BLOCK)
        before()

    storage.publish(name, write)


def require_free(run: RunDirectory, name: str) -> None:
    """Refuse a name of a selection that is taken.

    Raises:
        ConfigError: it is, or it is no name (NAME_FORMAT).
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"--name {name}: a name has {NAME_FORMAT} only")
    if f"{name}.parquet" in run.storage.names("selections"):
        raise _taken(run, name)


def _taken(run: RunDirectory, name: str) -> ConfigError:
    return ConfigError(f"--name {name}: exists in {run.storage.path('selections')}; choose another name")


def write_named_selection(run: RunDirectory, name: str, batch: pa.Table | Batch, about: Mapping[str, Any]) -> str:
    """Write `selections/NAME.parquet` and its manifest; never over an older one. Returns its path.

    The manifest comes first and claims the name. Where the rows could not be written then, the same call goes on.

    Args:
        run: the run whose directory it is written to.
        name: NAME_FORMAT.
        batch: from `select_batch` or `selected`.
        about: further entries of the manifest.

    Raises:
        ConfigError: the name is taken, or no name (NAME_FORMAT).
    """
    require_free(run, name)
    storage = run.storage
    file, claim = f"selections/{name}.parquet", f"selections/{name}.json"
    if isinstance(batch, pa.Table):
        rows, source = batch.num_rows, json.loads(batch.schema.metadata[ABOUT])
    else:
        rows, source = batch.count, batch.about
    manifest = (json.dumps({"name": name, "rows": rows, **about, **source}, indent=2) + "\n").encode()
    if not (storage.create(claim, manifest) or storage.read(claim) == manifest):
        raise _taken(run, name)
    write_selection(storage, batch, file)
    return storage.path(file)
