"""A picture made small, for people to look at."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from poolscore.engine.config import Config, ImageDecode
from poolscore.engine.inputs.picture import decode_scaled

SMALL = 64  # pixels: up to here a picture keeps its size
QUALITY, QUALITY_OF_SMALL = 85, 95  # of JPEG; PNG takes ten times as long for the same to the eye


@dataclass(frozen=True)
class Thumbnail:
    """A picture of few pixels, as a JPEG."""

    data: bytes
    width: int  # pixels
    height: int
    small: bool  # it was so small already


def picture_input(config: Config) -> ImageDecode | None:
    """The input that is a picture; the first, where there are several."""
    return next((d for d in config.pool.named_inputs().values() if isinstance(d, ImageDecode)), None)


def shrunken(data: bytes, decode: ImageDecode, edge: int) -> Thumbnail:
    """Decode, shrink to `edge` pixels and encode again; nothing of the original file is in it.

    Raises:
        BadRow: no picture that can be decoded.
    """
    roughly = decode.model_copy(update={"method": "scaled", "resize": edge})
    pixels, size = decode_scaled(data, roughly)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
    image.thumbnail((edge, edge), Image.Resampling.HAMMING)
    out = io.BytesIO()
    if small := max(size) <= SMALL:
        image.save(out, "JPEG", quality=QUALITY_OF_SMALL, subsampling=0)
    else:
        image.save(out, "JPEG", quality=QUALITY)
    return Thumbnail(out.getvalue(), image.width, image.height, small)
