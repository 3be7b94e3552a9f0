"""`pack` on a folder of images: order, bytes, headers, and what is left out."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack import folder, pack
from poolscore.jobs.pack.picture import header_size


def picture(kind: str = "PNG", size: tuple[int, int] = (5, 3)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 10, 30)).save(out, format=kind)
    return out.getvalue()


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def test_bytes_ids_labels_and_sizes_in_the_order_of_the_relative_paths(tmp_path: Path) -> None:
    files = {
        "b/x.JPG": picture("JPEG", (7, 4)),
        "a.png": picture(),
        "a/z.webp": picture("WEBP"),
        "a/deep/é 日本.tiff": picture("TIFF", (9, 8)),
        "a-b/q.gif": picture("GIF"),
        "a/y.bmp": picture("BMP"),
    }
    summary = pack(fill(tmp_path / "in", files), tmp_path / "pool", label_from_folder=True)
    table = pq.read_table(tmp_path / "pool")
    ids = table["id"].to_pylist()
    assert ids == sorted(files)
    assert table["image"].to_pylist() == [files[name] for name in ids]
    assert table["label"].to_pylist() == ["a-b", None, "a", "a", "a", "b"]
    sizes = dict(zip(ids, zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True), strict=True))
    assert sizes["b/x.JPG"] == (7, 4)
    assert sizes["a/deep/é 日本.tiff"] == (9, 8)
    assert all(size != (None, None) for size in sizes.values())
    assert (summary.rows, summary.files, dict(summary.skipped), summary.unreadable) == (6, 1, {}, ())
    assert table.schema.field("width").type == pa.int32()
    assert table.schema.field("image").type == pa.binary()


def test_without_the_option_there_is_no_label_and_names_can_be_chosen(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", {"a/x.png": picture()})
    pack(source, tmp_path / "pool", id_column="path", image_column="jpeg")
    assert pq.read_table(tmp_path / "pool").column_names == ["path", "jpeg", "width", "height"]


def test_order_is_that_of_whole_paths_on_a_random_tree(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    letters = list("ab-.~éZ0")
    for _ in range(60):
        parts = ["".join(rng.choice(letters, size=2)) for _ in range(rng.integers(1, 4))]
        path = tmp_path.joinpath(*(f"d{part}" for part in parts[:-1]), f"f{parts[-1]}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    everything = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png"))
    assert [name for name, reason in folder.walk(tmp_path) if not reason] == everything


def test_left_out_and_counted(tmp_path: Path) -> None:
    source = fill(
        tmp_path / "in",
        {"a.png": picture(), ".hidden.png": b"", ".git/x.png": b"", "notes.txt": b"", "dir.png/in.txt": b""},
    )
    outside = fill(tmp_path / "out", {"secret.png": picture(), "deep/more.png": picture()})
    (source / "leak.png").symlink_to(outside / "secret.png")
    (source / "leak").symlink_to(outside, target_is_directory=True)
    (source / "again").symlink_to(source, target_is_directory=True)
    (source / "alias.png").symlink_to("a.png")
    os.mkfifo(source / "pipe.png")
    (source / os.fsdecode(b"bad\xff.png")).write_bytes(picture())
    summary = pack(source, tmp_path / "pool")
    assert pq.read_table(tmp_path / "pool")["id"].to_pylist() == ["a.png", "alias.png"]
    assert summary.skipped == {
        "hidden": 2,
        "not an image by extension": 2,
        "links that lead outside": 2,
        "links to folders": 1,
        "not a regular file": 1,
        "with a name that is not UTF-8": 1,
    }
    assert "2 hidden" in str(summary)
    assert "\n" not in str(summary)


def test_unreadable_files_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", {"a.png": picture()})
    for number in range(25):
        (source / f"x{number:02d}.png").symlink_to("gone")
    summary = pack(source, tmp_path / "pool")
    assert summary.rows == 1
    assert summary.skipped == {"unreadable": 25}
    assert summary.unreadable == tuple(f"x{number:02d}.png" for number in range(20))
    assert "x19.png and 5 more." in str(summary)


def test_file_that_vanishes_or_is_forbidden_while_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "in", {"a.png": picture(), "b.png": picture(), "c.png": picture()})
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "b.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    summary = pack(source, tmp_path / "pool")
    assert pq.read_table(tmp_path / "pool")["id"].to_pylist() == ["a.png", "c.png"]
    assert summary.unreadable == ("b.png",)


def test_nothing_readable_is_an_error_and_leaves_no_pool(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "x.png").symlink_to("gone")
    with pytest.raises(ConfigError, match="could be read"):
        pack(source, tmp_path / "pool")
    assert not (tmp_path / "pool").exists()


def test_empty_and_broken_images_are_packed_as_they_are(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", {"empty.jpg": b"", "text.png": b"not a picture", "cut.png": picture()[:20]})
    summary = pack(source, tmp_path / "pool")
    assert summary.headerless == 3
    assert "3 pictures have no readable header and will be set aside when scored." in str(summary)
    table = pq.read_table(tmp_path / "pool")
    assert table["image"].to_pylist() == [picture()[:20], b"", b"not a picture"]
    assert table["width"].to_pylist() == table["height"].to_pylist() == [None, None, None]


def test_a_single_picture_without_a_header_and_none(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", {"a.png": picture()})
    assert "readable header" not in str(pack(source, tmp_path / "whole"))
    summary = pack(fill(source, {"empty.jpg": b""}), tmp_path / "pool")
    assert "1 picture has no readable header and will be set aside when scored." in str(summary)


@pytest.mark.parametrize("side", [20_000, 100_000, 2**31 - 1])
def test_header_of_a_decompression_bomb_is_read_without_warning(side: int) -> None:
    png = bytearray(picture())
    png[16:24] = struct.pack(">II", side, side)
    png[29:33] = struct.pack(">I", zlib.crc32(bytes(png[12:29])))
    assert header_size(bytes(png)) == (side, side)


def test_header_sizes_beyond_int32_are_null() -> None:
    bmp = bytearray(picture("BMP"))
    bmp[18:22] = struct.pack("<I", 2**32 - 1)
    assert header_size(bytes(bmp)) is None


def test_formats_off_the_whitelist_are_not_opened() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    ppm = b"P6 2 2 255\n" + bytes(12)
    assert header_size(postscript) is None
    assert header_size(ppm) is None
    assert header_size(b"") is None


def test_too_large_a_file_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MAX_ROW_BYTES", 100)
    source = fill(tmp_path / "in", {"a.png": bytes(100), "b.png": bytes(101)})
    assert pack(source, tmp_path / "pool").skipped == {"larger than 1 GiB": 1}


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", {"a.txt": b"", ".b.png": b""})
    with pytest.raises(ConfigError, match="1 hidden, 1 not an image"):
        pack(source, tmp_path / "pool")
    assert not (tmp_path / "pool").exists()


def test_progress_counts_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "PIECE_FILES", 2)
    source = fill(tmp_path / "in", {f"{n}.png": b"" for n in range(5)})
    calls: list[tuple[int, int | None]] = []
    pack(source, tmp_path / "pool", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 5), (2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("option", [{"labels": "x"}, {"as_tensor": True}, {"delimiter": ";"}, {"array_key": "x"}])
def test_options_of_other_sources_are_refused(tmp_path: Path, option: dict[str, object]) -> None:
    source = fill(tmp_path / "in", {"a.png": picture()})
    with pytest.raises(ConfigError, match="leave it out"):
        pack(source, tmp_path / "pool", **option)  # type: ignore[arg-type]
