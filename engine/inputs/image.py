"""A column of encoded pictures: decoded, resized, cropped, normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from poolscore.engine.config import ImageDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import BadRow, Reasons, RowSpec, decode_each, normalised_, put_row
from poolscore.engine.inputs.columns import value_views
from poolscore.engine.inputs.picture import Pixels, Size, check_pixels, decode_picture, decode_scaled, resized

if TYPE_CHECKING:
    import torch


IN_CACHE = 1 << 20  # bytes of float32 that are normalised together


class ImageDecoder:
    """uint8 [N, height, width, channels] on the host, float32 [N, channels, height, width] for the model, in memory
    still channels last."""

    parallel = True  # simplejpeg and Pillow release the GIL

    def __init__(self, config: ImageDecode) -> None:
        assert config.column is not None
        self.columns = (config.column,)
        self._config = config
        self._untouched = config.resize is None and config.crop is None

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
        for value in value_views(_binary(table[self.columns[0]])):
            if value is not None:
                try:
                    return RowSpec(self._decode_one(value).shape, "uint8")
                except BadRow:
                    continue
        return None

    def decode(self, table: pa.Table, out: NDArray[Any]) -> Reasons:
        """See Decoder."""
        return decode_each(value_views(_binary(table[self.columns[0]])), out, self._decode_into)

    def to_model(self, batch: torch.Tensor) -> torch.Tensor:
        """ToTensor and Normalize: bytes / 255, then (x − mean) / std for each channel."""
        import torch

        # As the bytes lie, channels last, which is also what convolutions want: to turn them costs more than all of the
        # arithmetic. All in the memory of the result, and on the CPU a few lines at a time, which stay in its cache
        # meanwhile: large temporaries would be faulted in anew, and each operation would fetch the batch from memory.
        rows, height, width, channels = batch.shape
        x_NHWC = torch.empty(batch.shape, dtype=torch.float32, device=batch.device)
        lines, bytes_of_lines = (of.view(rows * height, width * channels) for of in (x_NHWC, batch))
        mean, std = (of if len(of) == 1 else of * width for of in (self._config.mean, self._config.std))
        at_once = max(1, IN_CACHE // max(1, lines[:1].nbytes)) if batch.device.type == "cpu" else max(1, len(lines))
        for start in range(0, len(lines), at_once):
            some = lines[start : start + at_once].copy_(bytes_of_lines[start : start + at_once])
            normalised_(some.div_(255.0), mean, std, axis=1)
        return x_NHWC.permute(0, 3, 1, 2)

    def _decode_into(self, data: memoryview, slot: Pixels) -> None:
        pixels = decode_picture(data, self._config, slot) if self._untouched else self._decode_one(data)
        if pixels is not slot:
            put_row(pixels, slot)

    def _decode_one(self, data: memoryview) -> Pixels:
        resize, crop = self._config.resize, self._config.crop
        pixels, whole = decode_scaled(data, self._config)
        if resize is not None:
            size = resized(whole, resize)
            check_pixels(size, self._config.max_pixels)  # a line of one pixel grows with its shorter side
            pixels = np.ascontiguousarray(pixels)
            pixels = _by_pillow(pixels, size) if self._config.method == "exact" else _by_torch(pixels, size)
        return pixels if crop is None else _centre(pixels, crop)


def encoded_bytes(column: pa.ChunkedArray) -> list[bytes | None]:
    """The pictures of a binary column, or of the field 'bytes' of a struct column."""
    values: list[bytes | None] = _binary(column).to_pylist()
    return values


def _binary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _by_pillow(pixels: Pixels, size: Size) -> Pixels:
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    found = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
    return found.reshape(*found.shape[:2], -1)


def _by_torch(pixels: Pixels, size: Size) -> Pixels:
    """The same with vector instructions and shorter weights: 2 % of the values are 1 or 2 of 255 off, in a third of the
    time (benchmarks/bench_decode.py)."""
    import torch

    picture_CHW = torch.from_numpy(pixels).permute(2, 0, 1)
    found = torch.nn.functional.interpolate(picture_CHW[None], size[::-1], mode="bilinear", antialias=True)
    return found[0].permute(1, 2, 0).numpy()


def _centre(pixels: Pixels, crop: int | tuple[int, int]) -> Pixels:
    height, width = (crop, crop) if isinstance(crop, int) else crop
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise BadRow(f"{pixels.shape[1]}x{pixels.shape[0]} pixels, smaller than the crop of {width}x{height}")
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]
