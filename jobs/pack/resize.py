"""Pictures made smaller on packing: the pixels that the decoder would make of the original, encoded again."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from poolscore.engine.config import ImageDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import BadRow
from poolscore.engine.inputs.picture import check_pixels, decode_picture, resized
from poolscore.jobs.pack.pictures import NotPacked

_FULL_CHROMA = 0  # Pillow's name for 4:4:4


@dataclass(frozen=True)
class Resize:
    """Resizes as `decode.resize` does: mode RGB, bilinear with antialias, on Pillow's code.

    From a PNG the model sees the same bits as from the original with `decode.resize` (mode RGB). A JPEG loses a little:
    with quality 95 and full chroma a photo's values change by about 1 of 255 in the mean. A picture that has
    the size already keeps its bytes.

    Attributes:
        size: the shorter side, or (height, width); pixels.
        encode: of the new picture.
        quality: of a JPEG, 1..100.
        exif: "apply" turns pictures as their camera was held; "ignore" leaves them as they lie. Either way the new
            picture has no EXIF.
    """

    size: int | tuple[int, int]
    encode: Literal["jpeg", "png"] = "jpeg"
    quality: int = 95
    exif: Literal["ignore", "apply"] = "ignore"

    @classmethod
    def of(cls, size: str, encode: Any = "jpeg", quality: int = 95, exif: Any = "ignore") -> Resize:
        """From text: `224`, or `224x300` (height x width).

        Raises:
            ConfigError: a wrong value.
        """
        sides = size.lower().split("x")
        if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
            raise ConfigError(f"resize must be the shorter side or HEIGHTxWIDTH in pixels, got {size!r}")
        numbers = [int(side) for side in sides]
        return cls(numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1]), encode, quality, exif)

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, tuple) else (self.size,)
        if min(sides) < 1:
            raise ConfigError(f"resize must be at least 1 pixel, got {'x'.join(map(str, sides))}")
        if self.encode not in ("jpeg", "png"):
            raise ConfigError(f"encode must be 'jpeg' or 'png', got {self.encode!r}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality must be 1 to 100, got {self.quality}")
        if self.exif not in ("ignore", "apply"):
            raise ConfigError(f"exif must be 'ignore' or 'apply', got {self.exif!r}")

    def __call__(self, data: bytes) -> tuple[bytes, tuple[int, int]]:
        """The new picture, and its width and height.

        Raises:
            NotPacked: it cannot be decoded.
        """
        decode = ImageDecode(mode="RGB", exif=self.exif)
        try:
            pixels = decode_picture(data, decode)
            before = pixels.shape[1], pixels.shape[0]
            size = resized(before, self.size)
            check_pixels(size, decode.max_pixels)
        except BadRow as error:
            raise NotPacked(f"not a picture: {error}") from error
        if size == before and self.exif == "ignore":
            return data, size
        if min(size) < 1:
            raise NotPacked(f"not a picture: nothing would be left of {before[0]}x{before[1]} pixels")
        picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR)
        out = io.BytesIO()
        if self.encode == "png":
            picture.save(out, "PNG")
        else:
            picture.save(out, "JPEG", quality=self.quality, subsampling=_FULL_CHROMA)
        return out.getvalue(), size
