"""Ids that are labelled already and must not be scored or selected again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import IdSet, id_text, keys_of
from poolscore.engine.storage.filesystem import locate, read_whole, reason, repeated, require_bucket
from poolscore.engine.storage.threads import apart

TASKS = "tasks.json"  # in the folder of an export: what was handed over (poolscore.jobs.tasks.manifest)


def read_ids(paths: str | Sequence[str] | None, column: str | None, key: str = "pool.exclude") -> IdSet:
    """Ids from Parquet or CSV files, and from the `tasks.json` of what was handed over to people, or its folder.

    Args:
        paths: the file, several of them, or None for no ids.
        column: the pool's id column; the file's column of that name, else of the name 'id', else its only column is
            read. None: the pool has no id column, and ids are "path#row". The only column of a CSV may lack a header:
            then its first line is an id like the others.
        key: the configuration key, for errors.

    Raises:
        ConfigError: unreadable, no such column, or a type that no id has.
    """
    every = [paths] if isinstance(paths, str) else paths or []
    return IdSet(i for path in every for i in _ids_of(path, column, key) if i is not None)


def ids_of_tasks(about: Mapping[str, Any]) -> pa.Array:
    """The ids that a `tasks.json` lists (`poolscore.jobs.tasks.manifest`), as the pool has them: binary ones are
    written in hexadecimal digits.

    Raises:
        KeyError, TypeError, ValueError, pa.ArrowException: it is none.
    """
    kind, ids = about["id_type"], about["tasks"]["id"]
    if kind == "binary":
        return pa.array([bytes.fromhex(i) for i in ids], pa.binary())
    return pa.array(ids, pa.type_for_alias(kind))


def digest_of(ids: IdSet) -> str:
    """A digest of the set, whatever the order and form of its file."""
    return sha256(keys_of(ids.sorted()).tobytes()).hexdigest()[:32]


def _ids_of(path: str, column: str | None, key: str) -> list[str | bytes | None]:
    ids: list[str | bytes | None] = []
    try:
        names, read = apart(repeated, lambda: open_columns(path), path)
        found = next((name for name in (column, "id") if name in names), names[0] if len(names) == 1 else None)
        if found is None:
            raise ConfigError(f"{key}: {path} has no column '{column or 'id'}'; it has: {', '.join(names)}")
        if _is_csv(path) and found not in (column, "id"):
            ids.append(found)  # not a row too few is left out; an id that no row has does no harm
        for chunk in apart(repeated, lambda: read(found), path).chunks:
            ids += id_text(chunk, f"{key} column '{found}'")
    except FileNotFoundError as error:
        require_bucket(path)
        raise ConfigError(f"{key}: there is no file {path}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key}: {path} is no text in UTF-8; save it as UTF-8 or write it as Parquet") from error
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{key}: {path} cannot be read as Parquet or CSV: {reason(error)}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {path} is no tasks.json of `poolscore export-tasks`") from error
    return ids


def _is_csv(path: str) -> bool:
    return path.lower().endswith((".csv", ".txt", ".csv.gz"))


def open_columns(path: str) -> tuple[list[str], Callable[[str], pa.ChunkedArray]]:
    """The names of the columns of a Parquet or CSV file (or a tasks.json), and a function that reads one: labelled rows
    may hold their pictures as well. What a CSV holds is text.

    Raises:
        OSError, UnicodeDecodeError, pa.ArrowException: it cannot be read.
    """
    at = locate(path)
    if "." not in path.rsplit("/", 1)[-1]:  # the folder of `export-tasks` stands for what it exported
        export = locate(f"{path}/{TASKS}")
        if export.filesystem.get_file_info(export.path).is_file:
            return open_columns(f"{path}/{TASKS}")
    if path.lower().endswith(".json"):
        listed = ids_of_tasks(json.loads(read_whole(at)))
        return ["id"], lambda name: pa.chunked_array([listed])
    if _is_csv(path):
        with at.filesystem.open_input_stream(at.path) as file, csv.open_csv(file) as reader:
            names: list[str] = reader.schema.names
        as_text = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))  # the id 007 stays what it is

        def read(name: str) -> pa.ChunkedArray:
            with at.filesystem.open_input_stream(at.path) as file:
                return csv.read_csv(file, convert_options=as_text)[name]

        return names, read
    parquet = pq.ParquetDataset(at.path, filesystem=at.filesystem)
    return parquet.schema.names, lambda name: parquet.read(columns=[name])[name]
