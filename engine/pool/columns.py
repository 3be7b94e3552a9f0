"""What a footer tells of one column of plain values, added up over the row groups of a file; and the judge of it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.parquet as pq

LARGE_VALUE = 512
"""Mean bytes of a value from which a binary column is taken for encoded pictures."""
SAVES_NOTHING = 0.9
"""Packed bytes to unpacked bytes: a codec that does no better works on what is compressed already."""


class ColumnFacts:
    """Sizes and encodings of a column."""

    def __init__(self, column: pq.ColumnSchema, chunks: Sequence[pq.ColumnChunkMetaData]) -> None:
        self.path = str(column.path)
        self.binary = is_binary(column)
        self.packed = sum(chunk.total_compressed_size for chunk in chunks)
        self.unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
        self.values = sum(chunk.num_values for chunk in chunks)
        self.codec = next((chunk.compression for chunk in chunks if chunk.compression != "UNCOMPRESSED"), "")
        self.dictionary = any(chunk.has_dictionary_page for chunk in chunks)

    @property
    def large(self) -> bool:
        """Whether it holds encoded pictures, or something as large."""
        return self.binary and self.unpacked >= LARGE_VALUE * max(1, self.values)

    @property
    def saved(self) -> bool:
        """Whether its codec saves something."""
        return bool(self.codec) and self.packed <= SAVES_NOTHING * self.unpacked

    @property
    def compressed_twice(self) -> bool:
        """Whether a codec works in vain on what is compressed already."""
        return self.large and bool(self.codec) and not self.saved

    @property
    def dictionary_of_large(self) -> bool:
        """Whether large values lie in a dictionary."""
        return self.large and self.dictionary


def is_binary(column: pq.ColumnSchema) -> bool:
    """Bytes that are no text."""
    return bool(column.physical_type == "BYTE_ARRAY" and column.logical_type.type == "NONE")


def binary_columns(metadata: pq.FileMetaData, groups: Sequence[pq.RowGroupMetaData]) -> list[ColumnFacts]:
    """The columns of a file that may hold pictures."""
    schema = metadata.schema
    numbers = [i for i in range(metadata.num_columns) if is_binary(schema.column(i))]
    return [ColumnFacts(schema.column(i), [group.column(i) for group in groups]) for i in numbers]
