"""Ids that are labelled already and must not be scored or selected again."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import IdSet, id_text, keys_of


def read_ids(path: str | None, column: str | None, key: str = "pool.exclude") -> IdSet:
    """Ids from a Parquet or CSV file.

    Args:
        path: the file, or None for no ids.
        column: the pool's id column; the file's column of that name, else of the name 'id', else its only column is
            read. None: the pool has no id column, and ids are "path#row".
        key: the configuration key, for errors.

    Raises:
        ConfigError: unreadable, no such column, or a type that no id has.
    """
    if path is None:
        return IdSet()
    table = _read(Path(path), key)
    names = table.column_names
    found = next((name for name in (column, "id") if name in names), names[0] if len(names) == 1 else None)
    if found is None:
        raise ConfigError(f"{key}: {path} has no column '{column or 'id'}'; it has: {', '.join(names)}")
    ids: list[str | bytes | None] = []
    for chunk in table[found].chunks:
        ids += id_text(chunk, f"{key} column '{found}'")
    return IdSet(i for i in ids if i is not None)


def digest_of(ids: IdSet) -> str:
    """A digest of the set, whatever the order and form of its file."""
    return sha256(keys_of(ids.sorted()).tobytes()).hexdigest()[:32]


def _read(path: Path, key: str) -> pa.Table:
    try:
        if path.suffix.lower() in (".csv", ".txt"):
            return _ids_as_text(path)
        return pq.read_table(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{key}: there is no file {path}") from error
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{key}: {path} cannot be read as Parquet or CSV: {' '.join(str(error).split())}") from error


def _ids_as_text(path: Path) -> pa.Table:
    """A CSV with every column as text, so that the id 007 stays what it is."""
    with csv.open_csv(path) as reader:
        names = reader.schema.names
    return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())))
