"""Storage: whole or not at all, and errors of the disk in the project's own words."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.storage import LocalStorage, open_storage, require_writable


def everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "run")


def test_what_is_published_can_be_read_and_replaced(storage: LocalStorage) -> None:
    for data in (b"one", b"two"):
        storage.publish("a/b.bin", lambda file, data=data: file.write(data))  # type: ignore[misc]
        assert storage.read("a/b.bin") == data
    assert storage.names("a") == ["b.bin"]
    assert Path(storage.path("a/b.bin")).read_bytes() == b"two"


def test_an_error_in_the_middle_leaves_nothing(storage: LocalStorage, tmp_path: Path) -> None:
    storage.publish("a", lambda file: file.write(b"old"))

    def fill(file: BinaryIO) -> None:
        file.write(b"half")
        file.flush()
        assert storage.names("") == ["a"]  # a temporary file is never listed
        assert storage.read("a") == b"old"
        raise KeyboardInterrupt

    for name in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            storage.publish(name, fill)
    assert everything(tmp_path) == ["run/a"]
    assert storage.read("a") == b"old"


def test_create_never_replaces(storage: LocalStorage, tmp_path: Path) -> None:
    assert storage.create("x/y", b"first")
    assert not storage.create("x/y", b"second")
    assert storage.read("x/y") == b"first"
    assert everything(tmp_path) == ["run/x/y"]


def test_names_are_sorted_and_only_of_that_folder(storage: LocalStorage) -> None:
    for name in ("b", "a", "c/d", ".hidden"):
        storage.create(name, b"")
    assert storage.names("") == ["a", "b", "c"]
    assert storage.names("c") == ["d"]
    assert storage.names("none") == []
    assert storage.names("a") == []


@pytest.mark.parametrize("name", ["none", "none/below", "file/below", "folder"])
def test_reading_what_is_not_there(storage: LocalStorage, name: str) -> None:
    storage.create("file", b"")
    storage.create("folder/file", b"")
    with pytest.raises(FileNotFoundError):
        storage.read(name)


def test_a_file_in_place_of_a_folder_stops_the_run(storage: LocalStorage, tmp_path: Path) -> None:
    storage.create("file", b"")
    for write in (lambda: storage.create("file/x", b""), lambda: storage.publish("file/x", lambda file: None)):
        with pytest.raises(StoppedError, match=r"file/x cannot be written"):
            write()
    storage.create("folder/x", b"")
    with pytest.raises(StoppedError, match=r"folder cannot be written"):
        storage.publish("folder", lambda file: file.write(b""))
    with pytest.raises(StoppedError, match=r"File name too long"):
        storage.create("n" * 300, b"")
    assert everything(tmp_path) == ["run/file", "run/folder/x"]


@pytest.mark.parametrize("call", ["fsync", "link"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_errors_of_the_disk_stop_the_run(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, broken)
    with pytest.raises(StoppedError, match=os.strerror(code)) as caught:
        storage.create("a/b", b"data")
    assert "run the same command again" in str(caught.value)
    assert caught.value.exit_code == 4
    assert everything(tmp_path) == []


def test_a_full_disk_under_arrow_stops_the_run(storage: LocalStorage, tmp_path: Path) -> None:
    class Full:
        def __init__(self, file: BinaryIO) -> None:
            self.file, self.closed = file, False

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    table = pa.table({"a": range(1000)})
    with pytest.raises(StoppedError, match=r"No space left"):
        storage.publish("t.parquet", lambda file: pq.write_table(table, Full(file)))
    assert everything(tmp_path) == []


def test_errors_of_reading_stop_the_run(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    storage.create("a/b", b"")
    monkeypatch.setattr(Path, "read_bytes", broken)
    monkeypatch.setattr(Path, "iterdir", broken)
    with pytest.raises(StoppedError, match=r"a/b cannot be read"):
        storage.read("a/b")
    with pytest.raises(StoppedError, match=r"a cannot be read"):
        storage.names("a")


def test_the_folder_may_vanish(storage: LocalStorage) -> None:
    storage.create("a", b"")
    Path(storage.root, "a").unlink()
    Path(storage.root).rmdir()
    Path(storage.root).write_bytes(b"")
    with pytest.raises(StoppedError):
        storage.create("a", b"")


def test_other_kinds_of_storage_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"run.dir: s3://b/r: only local"):
        open_storage("s3://b/r")


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    require_writable(LocalStorage(tmp_path / "new" / "run"))
    assert everything(tmp_path) == []
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"^run.dir: .* cannot be written"):
            require_writable(LocalStorage(root))
