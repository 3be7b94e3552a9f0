"""Pictures: the same pixels as Pillow and torchvision's transforms give, and broken files as reasons."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from odd_pictures import WHOLE, Pixels, by_pillow, encoded, jpeg_of_size, picture, png_of_size
from PIL import Image

from poolscore.engine.config import ImageDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs import image
from poolscore.engine.inputs.base import BadRow, RowSpec
from poolscore.engine.inputs.image import ImageDecoder
from poolscore.engine.inputs.picture import decode_picture


def decode(data: bytes, mode: Any = "RGB", **config: Any) -> Pixels:
    return decode_picture(data, ImageDecode(mode=mode, **config))


def decoder(**config: Any) -> ImageDecoder:
    return ImageDecoder(ImageDecode(column="image", **config))


def table(*values: bytes | None) -> pa.Table:
    return pa.table({"image": pa.array(values, pa.binary())})


@pytest.mark.parametrize("quality", [5, 50, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 31), (64, 3)])
def test_jpeg_bits_are_pillows(quality: int, subsampling: int, size: tuple[int, int]) -> None:
    data = encoded(picture("RGB", *size), "JPEG", quality=quality, subsampling=subsampling)
    for mode in ("RGB", "L"):
        np.testing.assert_array_equal(decode(data, mode), by_pillow(data, mode))


def torchvision_size(width: int, height: int, size: int) -> tuple[int, int]:
    """torchvision.transforms.functional._compute_resized_output_size, as (width, height)."""
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = size, int(size * long / short)
    return (new_short, new_long) if width <= height else (new_long, new_short)


def torchvision_crop(pixels: Pixels, height: int, width: int) -> Pixels:
    """torchvision.transforms.functional.center_crop of a picture that is large enough."""
    top = round((pixels.shape[0] - height) / 2.0)
    left = round((pixels.shape[1] - width) / 2.0)
    return pixels[top : top + height, left : left + width]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(23, 37), (37, 23), (40, 40), (41, 160), (301, 64)])
@pytest.mark.parametrize(
    ("resize", "crop"), [(20, None), (33, 32), (21, 20), (20, (19, 14)), ((30, 17), None), (None, 22)]
)
def test_resize_and_crop_are_torchvisions(mode: Any, size: tuple[int, int], resize: Any, crop: Any) -> None:
    data = encoded(picture("RGB", *size), "PNG")
    expected = Image.open(io.BytesIO(data)).convert(mode)
    if resize is not None:
        to = torchvision_size(*expected.size, resize) if isinstance(resize, int) else (resize[1], resize[0])
        expected = expected.resize(to, Image.Resampling.BILINEAR)
    pixels = np.array(expected)
    if crop is not None:
        pixels = torchvision_crop(pixels, *((crop, crop) if isinstance(crop, int) else crop))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    dec = decoder(mode=mode, resize=resize, crop=crop)
    assert dec.row_spec(table(data)) == RowSpec(pixels.shape, "uint8")
    out = np.zeros((1, *pixels.shape), np.uint8)
    assert dec.decode(table(data), out) == {}
    np.testing.assert_array_equal(out[0], pixels)


@pytest.mark.parametrize("in_cache", [1, 500, 1 << 20])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_model_sees_normalised_channels(monkeypatch: pytest.MonkeyPatch, mode: Any, in_cache: int) -> None:
    monkeypatch.setattr(image, "IN_CACHE", in_cache)  # bytes; a row has 80 or 240
    channels = len(mode)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 5, 4, channels)).astype(np.uint8))
    mean, std = (0.5, 0.25, 0.75)[:channels], (0.5, 1.0, 2.0)[:channels]
    x = decoder(mode=mode, mean=mean, std=std).to_model(pixels)
    assert (x.shape, x.dtype) == ((7, channels, 5, 4), torch.float32)
    assert x.is_contiguous(memory_format=torch.channels_last)
    for c in range(channels):
        assert torch.equal(x[:, c], (pixels[..., c].float() / 255 - mean[c]) / std[c])
    assert torch.equal(decoder(mode=mode).to_model(pixels), pixels.permute(0, 3, 1, 2).float() / 255)
    grey = decoder(mode=mode, mean=(0.5,), std=(2.0,)).to_model(pixels)
    assert torch.equal(grey, (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 2)


@pytest.mark.parametrize("name", ["jpeg", "jpeg-progressive", "jpeg-grey", "jpeg-cmyk"])
def test_a_jpeg_that_is_cut_short_is_never_half_grey(name: str) -> None:
    data = WHOLE[name]
    for tenth in range(10):
        with pytest.raises(BadRow):
            decode(data[: len(data) * tenth // 10])


def test_bombs_are_refused_before_they_are_unpacked() -> None:
    for width, height in ((60_000, 60_000), (1 << 14, (1 << 12) + 1)):
        with pytest.raises(BadRow, match=r"pixels"):
            decode(png_of_size(width, height), "RGB")
    with pytest.raises(BadRow, match=r"65000x65000 pixels, more than"):
        decode(jpeg_of_size(65_000, 65_000))


def test_a_line_is_not_resized_into_a_bomb() -> None:
    line = encoded(Image.new("L", (60_000, 1)), "PNG")
    out = np.zeros((1, 224, 224, 3), np.uint8)
    (reason,) = decoder(resize=224, crop=224).decode(table(line), out).values()
    assert reason == f"13440000x224 pixels, more than {1 << 26}"


def test_other_formats_are_refused() -> None:
    for kind in ("EPS", "PPM", "ICO"):
        with pytest.raises(BadRow, match=r"no picture that can be decoded: cannot identify"):
            decode(encoded(picture(), kind), "RGB")
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a", b"<svg/>", b"\xff\xd8\xff", b"\x00"):
        with pytest.raises(BadRow):
            decode(data)
    with pytest.raises(BadRow, match=r"^empty$"):
        decode(b"")


def test_bad_rows_keep_their_slot_empty_and_say_why() -> None:
    good, other = WHOLE["png"], encoded(picture("RGB", 5, 5), "PNG")
    out = np.zeros((8, 23, 37, 3), np.uint8)
    bad = decoder().decode(table(good, None, b"", other, b"\xff\xd8\xffbroken", good), out)
    assert set(bad) == {1, 2, 3, 4}
    assert (bad[1], bad[2], bad[3]) == ("null", "empty", "shape [5, 5, 3], expected [23, 37, 3]")
    assert bad[4] == "no picture that can be decoded: cannot identify image file"
    assert [bool(slot.any()) for slot in out] == [True, False, False, False, False, True, False, False]
    np.testing.assert_array_equal(out[5], by_pillow(good, "RGB"))


def test_a_picture_smaller_than_the_crop_is_bad() -> None:
    out = np.zeros((1, 30, 30, 3), np.uint8)
    assert decoder(crop=30).decode(table(WHOLE["png"]), out) == {0: "37x23 pixels, smaller than the crop of 30x30"}


def test_the_row_spec_is_the_first_picture_that_can_be_decoded() -> None:
    assert decoder().row_spec(table(None, b"", b"no", WHOLE["png"])) == RowSpec((23, 37, 3), "uint8")
    assert decoder(mode="L").row_spec(table(WHOLE["jpeg"])) == RowSpec((23, 37, 1), "uint8")
    assert decoder().row_spec(table(None, b"no")) is None
    assert decoder().row_spec(table()) is None


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_hugging_faces_struct_is_read(kind: pa.DataType) -> None:
    values = [{"bytes": WHOLE["png"], "path": "a"}, {"bytes": None, "path": "b"}, None]
    column = pa.array(values, pa.struct([("bytes", kind), ("path", pa.string())]))
    for rows, expected in ((column, {1: "null", 2: "null"}), (column.slice(1), {0: "null", 1: "null"})):
        out = np.zeros((len(rows), 23, 37, 3), np.uint8)
        chunked = pa.chunked_array([rows.slice(0, 1), rows.slice(1)])
        assert decoder().decode(pa.table({"image": chunked}), out) == expected
    decoder().check(pa.schema([("image", column.type)]))


def test_only_columns_of_bytes_are_pictures() -> None:
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        decoder().check(pa.schema([("image", kind)]))
    for kind in (pa.string(), pa.list_(pa.uint8()), pa.struct([("path", pa.string())]), pa.int64()):
        with pytest.raises(ConfigError, match=r"^pool.input: column 'image' has type .* reads encoded pictures"):
            decoder().check(pa.schema([("image", kind)]))
