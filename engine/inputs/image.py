"""Encoded pictures: simplejpeg for plain JPEG, Pillow for everything else and for resizing."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from poolscore.engine.config import ImageDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import BadRow, Reasons, RowSpec, decode_each, normalised, put_row

if TYPE_CHECKING:
    import torch

# Pillow's default list includes PostScript, which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 1 << 26  # 64 million: a larger header is taken for a decompression bomb

JPEG_MAGIC = b"\xff\xd8\xff"


class ImageDecoder:
    """uint8 [N, height, width, channels] on the host, float32 [N, channels, height, width] for the model."""

    parallel = True  # simplejpeg and Pillow release the GIL

    def __init__(self, config: ImageDecode) -> None:
        assert config.column is not None
        self.columns = (config.column,)
        self._config = config

    def check(self, schema: pa.Schema) -> None:
        """See Decoder."""
        column = self.columns[0]
        kind = schema.field(column).type
        if pa.types.is_struct(kind):
            kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else kind
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)):
            raise ConfigError(
                f"pool.input: column '{column}' has type {kind}; decode.kind 'image' reads encoded pictures from a "
                "binary column (or a struct with 'bytes'); for numbers use kind 'tensor' or 'features'"
            )

    def row_spec(self, table: pa.Table) -> RowSpec | None:
        """See Decoder."""
        for value in encoded_bytes(table[self.columns[0]]):
            if value is not None:
                try:
                    return RowSpec(self._decode_one(value).shape, "uint8")
                except BadRow:
                    continue
        return None

    def decode(self, table: pa.Table, out: NDArray[Any]) -> Reasons:
        """See Decoder."""
        return decode_each(encoded_bytes(table[self.columns[0]]), out, self._decode_into)

    def to_model(self, batch: torch.Tensor) -> torch.Tensor:
        """ToTensor and Normalize: bytes / 255, then (x − mean) / std for each channel."""
        x = batch.permute(0, 3, 1, 2).float().div_(255.0)
        return normalised(x, self._config.mean, self._config.std, axis=1).contiguous()

    def _decode_into(self, data: bytes, slot: NDArray[np.uint8]) -> None:
        put_row(self._decode_one(data), slot)

    def _decode_one(self, data: bytes) -> NDArray[np.uint8]:
        config = self._config
        if config.resize is None and config.crop is None:
            pixels = decode_picture(data, config.mode)
        else:
            picture = Image.fromarray(np.ascontiguousarray(_drop_grey_axis(decode_picture(data, config.mode))))
            if config.resize is not None:
                size = _resized(picture.size, config.resize)
                _check_pixels(*size)  # a line of one pixel grows with its shorter side
                picture = picture.resize(size, Image.Resampling.BILINEAR)
            pixels = np.asarray(picture)
            if config.crop is not None:
                pixels = _centre(pixels, config.crop)
        return pixels if pixels.ndim == 3 else pixels[:, :, None]


def encoded_bytes(column: pa.ChunkedArray) -> list[bytes | None]:
    """The pictures of a binary column, or of the field 'bytes' of a struct column."""
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    values: list[bytes | None] = column.to_pylist()
    return values


def decode_picture(data: bytes, mode: str) -> NDArray[np.uint8]:
    """Decode one picture as Pillow does.

    Args:
        data: a JPEG, PNG, WebP, BMP, GIF or TIFF file.
        mode: "RGB" or "L".

    Returns:
        uint8 [height, width, 3], or [height, width, 1] for grey.

    Raises:
        BadRow: why it is no such picture.
    """
    if data[:3] == JPEG_MAGIC:
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            _check_pixels(width, height)
            # Same library (libjpeg-turbo) and settings as Pillow: the same bits. Grey from colour goes through Pillow,
            # which weighs R, G and B where JPEG's own luma would differ by one.
            if colorspace == "Gray" or (colorspace == "YCbCr" and mode == "RGB"):
                return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB" if mode == "RGB" else "GRAY"))
        except ValueError as error:
            if isinstance(error, BadRow):
                raise
            raise BadRow(f"broken JPEG: {error}") from error
    return _decode_with_pillow(data, mode)


def _decode_with_pillow(data: bytes, mode: str) -> NDArray[np.uint8]:
    if not data:
        raise BadRow("empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd but decodable metadata
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_pixels(*picture.size)
                if picture.mode.startswith(("I", "F")):  # Pillow would turn every value above 255 into white
                    raise BadRow(f"more than 8 bits a channel (Pillow's mode {picture.mode}); use kind 'tensor'")
                pixels = np.array(picture.convert(mode))
    except BadRow:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds, SyntaxError and struct.error among them
        reason = str(error).partition(" <_io")[0] or type(error).__name__
        raise BadRow(f"no picture that can be decoded: {' '.join(reason.split())}") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadRow(f"{width}x{height} pixels, more than {MAX_PIXELS}")


def _drop_grey_axis(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _resized(size: tuple[int, int], resize: int | tuple[int, int]) -> tuple[int, int]:
    """(width, height) after resizing; an int is the shorter side, the longer one is cut to whole pixels."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = size
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize


def _centre(pixels: NDArray[np.uint8], crop: int | tuple[int, int]) -> NDArray[np.uint8]:
    height, width = (crop, crop) if isinstance(crop, int) else crop
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise BadRow(f"{pixels.shape[1]}x{pixels.shape[0]} pixels, smaller than the crop of {width}x{height}")
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]
