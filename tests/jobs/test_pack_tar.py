"""`pack` on tar files in webdataset's layout: samples, columns, and archives that mean harm."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from poolscore.engine.errors import ConfigError, InterruptedRun
from poolscore.jobs.pack import fill, pack, tar, tar_samples
from poolscore.jobs.pack.tar_samples import split_name


@cache
def picture(seed: int, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8 + seed % 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode: Any = "w:gz" if path.suffix in (".gz", ".tgz") else "w"
    with tarfile.open(path, mode, format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def shard(path: Path, start: int, count: int) -> Path:
    members = []
    for n in range(start, start + count):
        members += [member(f"{n:06d}.jpg", picture(n)), member(f"{n:06d}.cls", str(n % 3).encode())]
        members += [member(f"{n:06d}.json", f'{{"n": {n}}}'.encode())]
    return write_tar(path, *members)


def reasons(pool: Path) -> dict[str, str]:
    lines = (pool / "_set_aside.csv").read_text().splitlines()[1:]
    return dict(line.rsplit(",", 1) for line in lines)


def packed(source: Path, pool: Path, **options: Any) -> pa.Table:
    pack(source, pool, **options)
    return pq.read_table(pool)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_samples_become_rows_with_their_fields(tmp_path: Path, suffix: str) -> None:
    table = packed(shard(tmp_path / f"a{suffix}", 0, 20), tmp_path / "pool")
    assert table.schema.names == ["id", "image", "label", "json", "width", "height"]
    assert table["id"].to_pylist() == [f"a{suffix}/{n:06d}" for n in range(20)]
    assert table["image"].to_pylist() == [picture(n) for n in range(20)]
    assert table["label"].type == pa.int64()
    assert table["label"].to_pylist() == [n % 3 for n in range(20)]
    assert table["json"].to_pylist() == [f'{{"n": {n}}}' for n in range(20)]
    assert table["width"].to_pylist() == [8 + n % 5 for n in range(20)]


@pytest.mark.parametrize("count", [1, 2])
def test_many_tars_in_the_order_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(fill, "ROWS_PER_WORKER", 1)
    shard(tmp_path / "in/b/2.tar", 20, 10)
    shard(tmp_path / "in/b/1.tar.gz", 10, 10)
    shard(tmp_path / "in/a.tar", 0, 10)
    (tmp_path / "in/notes.txt").touch()
    expected = [*(f"a.tar/{n:06d}" for n in range(10)), *(f"b/1.tar.gz/{n:06d}" for n in range(10, 20))]
    expected += [f"b/2.tar/{n:06d}" for n in range(20, 30)]
    table = packed(tmp_path / "in", tmp_path / "pool", workers=count)
    assert table["id"].to_pylist() == expected
    assert table["image"].to_pylist() == [picture(n) for n in range(30)]
    table = packed(tmp_path / "in/b/*.tar*", tmp_path / "glob", workers=count)
    assert table["id"].to_pylist() == [name.removeprefix("b/") for name in expected[10:]]


def test_a_folder_with_pictures_stays_a_folder_of_pictures(tmp_path: Path) -> None:
    shard(tmp_path / "in/a.tar", 0, 10)
    (tmp_path / "in/z").mkdir()
    (tmp_path / "in/z/x.jpg").write_bytes(picture(1))
    assert packed(tmp_path / "in", tmp_path / "pool")["id"].to_pylist() == ["z/x.jpg"]
    assert reasons(tmp_path / "pool") == {"a.tar": "not an image by extension"}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.jpg", ("a", "jpg")),
        ("./d/a.b.JPG", ("d/a", "b.jpg")),
        ("d.e/a.png", ("d.e/a", "png")),
        ("../../x.jpg", ("../../x", "jpg")),
        ("/etc/x.jpg", ("/etc/x", "jpg")),
        ("a", None),
        (".hidden", None),
        ("d/._a.jpg", None),
        ("a.", None),
        ("", None),
    ],
)
def test_key_and_extension(name: str, parts: tuple[str, str] | None) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_hostile_names_and_kinds_write_nothing_and_are_named(tmp_path: Path, suffix: str) -> None:
    source = write_tar(
        tmp_path / f"in/deep/x{suffix}",
        member("../../up.jpg", picture(1)),
        member("/abs.jpg", picture(2)),
        member("link.jpg", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard.jpg", kind=tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("dev.jpg", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("pipe.jpg", kind=tarfile.FIFOTYPE),
        member("folder.jpg", kind=tarfile.DIRTYPE),
        member(os.fsdecode(b"bad\xff.jpg"), picture(3)),
        member("n" * 5000 + ".jpg", picture(4)),
        member("noext", b"x"),
        member("a.cls", b"1"),
        member("fine.jpg", picture(5)),
        member("fine.JPG", picture(6)),
        member("fine.png", picture(7, "PNG")),
        member("fine.npy", b"x"),
        member("fine.txt", b"\xff"),
        member("line\nbreak.jpg", picture(8)),
        member("fine.cls", b"2"),
    )
    before = set(tmp_path.rglob("*"))
    table = packed(source, tmp_path / "pool")
    assert set(tmp_path.rglob("*")) - before == {
        tmp_path / "pool",
        tmp_path / "pool/_set_aside.csv",
        tmp_path / "pool/part-00000.parquet",
    }
    prefix = f"x{suffix}/"
    ids = [name.removeprefix(prefix) for name in table["id"].to_pylist()]
    assert ids == ["../../up", "/abs", "fine", "line\nbreak"]
    assert table["image"].to_pylist() == [picture(n) for n in (1, 2, 5, 8)]
    assert table["txt"].to_pylist() == [None] * 4
    found = {name.removeprefix(prefix)[:20]: reason for name, reason in reasons(tmp_path / "pool").items()}
    assert found == {
        "link.jpg": "links",
        "hard.jpg": "links",
        "dev.jpg": "not a regular file",
        "pipe.jpg": "not a regular file",
        "bad\\udcff.jpg": "with a name that is not UTF-8",
        "n" * 20: "with a name of more than 4096 characters",
        "noext": "a name without key or extension",
        "a": "sample without a picture",
        "fine.JPG": "a field that occurs before in its sample",
        "fine.png": "another picture of its sample",
        "fine.npy": "another field of its sample",
        "fine": "txt that cannot be read",
        "fine.cls": "a key that occurs before in its tar",
    }


def test_labels_that_are_no_integers(tmp_path: Path) -> None:
    text = write_tar(tmp_path / "a.tar", member("a.jpg", picture(1)), member("a.cls", b"cat\n"))
    assert packed(text, tmp_path / "text")["label"].to_pylist() == ["cat"]
    members = [m for n in range(300) for m in (member(f"{n}.jpg", picture(n)), member(f"{n}.cls", b" 7\n"))]
    members += [member("x.jpg", picture(1)), member("x.cls", b"cat"), member("y.jpg", b""), member("y.cls", b"9" * 30)]
    table = packed(write_tar(tmp_path / "b.tar", *members), tmp_path / "pool")
    assert table["label"].to_pylist() == [7] * 300 + [None, None]
    assert reasons(tmp_path / "pool") == {"b.tar/x": "cls that cannot be read", "b.tar/y": "cls that cannot be read"}


def zeros(data: bytearray) -> None:
    data[2048:2560] = b"\x01" * 512


def cut(data: bytearray) -> None:
    del data[5000:]


def negative(data: bytearray) -> None:
    data[2048 + 124 : 2048 + 136] = b"\xff" * 12


@pytest.mark.parametrize("damage", [zeros, cut, negative])
@pytest.mark.parametrize("packed_too", [False, True])
def test_a_damaged_tar_gives_what_lies_before_and_is_named(
    tmp_path: Path, damage: Callable[[bytearray], None], packed_too: bool
) -> None:
    members = [member(f"{n}.bmp", picture(n, "BMP")) for n in range(40)]
    data = bytearray(write_tar(tmp_path / "w.tar", *members, form=tarfile.USTAR_FORMAT).read_bytes())
    damage(data)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").write_bytes(gzip.compress(bytes(data)) if packed_too else bytes(data))
    shard(tmp_path / "in/b.tar", 0, 3)
    table = packed(tmp_path / "in", tmp_path / "pool")
    ids = table["id"].to_pylist()
    assert ids[-3:] == ["b.tar/000000", "b.tar/000001", "b.tar/000002"]
    assert 1 <= len(ids) < 43
    assert ids[:-3] == [f"a.tar/{n}" for n in range(len(ids) - 3)]
    assert table["image"].to_pylist()[:-3] == [picture(n, "BMP") for n in range(len(ids) - 3)]
    assert reasons(tmp_path / "pool")["a.tar"].startswith("unreadable: ")


@pytest.mark.parametrize("size", [10**6 + 10**5, 8 * 10**9])
def test_a_name_that_would_fill_the_memory_is_refused(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    good = write_tar(tmp_path / "in/a.tar", member("a.jpg", bytes(100))).read_bytes()[:1024]
    (tmp_path / "in/a.tar").write_bytes(good + info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert packed(tmp_path / "in", tmp_path / "pool")["id"].to_pylist() == ["a.tar/a"]
    assert reasons(tmp_path / "pool") == {"a.tar": f"unreadable: a header that states {size} bytes"}


def test_keys_of_a_tar_are_not_kept_in_its_list_of_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = shard(tmp_path / "a.tar", 0, 50)
    opened: list[tarfile.TarFile] = []
    real = tarfile.open

    def keep(*args: Any, **options: Any) -> tarfile.TarFile:
        opened.append(real(*args, **options))
        return opened[-1]

    monkeypatch.setattr(tarfile, "open", keep)
    list(tar_samples.samples(source, "a"))
    assert len(opened[0].members) <= 1  # type: ignore[attr-defined]


def test_too_large_a_picture_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_samples, "MAX_ROW_BYTES", 100)
    source = write_tar(tmp_path / "a.tar", member("a.jpg", bytes(100)), member("b.jpg", bytes(101)))
    assert packed(source, tmp_path / "pool")["id"].to_pylist() == ["a.tar/a"]
    assert reasons(tmp_path / "pool") == {"a.tar/b.jpg": "larger than 1 GiB"}


def test_sources_without_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no sample to pack"):
        pack(write_tar(tmp_path / "a.tar", member("notes", b"x")), tmp_path / "pool")
    (tmp_path / "b.tar").write_bytes(b"this is no tar" * 100)
    with pytest.raises(ConfigError, match="no sample to pack"):
        pack(tmp_path / "b.tar", tmp_path / "pool")
    with pytest.raises(ConfigError, match="one name"):
        pack(shard(tmp_path / "c.tar", 0, 2), tmp_path / "pool", id_column="json")
    with pytest.raises(ConfigError, match="SOURCE: no Parquet file"):
        pack(tmp_path / "none*.tar", tmp_path / "pool")
    assert not (tmp_path / "pool").exists()


def test_a_stopped_pack_of_tars_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "PIECE_ROWS", 20)
    shard(tmp_path / "in/a.tar", 0, 150)
    shard(tmp_path / "in/b.tar.gz", 0, 80)
    cuts: dict[str, Any] = {"file_bytes": 40_000, "row_group_bytes": 15_000}

    def stop(done: int, total: int | None) -> None:
        if done > 200:
            raise KeyboardInterrupt

    pack(tmp_path / "in", tmp_path / "whole", **cuts)
    with pytest.raises(InterruptedRun):
        pack(tmp_path / "in", tmp_path / "pool", progress=stop, **cuts)
    assert pack(tmp_path / "in", tmp_path / "pool", **cuts).resumed > 0
    for part in (tmp_path / "whole").iterdir():
        assert part.read_bytes() == (tmp_path / "pool" / part.name).read_bytes()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_large_field_beside_the_picture_is_left_out_and_its_sample_stays(tmp_path: Path, suffix: str) -> None:
    fits, too_large = b"x" * tar_samples.MAX_FIELD, b"x" * (tar_samples.MAX_FIELD + 1)
    members = [
        member("1.jpg", picture(1)),
        member("1.txt", fits),
        member("2.txt", too_large),
        member("2.jpg", picture(2)),
    ]
    table = packed(write_tar(tmp_path / f"a{suffix}", *members), tmp_path / "pool")
    assert table["image"].to_pylist() == [picture(1), picture(2)]
    assert table["txt"].to_pylist() == [fits.decode(), None]
    assert reasons(tmp_path / "pool") == {f"a{suffix}/2.txt": "a field beside the picture of more than 1 MiB"}
