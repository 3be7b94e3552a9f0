"""A picture made small, for people to look at."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from poolscore.engine.config import Config, ImageDecode
from poolscore.engine.inputs.picture import decode_picture

SMALL = 64  # pixels: up to here a picture is kept as it is
QUALITY = 85  # of JPEG


@dataclass(frozen=True)
class Thumbnail:
    """A picture of few pixels."""

    data: bytes
    kind: str  # png: small already, or grey; else jpeg
    width: int  # pixels
    height: int
    small: bool  # as it was


def picture_input(config: Config) -> ImageDecode | None:
    """The input that is a picture; the first, where there are several."""
    return next((d for d in config.pool.named_inputs().values() if isinstance(d, ImageDecode)), None)


def shrunken(data: bytes, decode: ImageDecode, edge: int) -> Thumbnail:
    """Decode, shrink to `edge` pixels and encode again; nothing of the original file is in it.

    Raises:
        BadRow: no picture that can be decoded.
    """
    pixels = decode_picture(data, decode)
    grey = pixels.ndim == 2 or pixels.shape[2] == 1
    image = Image.fromarray(pixels.reshape(pixels.shape[:2]) if grey else np.ascontiguousarray(pixels))
    small = max(image.size) <= SMALL
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if small or grey:
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "JPEG", quality=QUALITY)
    return Thumbnail(out.getvalue(), "png" if small or grey else "jpeg", image.width, image.height, small)
