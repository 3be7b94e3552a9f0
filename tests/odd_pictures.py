"""Every odd picture that a pool may hold, what Pillow makes of it, and damage of every kind."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
BOMB = (60_000, 50_000)  # pixels that its header states


def picture(mode: str = "RGB", height: int = 23, width: int = 37, seed: int = 0) -> Image.Image:
    """Smooth with some noise, so that lossy formats and resizing have something to do."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 4))
    waves = np.stack([x * 5, y * 7, x + y * 3, 255 - x * 4], axis=2) + noise
    return Image.fromarray((waves % 256).astype(np.uint8)).convert(mode)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A file of that format."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """A picture with that EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(mode), kind, exif=exif)


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header states another size."""
    data = bytearray(encoded(picture(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def png_of_size(width: int, height: int, bits: int = 8, kind: int = 2, rows: bytes = b"") -> bytes:
    """A PNG written by hand; colour type 0 is grey, 2 is RGB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _deep_colour(width: int = 9, height: int = 7) -> bytes:
    values = np.random.default_rng(0).integers(0, 1 << 16, (height, width, 3)).astype(">u2")
    return png_of_size(width, height, bits=16, rows=b"".join(b"\0" + row.tobytes() for row in values))


_PALETTE = picture("RGB").quantize(7)
WHOLE: dict[str, bytes] = {  # Pillow decodes each of them
    "jpeg": encoded(picture(), "JPEG"),
    "jpeg-444": encoded(picture(), "JPEG", subsampling=0, quality=97),
    "jpeg-422": encoded(picture(), "JPEG", subsampling=1),
    "jpeg-progressive": encoded(picture(height=64, width=50), "JPEG", progressive=True),
    "jpeg-restarts": encoded(picture(height=64, width=50), "JPEG", restart_marker_blocks=2),
    "jpeg-grey": encoded(picture("L"), "JPEG"),
    "jpeg-cmyk": encoded(picture("CMYK"), "JPEG"),
    "jpeg-rgb": encoded(picture(), "JPEG", keep_rgb=True),
    "jpeg-1x1": encoded(picture(height=1, width=1), "JPEG"),
    "jpeg-20000x1": encoded(picture(height=1, width=20_000), "JPEG"),
    "jpeg-1x20000": encoded(picture(height=20_000, width=1), "JPEG"),
    "jpeg-trailing": encoded(picture(), "JPEG") + b"what a camera leaves behind",
    **{f"jpeg-exif-{n}": turned(n) for n in range(10)},
    "jpeg-grey-exif-6": turned(6, mode="L"),
    "jpeg-cmyk-exif-8": turned(8, mode="CMYK"),
    "png": encoded(picture(), "PNG"),
    "png-exif-5": turned(5, "PNG"),
    "png-alpha": encoded(picture("RGBA"), "PNG"),
    "png-grey-alpha": encoded(picture("LA"), "PNG"),
    "png-palette": encoded(_PALETTE, "PNG"),
    "png-palette-alpha": encoded(_PALETTE, "PNG", transparency=3),
    "png-bits": encoded(picture("1"), "PNG"),
    "png-16-bit-colour": _deep_colour(),
    "png-20000x1": encoded(picture(height=1, width=20_000), "PNG"),
    "webp": encoded(picture(), "WEBP"),
    "webp-exif-7": turned(7, "WEBP"),
    "webp-alpha": encoded(picture("RGBA"), "WEBP", lossless=True),
    "bmp": encoded(picture(), "BMP"),
    "gif": encoded(picture(), "GIF"),
    "gif-animated": encoded(picture(), "GIF", save_all=True, append_images=[picture(seed=1)]),
    "tiff": encoded(picture(), "TIFF"),
    "tiff-exif-6": turned(6, "TIFF"),
    "tiff-lzw": encoded(picture(), "TIFF", compression="tiff_lzw"),
    "tiff-cmyk": encoded(picture("CMYK"), "TIFF"),
}
DEEP: dict[str, bytes] = {  # Pillow decodes them into white
    "png-16-bit-grey": encoded(Image.fromarray(np.array([[0, 65_535]], np.uint16)), "PNG"),
    "tiff-16-bit-grey": encoded(Image.fromarray(np.array([[0, 65_535]], np.uint16)), "TIFF"),
    "tiff-float": encoded(Image.fromarray(np.array([[0.5, 700.0]], np.float32)), "TIFF"),
}
BROKEN: dict[str, bytes | None] = {
    "null": None,
    "empty": b"",
    "text": b"no picture at all",
    "soi": b"\xff\xd8\xff",
    "jpeg-bomb": jpeg_of_size(*BOMB),
    "png-bomb": png_of_size(*BOMB),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "ppm": encoded(picture(), "PPM"),
    "svg": b"<svg/>",
}
TRUNCATED: dict[str, bytes] = {
    f"{name}-{tenth}0%": data[: len(data) * tenth // 10]
    for name, data in WHOLE.items()
    if name in ("jpeg", "jpeg-progressive", "jpeg-grey", "jpeg-cmyk", "png", "webp", "gif", "bmp", "tiff-lzw")
    for tenth in range(10)
}


def by_pillow(data: bytes, mode: str, exif: str = "ignore") -> Pixels:
    """What training code sees: [height, width, channels]. Raises whatever Pillow raises."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        shown = ImageOps.exif_transpose(opened) if exif == "apply" else opened
        pixels = np.array(shown.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def damaged(index: int, seed: int = 0) -> bytes:
    """File number `index` of an endless series: a picture with bytes changed, cut, doubled, moved or taken out."""
    random = np.random.default_rng((seed, index))
    files = list({**WHOLE, **DEEP}.values())
    data = bytearray(files[random.integers(len(files))])
    for _ in range(random.integers(1, 4)):
        size = max(len(data), 1)
        reach = size if random.random() < 0.5 else min(size, 200)  # headers are where most can go wrong
        at, length = int(random.integers(reach)), int(random.integers(1, 40))
        match random.integers(7):
            case 0:
                del data[at:]
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at : at + 2] = bytes([[0, 255, 127, 128][random.integers(4)]] * 2)
            case 4:
                other = files[random.integers(len(files))]
                data[at : at + length] = other[at : at + length]
            case _:
                data[at : at + 1] = bytes([random.integers(256)])
    return bytes(data)
