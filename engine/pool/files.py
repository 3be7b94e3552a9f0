"""Step 1a: find the pool's files and read their footers."""

from __future__ import annotations

import glob
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from poolscore.engine.errors import ConfigError
from poolscore.engine.filesystem import locate, reason
from poolscore.engine.uri import join, local_path

FOOTER_THREADS = 16
SUFFIXES = (".parquet", ".parq", ".pq")


@dataclass(frozen=True)
class PoolFile:
    """One Parquet file as its footer describes it."""

    path: str  # relative to the pool's root, POSIX; part of the key of rows without an id
    bytes: int
    row_groups: tuple[int, ...]  # rows of each
    fingerprint: str  # of the footer: offsets, sizes, statistics
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.row_groups)


@dataclass(frozen=True)
class PoolFiles:
    """The files of a pool in the order that gives rows their row_id."""

    root: str
    files: tuple[PoolFile, ...]

    @property
    def schema(self) -> pa.Schema:
        """Schema of the first file with rows; the columns in use are the same in all (`require_columns`)."""
        return self._with_rows()[0].schema

    def require_columns(self, columns: dict[str, str]) -> None:
        """Check that every file with rows has the columns, each of one type.

        Args:
            columns: column → the configuration key that asks for it.

        Raises:
            ConfigError: names file, column and key.
        """
        files = self._with_rows()
        for file in files:
            for column, key in columns.items():
                if file.schema.get_field_index(column) < 0:
                    raise ConfigError(
                        f"{key}: column '{column}' is not in {file.path}; it has: {', '.join(file.schema.names)}"
                    )
                here, first = file.schema.field(column).type, self.schema.field(column).type
                if here != first:
                    raise ConfigError(
                        f"{key}: column '{column}' is {here} in {file.path} but {first} in {files[0].path}; "
                        "write both with one type"
                    )

    def _with_rows(self) -> list[PoolFile]:
        """Writers cannot tell the types of a file without rows, and nothing is read from it."""
        return [file for file in self.files if file.rows]


def find_files(uri: str, key: str = "pool.uri") -> PoolFiles:
    """List the pool's Parquet files in sorted order and read their footers in parallel.

    Args:
        uri: a file, a folder (searched in depth; names that start with '.' or '_' are not data) or a glob.
        key: the configuration key that it was given under, for errors.

    Raises:
        ConfigError: nothing there, a file that is cut short or no Parquet, or a pool without rows.
    """
    try:
        root, names = _list(uri)
        if not names:
            raise ConfigError(f"no Parquet file at {uri}")
        with ThreadPoolExecutor(FOOTER_THREADS) as threads:
            files = tuple(threads.map(lambda name: _read_footer(root, name), names))
        if not sum(file.rows for file in files):
            raise ConfigError(f"the pool at {uri} has no rows ({len(files)} files)")
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    return PoolFiles(root, files)


def _list(uri: str) -> tuple[str, list[str]]:
    """The pool's root and the names of its files, relative to it."""
    path = local_path(uri)
    if path is None:
        return _list_objects(uri)
    if path.is_file():
        return str(path.parent), [path.name]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and _is_data(path, p)]
        return str(path), _sorted(path, found)
    if not glob.has_magic(uri):
        raise ConfigError(f"there is nothing at {uri}")
    parts = path.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    try:
        found = [p for p in root.glob(str(Path(*parts[fixed:]))) if _is_data(root, p)]
    except ValueError as error:
        raise ConfigError(f"{uri} is no glob ({error})") from error
    return str(root), _sorted(root, found)


def _list_objects(uri: str) -> tuple[str, list[str]]:
    at = locate(uri)
    try:
        if at.filesystem.get_file_info(at.path).is_file:
            root, _, name = uri.rpartition("/")
            return root, [name]
        found = at.filesystem.get_file_info(fs.FileSelector(at.path, recursive=True))
    except FileNotFoundError as error:
        raise ConfigError(f"there is nothing at {uri}") from error
    except OSError as error:
        raise ConfigError(f"{uri} cannot be read ({reason(error)})") from error
    names = [info.path.removeprefix(f"{at.path}/") for info in found if info.is_file]
    names = [name for name in names if name.lower().endswith(SUFFIXES) and not re.search("(^|/)[._]", name)]
    return uri.rstrip("/"), sorted(names)


def _is_data(root: Path, path: Path) -> bool:
    """Hidden names are not data, nor are folders; a link that leads nowhere is, so that it is told of."""
    return not path.is_dir() and not any(part.startswith((".", "_")) for part in path.relative_to(root).parts)


def _sorted(root: Path, paths: list[Path]) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in paths)


def _read_footer(root: str, name: str) -> PoolFile:
    path = join(root, name)
    try:
        path.encode()  # it goes into keys and into the plan
        at = locate(path)
        with at.filesystem.open_input_file(at.path) as file:
            metadata = pq.read_metadata(file)
            size = file.size()
            file.seek(size - 8 - metadata.serialized_size)
            footer = file.read(metadata.serialized_size)
        schema = metadata.schema.to_arrow_schema()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({reason(error)})") from error
    except UnicodeEncodeError as error:
        raise ConfigError(f"{path!r}: a name that is not UTF-8; rename it") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no complete Parquet file; write it again or take it out") from error
    return PoolFile(
        path=name,
        bytes=size,
        row_groups=tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)),
        fingerprint=sha256(footer).hexdigest()[:16],
        schema=schema,
    )
