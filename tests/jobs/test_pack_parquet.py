"""`pack` on a Parquet pool, and resizing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from poolscore.engine.config import ImageDecode
from poolscore.engine.errors import ConfigError, InterruptedRun
from poolscore.engine.inputs.image import ImageDecoder
from poolscore.engine.pool.find import find_files
from poolscore.engine.pool.health import PoolHealth, look
from poolscore.engine.storage.filesystem import locate
from poolscore.jobs.cli import app
from poolscore.jobs.doctor import examine
from poolscore.jobs.pack import Resize, fill, pack, parquet


def photo(seed: int, width: int = 60, height: int = 40, kind: str = "JPEG", mode: str = "RGB", **save: Any) -> bytes:
    """Smooth, as photos are."""
    rng, out = np.random.default_rng(seed), io.BytesIO()
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    small.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(out, kind, **save)
    return out.getvalue()


def images(rows: int, size: int = 3000) -> pa.Table:
    rng = np.random.default_rng(rows)
    return pa.table({"id": [f"r{n}" for n in range(rows)], "image": [rng.bytes(size) for _ in range(rows)]})


def kinds(pool: Path) -> list[str]:
    health = PoolHealth()
    for path in sorted(pool.rglob("*.parquet")):
        health.add(path.name, look(pq.read_metadata(path)))
    return [finding.kind for finding in health.findings()]


def test_a_pool_in_bad_shape_becomes_one_in_good_shape(tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    table = images(800)
    for number in range(20):
        name = "deep/" * (number % 2) + f"{number:02d}.parquet"
        pq.write_table(table.slice(40 * number, 40), tmp_path / "in" / name, compression="zstd")
    assert kinds(tmp_path / "in") == ["compressed_twice", "dictionary_encoded", "tiny_files"]
    summary = pack(tmp_path / "in", tmp_path / "pool", file_bytes=2_000_000, row_group_bytes=600_000)
    assert kinds(tmp_path / "pool") == []
    found = pq.read_table(tmp_path / "pool")
    assert found.to_pydict() == pq.read_table(tmp_path / "in").to_pydict()
    assert summary.rows == 800
    assert summary.files == 2
    pack(tmp_path / "pool", tmp_path / "again", file_bytes=2_000_000, row_group_bytes=600_000)
    for part in (tmp_path / "pool").iterdir():  # nothing is left to mend
        assert part.read_bytes() == (tmp_path / "again" / part.name).read_bytes()


def test_odd_columns_survive(tmp_path: Path) -> None:
    rows = 50
    table = pa.table(
        {
            "key": pa.array([f"k{n % 3}" for n in range(rows)]).dictionary_encode(),
            "hf": pa.array([{"bytes": bytes([n]) * 2000, "path": None} for n in range(rows)]),
            "box": pa.array([[n, n + 0.5] if n % 4 else None for n in range(rows)], pa.list_(pa.float32())),
            "tags": pa.array([["a", "b"][: n % 3] for n in range(rows)]),
            "view": pa.array([b"x" * n for n in range(rows)], pa.binary_view()),
            "vec": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((rows, 2, 3), np.float32)),
            "when": pa.array(range(rows), pa.timestamp("us", "UTC")),
            "none": pa.nulls(rows),
        }
    )
    pq.write_table(table, tmp_path / "odd.parquet", row_group_size=7)
    pack(tmp_path / "odd.parquet", tmp_path / "pool", row_group_bytes=9000)
    found = pq.read_table(tmp_path / "pool")
    assert found.to_pylist() == table.to_pylist()
    assert found.schema.field("key").type == pa.string()
    assert found.schema.field("vec").type == table.schema.field("vec").type


def test_bytes_on_which_a_codec_saves_something_stay_compressed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"raw": [bytes(5000)] * 100}), tmp_path / "raw.parquet", compression="snappy")
    pack(tmp_path / "raw.parquet", tmp_path / "pool")
    assert (tmp_path / "pool/part-00000.parquet").stat().st_size < 20_000


def test_unreadable_and_damaged_files_are_set_aside(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in "abc":
        pq.write_table(
            images(90), source / f"{name}.parquet", row_group_size=30, compression="none", use_dictionary=False
        )
    data = bytearray((source / "b.parquet").read_bytes())
    at = pq.read_metadata(source / "b.parquet").row_group(1).column(0).data_page_offset
    data[at : at + 40] = b"\xff" * 40
    (source / "b.parquet").write_bytes(data)
    (source / "c.parquet").write_bytes(b"PAR1 nothing")
    pq.write_table(images(90).slice(0, 0), source / "d.parquet")
    summary = pack(source, tmp_path / "pool")
    assert summary.rows == 120
    assert summary.skipped == {"unreadable": 2}
    assert summary.unreadable == ("b.parquet", "c.parquet")


def test_a_huge_row_group_is_read_in_small_batches(tmp_path: Path) -> None:
    pq.write_table(images(400, 20_000), tmp_path / "one.parquet", compression="none", use_dictionary=False)
    source = parquet.parquet_source(str(tmp_path / "one.parquet"), parquet.Names())
    batches = [piece[0].batch for piece in source.pieces(0)]
    assert len(batches) > 5
    assert all(batch is not None and batch.nbytes < 1.1 * parquet.PIECE_BYTES for batch in batches)
    for start in (0, 1, 3, len(batches)):
        assert [piece[0].batch for piece in source.pieces(start)] == batches[start:]


class Stingy:
    """A Parquet file of 10 rows that gives 3 at a time, as Arrow may."""

    def iter_batches(self, rows: int, row_groups: list[int]) -> list[pa.RecordBatch]:
        return [pa.record_batch({"x": list(range(start, min(start + 3, 10)))}) for start in range(0, 10, 3)]


def test_batches_are_exact_where_arrow_gives_fewer_rows() -> None:
    found = list(parquet._tables(Stingy(), 0, 4))  # type: ignore[arg-type]
    assert [(start, table["x"].to_pylist()) for start, table in found] == [
        (0, [0, 1, 2, 3]),
        (4, [4, 5, 6, 7]),
        (8, [8, 9]),
    ]


def test_row_groups_that_are_done_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(images(40), tmp_path / "a.parquet", row_group_size=10)
    source = parquet.parquet_source(str(tmp_path / "a.parquet"), parquet.Names())
    real, groups = parquet._tables, []

    def watched(file: Any, group: int, *more: Any) -> Any:
        groups.append(group)
        return real(file, group, *more)

    monkeypatch.setattr(parquet, "_tables", watched)
    assert len(list(source.pieces(2))) == 2
    assert groups == [2, 3]


def test_a_stopped_repack_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        pq.write_table(images(200), tmp_path / f"in/{number}.parquet", row_group_size=70)
    cuts: dict[str, Any] = {"file_bytes": 400_000, "row_group_bytes": 100_000}

    def stop(done: int, total: int | None) -> None:
        assert total == 1200
        if done > 800:
            raise KeyboardInterrupt

    pack(tmp_path / "in", tmp_path / "whole", **cuts)
    with pytest.raises(InterruptedRun):
        pack(tmp_path / "in", tmp_path / "pool", progress=stop, **cuts)
    assert pack(tmp_path / "in", tmp_path / "pool", **cuts).resumed > 0
    for part in (tmp_path / "whole").iterdir():
        assert part.read_bytes() == (tmp_path / "pool" / part.name).read_bytes()


def test_the_keys_of_folders_become_columns(tmp_path: Path) -> None:
    table = pa.table(
        {"image": [photo(n) for n in range(20)], "country": range(20)}
    )  # the folder's value goes before it
    for folder in ("country=de/year=2024", "country=fr/year=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        pq.write_table(table, tmp_path / "in" / folder / "a.parquet", row_group_size=7)
    pack(tmp_path / "in", tmp_path / "pool")
    packed = pq.read_table(tmp_path / "pool")
    assert packed["country"].to_pylist() == ["de"] * 20 + ["fr"] * 20
    assert packed["year"].to_pylist() == [2024] * 20 + [None] * 20
    assert packed["image"].to_pylist() == table["image"].to_pylist() * 2
    before, after = (find_files(str(tmp_path / name), keep="country == 'fr' or year > 2000") for name in ("in", "pool"))
    assert {(field.name, field.type) for field in before.schema} == {(field.name, field.type) for field in after.schema}
    pack(tmp_path / "in", tmp_path / "small", resize=Resize.of("2", "png", 95, "ignore"))
    assert pq.read_table(tmp_path / "small")["year"].to_pylist() == packed["year"].to_pylist()


def test_what_cannot_be_repacked_is_refused_in_one_line(tmp_path: Path) -> None:
    one, two = tmp_path / "two/a.parquet", tmp_path / "two/b.parquet"
    one.parent.mkdir()
    pq.write_table(pa.table({"x": [1]}), one)
    pq.write_table(pa.table({"x": ["1"]}), two)
    with pytest.raises(ConfigError, match=r"'x' is string in b.parquet but int64 in a.parquet"):
        pack(tmp_path / "two", tmp_path / "pool")
    two.unlink()
    for pool in (tmp_path / "two", tmp_path / "two/pool", tmp_path):
        with pytest.raises(ConfigError, match=r"within one another|not empty"):
            pack(tmp_path / "two", pool)
    with pytest.raises(ConfigError, match=r"'image' is none.*`--image-column`; there are x"):
        pack(tmp_path / "two", tmp_path / "pool", resize=Resize(8))
    with pytest.raises(ConfigError, match="SOURCE: "):
        pack("gs+nothing://bucket/pool", tmp_path / "pool")
    with pytest.raises(ConfigError, match=r"^ftp://there/pool: there is no storage of this kind"):
        pack(tmp_path / "two", "ftp://there/pool")
    with pytest.raises(ConfigError, match="resize applies to folder, tar, parquet"):
        np.save(tmp_path / "x.npy", np.zeros((3, 4, 4), np.uint8))
        pack(tmp_path / "x.npy", tmp_path / "pool", resize=Resize(8))


def decoded(values: list[bytes], **options: Any) -> list[Any]:
    table, found = pa.table({"image": values}), []
    for row in range(table.num_rows):
        decoder = ImageDecoder(ImageDecode(column="image", **options))
        spec = decoder.row_spec(table.slice(row, 1))
        assert spec is not None
        out = np.zeros((1, *spec.shape), np.uint8)
        assert not decoder.decode(table.slice(row, 1), out)
        found.append(out[0])
    return found


PHOTOS = {
    "a.jpg": photo(1),
    "b.jpg": photo(2, 31, 77),
    "c.png": photo(3, 50, 50, "PNG", "P"),
    "d.webp": photo(4, 90, 45, "WEBP"),
    "e.jpg": photo(5, 44, 30, "JPEG", "CMYK"),
    "f.jpg": photo(6, 44, 30, "JPEG", "L"),
    "g.png": photo(7, 10, 10, "PNG", "RGBA"),
    "h.jpg": photo(8, 24, 24),
}


def folder(root: Path) -> Path:
    root.mkdir()
    for name, data in PHOTOS.items():
        (root / name).write_bytes(data)
    (root / "x.jpg").write_bytes(b"no picture")
    (root / "y.jpg").write_bytes(photo(1)[:200])
    return root


@pytest.mark.parametrize("size", [24, (20, 33)])
def test_resized_as_the_decoder_resizes(tmp_path: Path, size: int | tuple[int, int]) -> None:
    summary = pack(folder(tmp_path / "in"), tmp_path / "pool", resize=Resize(size, "png"))
    assert summary.skipped == {"not a picture": 2}
    table = pq.read_table(tmp_path / "pool")
    assert table["id"].to_pylist() == list(PHOTOS)
    expected = decoded(list(PHOTOS.values()), resize=size)
    for pixels, from_pool in zip(expected, decoded(table["image"].to_pylist()), strict=True):
        np.testing.assert_array_equal(from_pool, pixels)
    assert table["width"].to_pylist() == [pixels.shape[1] for pixels in expected]
    assert table["height"].to_pylist() == [pixels.shape[0] for pixels in expected]
    if size == 24:
        assert table["image"][-1].as_py() == PHOTOS["h.jpg"]  # it has the size already


def test_a_jpeg_loses_less_the_better_its_quality(tmp_path: Path) -> None:
    expected = decoded(list(PHOTOS.values()), resize=24)
    losses = []
    folder(tmp_path / "in")
    for quality in (100, 95, 60):
        pack(tmp_path / "in", tmp_path / f"pool{quality}", resize=Resize(24, quality=quality))
        values = pq.read_table(tmp_path / f"pool{quality}")["image"].to_pylist()
        assert all(data[:3] == b"\xff\xd8\xff" for data in values)
        differences = [np.abs(a.astype(int) - b).mean() for a, b in zip(expected, decoded(values), strict=True)]
        losses.append(np.mean(differences))
    assert losses[0] < 0.7  # chroma is whole: rounding is all that is lost
    assert losses[0] < losses[1] < losses[2]


def test_exif_turns_are_applied_where_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(photo(1, 60, 40, exif=exif))
    pack(tmp_path / "in", tmp_path / "lies", resize=Resize(20, "png"))
    pack(tmp_path / "in", tmp_path / "turned", resize=Resize(20, "png", exif="apply"))
    assert pq.read_table(tmp_path / "lies")["width"].to_pylist() == [30]
    assert pq.read_table(tmp_path / "turned")["width"].to_pylist() == [20]
    (tmp_path / "in/a.jpg").write_bytes(photo(1, 20, 30, exif=exif))
    pack(tmp_path / "in", tmp_path / "same", resize=Resize(20, "png", exif="apply"))
    ((pixels,), (same,)) = (
        decoded([(tmp_path / "in/a.jpg").read_bytes()], exif="apply", resize=20),
        decoded(pq.read_table(tmp_path / "same")["image"].to_pylist()),
    )
    np.testing.assert_array_equal(same, pixels)


@pytest.mark.parametrize("count", [1, 2])
def test_a_pool_is_resized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(fill, "ROWS_PER_WORKER", 1)
    pack(folder(tmp_path / "in"), tmp_path / "large")
    summary = pack(tmp_path / "large", tmp_path / "pool", resize=Resize(16), workers=count)
    pack(tmp_path / "in", tmp_path / "expected", resize=Resize(16))
    assert pq.read_table(tmp_path / "pool").equals(pq.read_table(tmp_path / "expected"))
    assert summary.skipped == {"not a picture": 2}
    assert "x.jpg,not a picture" in (tmp_path / "pool/_set_aside.csv").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resize", "big"], "HEIGHTxWIDTH in pixels, got 'big'"),
        (["--resize", "0"], "at least 1 pixel, got 0"),
        (["--resize", "8", "--encode", "gif"], "encode must be 'jpeg' or 'png'"),
        (["--resize", "8", "--exif", "turn"], "exif must be 'ignore' or 'apply'"),
    ],
)
def test_wrong_options_are_told_of(tmp_path: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["pack", str(folder(tmp_path / "in")), str(tmp_path / "pool"), *options])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


def test_the_command_packs_and_resizes(tmp_path: Path) -> None:
    arguments = ["pack", str(folder(tmp_path / "in")), str(tmp_path / "pool"), "--resize", "20X10", "--encode", "png"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "Packed 8 rows in 1 file" in result.output
    assert "2 not a picture; named in" in result.output
    assert set(pq.read_table(tmp_path / "pool")["width"].to_pylist()) == {10}


def test_a_pool_below_its_folder_of_pictures_is_passed_over(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    pack(source, source / "pool")
    assert pack(source, source / "pool", overwrite=True).skipped == {}


def test_a_pool_on_object_storage_is_repacked_to_a_folder(tmp_path: Path, bucket: str) -> None:
    at = locate(f"{bucket}/deep/a.parquet")
    pq.write_table(images(50), at.path, filesystem=at.filesystem)
    assert pack(bucket, tmp_path / "pool").rows == 50
    assert pq.read_table(tmp_path / "pool").equals(images(50))
    examined = examine(bucket)
    assert [finding.kind for finding in examined.findings] == ["compressed_twice", "dictionary_encoded"]
    assert f"`poolscore pack {bucket} NEW`" in str(examined)


def test_a_file_uri_is_its_path(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    assert pack(source.as_uri(), (tmp_path / "pool").as_uri()).rows == 10
    assert pack((tmp_path / "pool").as_uri(), tmp_path / "again").rows == 10
