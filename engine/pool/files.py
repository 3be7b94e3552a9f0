"""What is known of the pool's files from their footers. Memory: some 200 bytes a file, 20 a row group, none a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.choice import EVERY_ROW, RowChoice
from poolscore.engine.pool.footer import PoolFile

FILES = pa.schema(  # one row a file
    [
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("modified", pa.int64()),
        ("fingerprint", pa.string()),
        ("schema", pa.dictionary(pa.int32(), pa.binary())),  # serialized; there are few
        ("group_rows", pa.list_(pa.int64())),
        ("group_bytes", pa.list_(pa.int64())),
        ("matches", pa.list_(pa.bool_())),
        ("compressed_twice", pa.list_(pa.string())),
        ("codecs", pa.list_(pa.string())),
        ("dictionary", pa.list_(pa.string())),
    ]
)


def table_of(files: Iterable[PoolFile]) -> pa.Table:
    """The files as rows of FILES."""
    every = list(files)
    schemas: dict[pa.Schema, int] = {}
    indices = [schemas.setdefault(file.schema.remove_metadata(), len(schemas)) for file in every]
    serialized = pa.array([schema.serialize().to_pybytes() for schema in schemas], pa.binary())
    columns = {
        name: pa.array([getattr(file, name) for file in every], FILES.field(name).type)
        for name in FILES.names
        if name != "schema"
    }
    columns["schema"] = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), serialized)
    return pa.table([columns[name] for name in FILES.names], FILES)


@dataclass(frozen=True)
class PoolFiles:
    """The files of a pool in the order that gives rows their row_id."""

    root: str  # path or URI
    table: pa.Table  # FILES
    choice: RowChoice = EVERY_ROW  # which of their rows count, and the keys of partitioned folders
    unreadable: Mapping[str, str] = field(default_factory=dict)  # path → reason, of files that are left out
    pruned: int = 0  # files whose partition the filter rules out: nobody has looked at them
    read: int = 0  # footers that were read for this; the others were known

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def rows_F(self) -> NDArray[np.int64]:
        """Rows of each file."""
        ends = np.concatenate([[0], np.cumsum(self.group_rows_G)])
        rows: NDArray[np.int64] = np.diff(ends[self.group_starts])
        return rows

    @cached_property
    def group_starts(self) -> NDArray[np.int64]:
        """int64 [files + 1]: the files' first row groups, counted in the pool."""
        lengths = self.table["group_rows"].combine_chunks().value_lengths().to_numpy()
        return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    @cached_property
    def group_rows_G(self) -> NDArray[np.int64]:
        """Rows of each row group of the pool."""
        return self._numpy("group_rows")

    @cached_property
    def group_bytes_G(self) -> NDArray[np.int64]:
        """Bytes of each row group of the pool, before compression."""
        return self._numpy("group_bytes")

    @cached_property
    def matches_G(self) -> NDArray[np.bool_]:
        """Whether each row group can hold a row that the filter keeps."""
        return self._numpy("matches")

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return int(self.rows_F.sum())

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return int(self._numpy("bytes").sum())

    @property
    def first(self) -> str:
        """Path of the first file with rows."""
        return self.path(int(np.flatnonzero(self.rows_F)[0]))

    def path(self, file: int) -> str:
        """Path of a file, relative to the root."""
        return str(self.table["path"][file].as_py())

    @property
    def schema(self) -> pa.Schema:
        """Schema of the first file with rows, with the keys of partitioned folders; the columns in use are the same in
        all (`require_columns`)."""
        (_, schema), *_ = self._schemas
        return self.choice.with_keys(schema)

    def require_columns(self, columns: Mapping[str, str]) -> None:
        """Check that every file with rows has the columns, each of one type.

        Args:
            columns: column → the configuration key that asks for it.

        Raises:
            ConfigError: names file, column and key.
        """
        (first_path, _), *_ = self._schemas
        for path, of_file in self._schemas:
            schema = self.choice.with_keys(of_file)
            for column, key in columns.items():
                if schema.get_field_index(column) < 0:
                    raise ConfigError(f"{key}: column '{column}' is not in {path}; it has: {', '.join(schema.names)}")
                here, first = schema.field(column).type, self.schema.field(column).type
                if here != first:
                    raise ConfigError(
                        f"{key}: column '{column}' is {here} in {path} but {first} in {first_path}; "
                        "write both with one type"
                    )

    @cached_property
    def _schemas(self) -> list[tuple[str, pa.Schema]]:
        """The different schemas, each with the first file that has it. Files without rows do not count: writers cannot
        tell their types, and nothing is read from them."""
        column = self.table["schema"].combine_chunks()
        filled = np.flatnonzero(self.rows_F)
        kinds, places = np.unique(column.indices.to_numpy()[filled], return_index=True)
        return [
            (self.path(filled[place]), pa.ipc.read_schema(pa.py_buffer(column.dictionary[int(kind)].as_py())))
            for place, kind in sorted(zip(places.tolist(), kinds.tolist(), strict=True))
        ]

    def _numpy(self, name: str) -> NDArray[Any]:
        """Values of a column; those of all files one behind the other where each has a list."""
        column = self.table[name].combine_chunks()
        values = column.flatten() if pa.types.is_list(column.type) else column
        found: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return found
