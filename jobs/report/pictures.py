"""Pictures of selected rows, ready for the page; and what people see of rows that are no pictures."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from PIL import Image

from poolscore.engine.config import ImageDecode, TensorDecode, columns_of
from poolscore.engine.inputs.base import BadRow
from poolscore.engine.inputs.image import encoded_bytes
from poolscore.engine.inputs.thumbnail import SMALL, picture_input, shrunken
from poolscore.engine.run.directory import RunDirectory
from poolscore.jobs.report.pool_rows import each_row
from poolscore.jobs.report.text import column_texts

FRAME = 96  # pixels of the page for the longer edge
EDGE = 128  # pixels that are kept for it: screens have more of them than the page
MOST_BYTES = 14 << 20  # of pictures on one page
COLUMNS = 8  # of the model's inputs that are shown

Values = dict[int, dict[str, str]]  # row_id → column → value as text


@dataclass(frozen=True)
class Picture:
    """A thumbnail, ready for the page."""

    uri: str  # data:
    width: int  # pixels on the page
    height: int
    pixelated: bool  # enlarged: show the pixels as they are


@dataclass
class Pictures:
    """What could be read, and why the rest could not."""

    by_row: dict[int, Picture] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)  # reason → rows

    def cut(self, row_ids: Iterable[int]) -> None:
        """Leave out what would make the page too large; the first of the rows stay."""
        room = MOST_BYTES
        for row_id in (row_id for row_id in row_ids if row_id in self.by_row):
            room -= len(self.by_row[row_id].uri)
            if room < 0:
                del self.by_row[row_id]
                self.problems[f"a page holds {MOST_BYTES >> 20} MiB of pictures"] += 1


def read_pictures(run: RunDirectory, rows: pa.Table) -> Pictures | None:
    """Thumbnails of rows of a selection, read from the pool.

    Args:
        rows: columns row_id and id, best first.

    Returns:
        None where the pool has no pictures.
    """
    decode = picture_input(run.config)
    if decode is None or decode.column is None:
        return None
    found = Pictures()
    for row_id, row in each_row(run, rows, [decode.column], found.problems):
        (data,) = encoded_bytes(row[decode.column])
        try:
            if not isinstance(data, bytes):
                raise BadRow("no encoded picture")
            found.by_row[row_id] = thumbnail(data, decode)
        except BadRow as error:
            found.problems[f"the picture cannot be decoded ({error})"] += 1
    return found


def read_values(run: RunDirectory, rows: pa.Table, problems: Counter[str]) -> Values:
    """Text, features and other inputs that are neither pictures nor tensors, read from the pool.

    Args:
        rows: as for `read_pictures`.
        problems: is told of what cannot be read.
    """
    decoders = run.config.pool.named_inputs().values()
    shown = [column for d in decoders if not isinstance(d, ImageDecode | TensorDecode) for column in columns_of(d)]
    columns = [name for name in dict.fromkeys(shown) if name not in rows.column_names][:COLUMNS]
    if not columns:
        return {}
    return {
        row_id: {name: column_texts(row[name])[0] for name in columns}
        for row_id, row in each_row(run, rows, columns, problems)
    }


def thumbnail(data: bytes, decode: ImageDecode) -> Picture:
    """Decode, shrink to EDGE pixels and encode again; nothing of the original file reaches the page.

    Raises:
        BadRow: no picture that can be decoded.
    """
    small = shrunken(data, decode, EDGE)
    return _picture(small.data, "jpeg", small.width, small.height, small.small)


def of_shortlist(data: bytes) -> Picture:
    """A thumbnail as a shortlist has it.

    Raises:
        BadRow: it is no picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            (width, height), kind = picture.size, str(picture.format).lower()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadRow("its thumbnail is damaged") from error
    if max(width, height) > EDGE:
        return thumbnail(data, ImageDecode())
    return _picture(data, kind, width, height, max(width, height) <= SMALL)


def _picture(data: bytes, kind: str, width: int, height: int, small: bool) -> Picture:
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    times: Any = FRAME // max(width, height) if small else min(FRAME / max(width, height), 1)
    return Picture(uri, max(round(width * times), 1), max(round(height * times), 1), pixelated=small)
