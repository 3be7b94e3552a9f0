"""Files as a file system lists them: a local disk, and any other through Arrow."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool import find, listing
from poolscore.engine.pool.find import find_files
from poolscore.engine.pool.listing import list_files
from poolscore.engine.storage import filesystem
from poolscore.engine.storage.filesystem import Location

NAMES = (
    *("x.parquet", "a/x.parquet", "b/x.pq", "b/c/y.PARQUET", "b/c/[1]/z.parquet", "ü 1/ö.parquet"),
    *("notes.txt", "_skip/x.parquet", ".x.parquet", "b/_log/x.parquet"),
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is also reached as mem://bucket, through a file system that is not the local one."""

    def locate(uri: str) -> Location:
        if not uri.startswith("mem://bucket"):
            return filesystem.locate(uri)
        # What stands for the bucket has no name in a SubTreeFileSystem, so the path is the key.
        return Location(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), uri.removeprefix("mem://bucket/"))

    monkeypatch.setattr(listing, "locate", locate)
    monkeypatch.setattr(find, "locate", locate)
    monkeypatch.setattr(listing, "require_bucket", lambda uri: None)  # mem: has none
    for name in NAMES:
        path = tmp_path / "pool" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "/",
        "/x.parquet",
        "/b/c",
        "/*.parquet",
        "/*/x.*",
        "/**/*.parquet",
        "/b/**/y.*",
        "/[ab]/x.*",
        "/[!a]/?.pq",
        "/ü*/*",
    ],
)
def test_every_file_system_lists_the_same(store: Path, pattern: str) -> None:
    local, remote = list_files(f"{store}/pool{pattern}"), list_files(f"mem://bucket/pool{pattern}")
    assert remote.paths == local.paths
    assert remote.root == local.root.replace(str(store), "mem://bucket")
    assert remote.bytes.tolist() == local.bytes.tolist()
    assert remote.modified.tolist() == local.modified.tolist()
    assert list(local.paths) == sorted(local.paths)


def test_what_counts_as_data(store: Path) -> None:
    expected = ("a/x.parquet", "b/c/[1]/z.parquet", "b/c/y.PARQUET", "b/x.pq", "x.parquet", "ü 1/ö.parquet")
    assert list_files("mem://bucket/pool").paths == expected
    assert list_files(f"file://{store}/pool").paths == expected


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mem://bucket/none", "there is nothing at mem://bucket/none"),
        ("mem://bucket/pool/*.none", "no Parquet file at mem://bucket/pool/"),
        ("mem://bucket/none/*.parquet", "there is nothing at mem://bucket/none/"),
        ("mem://bucket/pool/**x", "is no glob"),
    ],
)
def test_errors_name_the_place(store: Path, uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
        list_files(uri)


def test_a_folder_that_cannot_be_listed_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(folder: Path, onerror: object) -> object:
        assert callable(onerror)
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return iter(())

    monkeypatch.setattr(listing.os, "walk", walk)
    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be listed \\(Permission denied\\)"):
        list_files(str(tmp_path))


def test_links_to_folders_are_not_followed(store: Path) -> None:
    (store / "pool" / "loop").symlink_to(store / "pool")
    assert len(list_files(f"{store}/pool").paths) == 6


def test_a_pool_is_read_through_its_file_system(store: Path) -> None:
    with pytest.raises(ConfigError, match=r"pool/a/x\.parquet is no complete Parquet file"):
        find_files("mem://bucket/pool")
