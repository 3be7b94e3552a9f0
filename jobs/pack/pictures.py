"""Rows of pictures, as folders and tar files give them: `id`, `image`, other columns, `width`, `height`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from poolscore.jobs.pack.contract import PIECE_BYTES, Names, Packed
from poolscore.jobs.pack.picture import header_size

Change = Callable[[bytes], tuple[bytes, tuple[int, int]]]
"""Makes another picture of one; also gives its width and height. Raises NotPacked."""


class NotPacked(Exception):
    """Why a picture gives no row; what follows a colon is detail."""


def picture_schema(names: Names, *, with_label: bool) -> pa.Schema:
    """Columns of a pool of pictures; width and height are null where the header cannot be read."""
    fields: list[pa.Field[Any]] = [pa.field(names.id, pa.string()), pa.field(names.image, pa.binary())]
    if with_label:
        fields.append(pa.field(names.label, pa.string()))
    return pa.schema([*fields, pa.field("width", pa.int32()), pa.field("height", pa.int32())])


class Pictures:
    """Collects the rows of a piece.

    Args:
        resize: what is done to every picture; None leaves them as they are.
    """

    def __init__(self, schema: pa.Schema, resize: Change | None = None) -> None:
        self._schema, self._resize = schema, resize
        self._rows: list[tuple[object, ...]] = []
        self._set_aside: list[tuple[str, str]] = []
        self._bytes = self._done = self._headerless = 0

    @property
    def full(self) -> bool:
        """Whether the rows are as large as they should get."""
        return self._bytes >= PIECE_BYTES

    def add(self, name: str, data: bytes, *others: object) -> None:
        """One picture; `others` are the columns between image and width, as far as the schema has them.

        Raises:
            NotPacked: it cannot be resized; nothing was added.
        """
        data, size = self._resize(data) if self._resize else (data, header_size(data))
        self._headerless += size is None
        between = len(self._schema) - 4
        self._rows.append((name, data, *others[:between], *(size or (None, None))))
        self._bytes += len(data)
        self._done += 1

    def set_aside(self, name: str, reason: str) -> None:
        """One item that gives no row."""
        self.note(name, reason)
        self._done += 1

    def note(self, name: str, reason: str) -> None:
        """Something of the next item that is left out, while the item itself may give a row."""
        self._set_aside.append((name, reason))

    def packed(self) -> Packed:
        """What was added."""
        batch = None
        if self._rows:
            columns = zip(zip(*self._rows, strict=True), self._schema, strict=True)
            arrays = [pa.array(values, type=field.type) for values, field in columns]
            batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        return Packed(batch, self._done, self._set_aside, self._headerless)
