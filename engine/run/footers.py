"""What is known of the pool's files, kept in the run directory: a second plan reads only footers that are new."""

from __future__ import annotations

import io
import time
from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poolscore.engine.errors import StoppedError
from poolscore.engine.pool.files import FILES
from poolscore.engine.storage.base import Storage

FOOTERS = "footers.parquet"
LEAST = 256  # files; fewer are read anew in no time, and nothing is left in the directory
SETTLED = 2_000_000_000  # nanoseconds: a file that was written just now may change once more within its time stamp


class RunFooters:
    """The FooterCache of a run directory. Only a help: where it cannot be read or written, footers are read."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def load(self, keep: str | None) -> pa.Table:
        """See FooterCache."""
        try:
            table = pq.read_table(io.BytesIO(self._storage.read(FOOTERS)))
            if (table.schema.metadata or {}).get(b"filter", b"").decode() == (keep or ""):
                return table.replace_schema_metadata().select(FILES.names).cast(FILES)
        except (OSError, StoppedError, pa.ArrowException, KeyError):
            pass
        return FILES.empty_table()

    def save(self, table: pa.Table, keep: str | None) -> None:
        """See FooterCache."""
        settled = table.filter(pc.less(table["modified"], time.time_ns() - SETTLED))
        if settled.num_rows < LEAST:
            return
        settled = settled.replace_schema_metadata({"filter": keep or ""})
        with suppress(StoppedError):
            self._storage.publish(FOOTERS, lambda file: pq.write_table(settled, file, compression="zstd"))
