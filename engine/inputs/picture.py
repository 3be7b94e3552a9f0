"""One encoded picture, decoded to the bits that Pillow gives.

Plain JPEGs go through simplejpeg: libjpeg-turbo with the settings that Pillow gives it, at half of Pillow's time. Every
other file goes through Pillow, and so does each that simplejpeg (strict) finds any fault with. So a damaged file is set
aside where Pillow refuses it: a truncated one is; one with a few wrong bits is decoded as training code sees it.
"""

from __future__ import annotations

import io
import struct
from functools import cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from poolscore.engine.config import ImageDecode
from poolscore.engine.inputs.base import BadRow

Pixels = NDArray[np.uint8]  # [height, width, channels]
Size = tuple[int, int]  # width, height

# Pillow's default list includes PostScript, which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
JPEG_MAGIC = b"\xff\xd8\xff"
ORIENTATION_MARKS = (b"Exif\0\0", b"tiff:Orientation")  # without either, Pillow finds no orientation in a JPEG
LEAST_FACTOR = 2  # libjpeg's scaled decoding gains nothing by scales between 1/2 and 1


def decode_picture(data: bytes | memoryview, decode: ImageDecode, slot: Pixels | None = None) -> Pixels:
    """Decode one picture as Pillow does.

    Args:
        data: a JPEG, PNG, WebP, BMP, GIF or TIFF file.
        decode: its mode, exif and max_pixels count.
        slot: where the pixels may be put if they fit; what it holds after an error is left open.

    Returns:
        uint8 [height, width, 3], or [height, width, 1] for grey; maybe `slot`.

    Raises:
        BadRow: why it is no such picture.
    """
    return decode_scaled(data, decode, slot)[0]


def decode_scaled(data: bytes | memoryview, decode: ImageDecode, slot: Pixels | None = None) -> tuple[Pixels, Size]:
    """`decode_picture`, and the size of the whole picture: `decode.method` 'scaled' gives fewer pixels where
    `decode.resize` would throw most of them away."""
    plain = _decode_plain_jpeg(data, decode, slot) if data[:3] == JPEG_MAGIC else None
    return _decode_with_pillow(data, decode) if plain is None else plain


def resized(size: Size, resize: int | tuple[int, int]) -> Size:
    """Width and height after resizing; an int is the shorter side, the longer one is cut to whole pixels."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = size
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize


def check_pixels(size: Size, most: int) -> None:
    """Raise BadRow for a picture of more than `most` pixels."""
    if size[0] * size[1] > most:
        raise BadRow(f"{size[0]}x{size[1]} pixels, more than {most}")


def _decode_plain_jpeg(
    data: bytes | memoryview, decode: ImageDecode, slot: Pixels | None
) -> tuple[Pixels, Size] | None:
    """None: it is for Pillow to decode, or to say what is wrong with it."""
    kind = "RGB" if decode.mode == "RGB" else "GRAY"
    try:
        turn = _orientation(data) if decode.exif == "apply" else 1
        if slot is not None and turn == 1 and _baseline_header(slot.shape) in bytes(data):
            pixels = simplejpeg.decode_jpeg(data, kind, buffer=slot)
            if pixels.shape == slot.shape:  # and not that of a thumbnail within
                return slot, (slot.shape[1], slot.shape[0])
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        check_pixels((width, height), decode.max_pixels)
        # Grey from colour goes through Pillow, which weighs R, G and B where JPEG's own luma would differ by one.
        if colorspace != "Gray" and (colorspace != "YCbCr" or decode.mode != "RGB"):
            return None
        size = (height, width) if turn >= 5 else (width, height)
        least = resized(size, decode.resize) if decode.resize is not None and decode.method == "scaled" else (0, 0)
        least_width, least_height = least[::-1] if turn >= 5 else least
        pixels = simplejpeg.decode_jpeg(
            data, kind, min_height=least_height, min_width=least_width, min_factor=LEAST_FACTOR
        )
        return _turned(pixels, turn), size
    except BadRow:
        raise
    except ValueError:
        return None


@cache
def _baseline_header(shape: tuple[int, int, int]) -> bytes:
    """What the common kind of JPEG says of its size: start of frame 0, 8 bits, channels. To look for it costs a tenth
    of reading the header, which would be 8 % of a picture of 64x64."""
    height, width, channels = (min(n, 65_535) for n in shape)  # no JPEG is larger
    return struct.pack(">BBHBHHB", 0xFF, 0xC0, 8 + 3 * channels, 8, height, width, channels)


def _orientation(data: bytes | memoryview) -> int:
    """Of a JPEG, 1..8 as EXIF counts; 1: as it lies. Raises ValueError where Pillow cannot tell."""
    whole = bytes(data)
    if not any(mark in whole for mark in ORIENTATION_MARKS):
        return 1
    try:
        with Image.open(io.BytesIO(whole), formats=("JPEG",)) as picture:
            found = picture.getexif().get(Base.Orientation, 1)
    except Exception as error:  # of every kind, as below
        raise ValueError("no orientation") from error
    return found if found in range(1, 9) else 1


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """As ImageOps.exif_transpose does: 2..4 flip, 5..8 swap the axes first."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    upside_down = orientation in (3, 4, 7, 8)
    mirrored = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


def _decode_with_pillow(data: bytes | memoryview, decode: ImageDecode) -> tuple[Pixels, Size]:
    if not data:
        raise BadRow("empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            check_pixels(picture.size, decode.max_pixels)
            if picture.mode.startswith(("I", "F")):  # Pillow would turn every value above 255 into white
                raise BadRow(f"more than 8 bits a channel (Pillow's mode {picture.mode}); use kind 'tensor'")
            if decode.exif == "apply":
                ImageOps.exif_transpose(picture, in_place=True)
            pixels = np.array(picture.convert(decode.mode))
    except BadRow:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds, SyntaxError and struct.error among them
        reason = str(error).partition(" <_io")[0] or type(error).__name__
        raise BadRow(f"no picture that can be decoded: {' '.join(reason.split())}") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None], (pixels.shape[1], pixels.shape[0])
