"""A pool of all the odd pictures there are: each is decoded as Pillow decodes it, or set aside with its reason."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import rows_of, write_pool
from fuzz_decoder import FINE, fuzz
from odd_pictures import (
    BOMB,
    BROKEN,
    DEEP,
    TRUNCATED,
    WHOLE,
    by_pillow,
    damaged,
    encoded,
    jpeg_of_size,
    picture,
    turned,
)
from PIL import Image

from poolscore.engine.config import Config, ImageDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import BadRow, RowSpec
from poolscore.engine.inputs.batch import BatchDecoder
from poolscore.engine.inputs.image import ImageDecoder
from poolscore.engine.inputs.picture import decode_picture, decode_scaled, resized
from poolscore.engine.score import score_pool

# Of odd metadata. They are not silenced in the product: Python's switches for that are no business of threads.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
CPU = torch.device("cpu")


def how(mode: Any = "RGB", **config: Any) -> ImageDecode:
    return ImageDecode(column="image", mode=mode, **config)


@pytest.mark.parametrize("exif", ["ignore", "apply"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", WHOLE)
def test_pixels_are_pillows(name: str, mode: str, exif: Any) -> None:
    pixels = decode_picture(WHOLE[name], how(mode, exif=exif))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, by_pillow(WHOLE[name], mode, exif))


def test_orientation_turns_pictures_only_if_it_is_applied() -> None:
    upright = decode_picture(turned(1), how())
    assert np.array_equal(decode_picture(turned(6), how()), upright)
    np.testing.assert_array_equal(decode_picture(turned(6), how(exif="apply")), np.rot90(upright, -1))
    named_in_xmp = encoded(picture(), "JPEG", xmp=b'<rdf:Description tiff:Orientation="8"/>')
    np.testing.assert_array_equal(decode_picture(named_in_xmp, how(exif="apply")), np.rot90(upright))


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_more_than_8_bits_a_channel_are_refused_not_clipped(mode: str, name: str) -> None:
    with pytest.raises(BadRow, match=r"^more than 8 bits a channel"):
        decode_picture(DEEP[name], how(mode))


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_file_that_is_cut_short_is_set_aside_where_pillow_refuses_it(name: str) -> None:
    try:
        expected = by_pillow(TRUNCATED[name], "RGB")
    except Exception:
        with pytest.raises(BadRow):
            decode_picture(TRUNCATED[name], how())
    else:
        assert not name.startswith("jpeg")
        np.testing.assert_array_equal(decode_picture(TRUNCATED[name], how()), expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_whole_pool_at_once(threads: int) -> None:
    files = {**WHOLE, **BROKEN, **DEEP, **TRUNCATED}
    names, height, width = list(files), 23, 37
    decoder = BatchDecoder({"": ImageDecoder(how())}, {"": RowSpec((height, width, 3), "uint8")}, 256, CPU, threads)
    decoder.read(rows_of(image=[WHOLE["jpeg"]] * 200)).release()  # leaves its pixels in the buffer
    batch = decoder.read(rows_of(image=pa.array(files.values(), pa.binary())))
    pixels, reasons = batch.arrays[""], {names[i]: reason for i, (_, reason) in batch.bad.items()}
    assert {stage for stage, _ in batch.bad.values()} == {"decode"}
    for i, (name, data) in enumerate(files.items()):
        expected = np.zeros((height, width, 3), np.uint8) if name in reasons else by_pillow(data or b"", "RGB")
        np.testing.assert_array_equal(pixels[i], expected)
    assert not pixels[len(files) :].any()
    other_sizes = {
        name for name in WHOLE if "23x37" not in name and by_pillow(WHOLE[name], "RGB").shape[:2] != (23, 37)
    }
    assert set(reasons) >= set(BROKEN) | set(DEEP) | other_sizes
    assert not set(reasons) & (set(WHOLE) - other_sizes)
    told = {
        "null": "null",
        "empty": "empty",
        "text": "no picture that can be decoded: cannot identify image file",
        "postscript": "no picture that can be decoded: cannot identify image file",
        "jpeg-bomb": f"{BOMB[0]}x{BOMB[1]} pixels, more than {1 << 26}",
        "jpeg-20000x1": "shape [1, 20000, 3], expected [23, 37, 3]",
        "jpeg-90%": "no picture that can be decoded: image file is truncated",
        "png-16-bit-grey": "more than 8 bits a channel",
    }
    assert {name: reasons[name][: len(reason)] for name, reason in told.items()} == told


@pytest.mark.parametrize("size", [(23, 37), (9, 9), (90, 90)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_size_that_stands_elsewhere_in_the_file_misleads_nobody(size: tuple[int, int], mode: Any) -> None:
    """In a thumbnail, say: the decoder looks for the header of a picture that fits its slot."""
    channels = len(mode)
    header = struct.pack(">BBHBHHB", 0xFF, 0xC0, 8 + 3 * channels, 8, 23, 37, channels)
    data = encoded(picture(mode, *size), "JPEG", comment=header)
    assert data.count(header) == 1 + (size == (23, 37))
    out = np.full((1, 23, 37, channels), 7, np.uint8)
    bad = ImageDecoder(how(mode)).decode(pa.table({"image": [data]}), out)
    if size == (23, 37):
        np.testing.assert_array_equal(out[0], by_pillow(data, mode))
    else:
        assert bad == {0: f"shape [{size[0]}, {size[1]}, {channels}], expected [23, 37, {channels}]"}


def test_slots_larger_than_any_jpeg_are_filled() -> None:
    wide = encoded(picture(height=1, width=70_000), "PNG")
    out = np.full((2, 1, 70_000, 3), 7, np.uint8)
    assert set(ImageDecoder(how()).decode(pa.table({"image": [wide, WHOLE["jpeg"]]}), out)) == {1}
    np.testing.assert_array_equal(out[0], by_pillow(wide, "RGB"))


def test_a_job_scores_what_pillow_decodes_and_tells_why_not_the_rest(
    digit_config: Callable[..., Config], tmp_path: Path
) -> None:
    files = {**WHOLE, **BROKEN, **DEEP, **TRUNCATED}
    table = pa.table({"id": list(files), "image": pa.array(files.values(), pa.binary()), "label": [0] * len(files)})
    pool = {"uri": str(write_pool(tmp_path / "odd", table)), "decode": {"mode": "L", "resize": [8, 8]}}
    expected = {*BROKEN, *DEEP}
    for name, data in {**WHOLE, **TRUNCATED}.items():
        try:
            by_pillow(data, "L")
        except Exception:
            expected.add(name)
    scores = []
    for threads in (0, 3):
        run = {"max_bad_fraction": 1.0, "decode_threads": threads, "dir": str(tmp_path / f"run-{threads}")}
        totals = score_pool(digit_config(pool=pool, run=run)).totals
        parts = {what: sorted((tmp_path / f"run-{threads}" / what).glob("*.parquet")) for what in ("scores", "errors")}
        found = {what: pa.concat_tables([pq.read_table(p) for p in paths]) for what, paths in parts.items()}
        assert totals.rows == len(files)
        assert set(found["errors"]["id"].to_pylist()) == expected
        assert set(found["errors"]["stage"].to_pylist()) == {"decode"}
        assert all(found["errors"]["error"].to_pylist())
        scores.append(found["scores"])
    assert len(expected) > 60
    assert scores[0].num_rows == len(files) - len(expected)
    assert scores[0].equals(scores[1])  # the same bits for any number of threads


def test_the_limit_on_pixels_can_be_set() -> None:
    within = how(max_pixels=23 * 37)
    for name in ("jpeg", "png"):
        assert decode_picture(WHOLE[name], within).shape == (23, 37, 3)
        with pytest.raises(BadRow, match=r"^37x23 pixels, more than 850$"):
            decode_picture(WHOLE[name], how(max_pixels=23 * 37 - 1))
    with pytest.raises(BadRow, match=r"^60000x50000 pixels"):
        decode_picture(jpeg_of_size(*BOMB), within)


@pytest.mark.parametrize("resize", [60, (60, 90), (280, 30)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_scaled_decoding_reads_no_more_than_is_needed(resize: Any, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    up, around = Image.linear_gradient("L"), Image.radial_gradient("L")
    smooth = Image.merge("RGB", [up, around, up.rotate(90)]).resize((600, 401))
    data = encoded(smooth, "JPEG", exif=exif)
    decode = how(resize=resize, method="scaled", exif="apply")
    pixels, whole = decode_scaled(data, decode)
    assert whole == ((600, 401) if orientation == 1 else (401, 600))
    width, height = resized(whole, resize)
    assert (pixels.shape[0] >= height, pixels.shape[1] >= width) == (True, True)
    assert max(pixels.shape) == (600 if (resize, orientation) == ((280, 30), 1) else 300 if height > 150 else 150)
    exact, scaled = (ImageDecoder(how(resize=resize, method=m, exif="apply")) for m in ("exact", "scaled"))
    rows = pa.table({"image": [data]})
    spec = exact.row_spec(rows)
    assert spec is not None
    assert scaled.row_spec(rows) == spec
    outs = np.zeros((2, 1, *spec.shape), np.uint8)
    for decoder, out in zip((exact, scaled), outs, strict=True):
        assert decoder.decode(rows, out) == {}
    difference = np.abs(outs[0].astype(int) - outs[1])
    assert 0 < difference.mean() < 1


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("exif", ["ignore", "apply"])
def test_resizing_by_torch_is_near(mode: Any, exif: Any) -> None:
    rows = pa.table({"image": [data for name, data in WHOLE.items() if "20000" not in name]})
    for size in ((8, 11), (40, 31)):
        outs = np.zeros((2, rows.num_rows, *size, len(mode)), np.uint8)
        for method, out in zip(("exact", "near"), outs, strict=True):
            assert ImageDecoder(how(mode, exif=exif, resize=size, method=method)).decode(rows, out) == {}
        difference = np.abs(outs[0].astype(int) - outs[1])
        assert 1 <= difference.max() <= 2
        assert difference.mean() < 0.05


def test_scaled_decoding_leaves_other_pictures_alone() -> None:
    for name in ("png", "jpeg-cmyk", "jpeg"):  # the last is too small
        scaled = decode_picture(WHOLE[name], how(resize=20, method="scaled"))
        np.testing.assert_array_equal(scaled, by_pillow(WHOLE[name], "RGB"))
    with pytest.raises(ValueError, match=r"'scaled' is a way of resizing; give resize"):
        how(method="scaled")


def test_damaged_files_are_decoded_as_by_pillow_or_refused() -> None:
    """A few hundred; `python tests/fuzz_decoder.py` tries 20,000."""
    verdicts = Counter(verdict for _, verdict in fuzz(400, seed=1))
    assert set(verdicts) <= set(FINE), verdicts
    assert verdicts["as Pillow"] > 80
    assert verdicts["refused, as by Pillow"] > 80


def test_the_watched_process_finds_crashes_and_goes_on() -> None:
    found = dict(fuzz(2, seed=-1))  # a seed that numpy refuses: the process dies with each file
    assert found == {0: "crashes: exit code 1", 1: "crashes: exit code 1"}


def test_damage_is_the_same_in_every_process() -> None:
    assert [damaged(i) for i in range(20)] == [damaged(i) for i in range(20)]
    assert len({damaged(i) for i in range(100)}) > 90
    with pytest.raises(ConfigError, match="reads encoded pictures"):
        ImageDecoder(how()).check(pa.schema([("image", pa.string())]))
