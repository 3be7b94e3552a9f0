"""Storage: whole or not at all, locally and on S3 alike; and errors of the disk in the project's own words."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.filesystem import open_parquet
from poolscore.engine.storage.local import LocalStorage
from poolscore.engine.storage.objects import ObjectStorage
from poolscore.engine.storage.open import open_storage


def everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture(params=["local", "file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    roots = {"local": f"{tmp_path}/run", "file": f"file://{tmp_path}/a%20run"}
    root = roots[request.param] if request.param in roots else f"{request.getfixturevalue('bucket')}/a run/"
    return open_storage(root)


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "run")


def test_what_is_published_can_be_read_and_replaced(storage: Storage) -> None:
    for data in (b"one", b"two", b""):
        storage.publish("a/b.bin", lambda file, data=data: file.write(data))  # type: ignore[misc]
        assert storage.read("a/b.bin") == data
    assert storage.names("a") == ["b.bin"]
    assert storage.names("") == ["a"]


def test_a_table_is_found_where_the_storage_says(storage: Storage) -> None:
    table = pa.table({"a": range(1000)})
    storage.publish("scores/t.parquet", lambda file: pq.write_table(table, file))
    with open_parquet(storage.path("scores/t.parquet")) as file:
        assert file.read().equals(table)


def test_many_are_read_in_the_order_of_their_names(storage: Storage) -> None:
    names = [f"_log/{i:03d}" for i in range(50)]
    for name in names:
        storage.create(name, name.encode())
    assert storage.read_all(names[::-1]) == [name.encode() for name in names[::-1]]
    with pytest.raises(FileNotFoundError, match="no such object"):
        storage.read_all([*names, "_log/none"])


def test_an_error_in_the_middle_leaves_nothing(storage: Storage) -> None:
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
    assert storage.names("") == ["a"]
    assert storage.read("a") == b"old"


def test_an_error_in_the_middle_leaves_no_file(local: LocalStorage, tmp_path: Path) -> None:
    def fill(file: BinaryIO) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.publish("a", fill)
    assert everything(tmp_path) == []


def test_create_never_replaces(storage: Storage) -> None:
    assert storage.create("x/y", b"first")
    assert not storage.create("x/y", b"second")
    assert storage.read("x/y") == b"first"
    assert storage.names("x") == ["y"]


def test_names_are_sorted_and_only_of_that_folder(storage: Storage) -> None:
    for name in ("b", "a", "c/d", "c/e f/g", ".hidden", "ca"):
        storage.create(name, b"")
    assert storage.names("") == ["a", "b", "c", "ca"]
    assert storage.names("c") == ["d", "e f"]
    assert storage.names("none") == []
    assert storage.names("a") == []


@pytest.mark.parametrize("name", ["none", "none/below", "file/below", "folder"])
def test_reading_what_is_not_there(storage: Storage, name: str) -> None:
    storage.create("file", b"")
    storage.create("folder/file", b"")
    with pytest.raises(FileNotFoundError):
        storage.read(name)


def test_what_is_deleted_is_gone_and_may_be_deleted_again(storage: Storage) -> None:
    storage.create("a/b", b"")
    storage.create("a/c", b"")
    for _ in range(2):
        storage.delete("a/b")
        assert storage.names("a") == ["c"]


def test_proving_that_it_can_be_written_leaves_nothing(storage: Storage) -> None:
    storage.require_writable()
    assert storage.names("") == []
    storage.create("a", b"")
    storage.require_writable()
    assert storage.names("") == ["a"]


def test_the_root_says_what_kind_of_storage_it_is(tmp_path: Path) -> None:
    assert isinstance(open_storage("s3://bucket/run"), ObjectStorage)
    assert isinstance(open_storage(f"file://{tmp_path}"), LocalStorage)
    assert open_storage(f"file://{tmp_path}").root == str(tmp_path)
    assert open_storage("runs/1").root == "runs/1"
    with pytest.raises(ConfigError, match=r"^hdfs://b/r: there is no storage of this kind"):
        open_storage("hdfs://b/r")


def test_a_file_in_place_of_a_folder_stops_the_run(local: LocalStorage, tmp_path: Path) -> None:
    local.create("file", b"")
    for write in (lambda: local.create("file/x", b""), lambda: local.publish("file/x", lambda file: None)):
        with pytest.raises(StoppedError, match=r"file/x cannot be written"):
            write()
    local.create("folder/x", b"")
    with pytest.raises(StoppedError, match=r"folder cannot be written"):
        local.publish("folder", lambda file: file.write(b""))
    with pytest.raises(StoppedError, match=r"File name too long"):
        local.create("n" * 300, b"")
    assert everything(tmp_path) == ["run/file", "run/folder/x"]


@pytest.mark.parametrize("call", ["fsync", "link"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_errors_of_the_disk_stop_the_run(
    local: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, broken)
    with pytest.raises(StoppedError, match=os.strerror(code)) as caught:
        local.create("a/b", b"data")
    assert "run the same command again" in str(caught.value)
    assert caught.value.exit_code == 4
    assert everything(tmp_path) == []


def test_a_full_disk_under_arrow_stops_the_run(local: LocalStorage, tmp_path: Path) -> None:
    class Full:
        def __init__(self, file: BinaryIO) -> None:
            self.file, self.closed = file, False

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    table = pa.table({"a": range(1000)})
    with pytest.raises(StoppedError, match=r"No space left"):
        local.publish("t.parquet", lambda file: pq.write_table(table, Full(file)))
    assert everything(tmp_path) == []


def test_errors_of_reading_stop_the_run(local: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    local.create("a/b", b"")
    monkeypatch.setattr(Path, "read_bytes", broken)
    monkeypatch.setattr(Path, "iterdir", broken)
    with pytest.raises(StoppedError, match=r"a/b cannot be read"):
        local.read("a/b")
    with pytest.raises(StoppedError, match=r"a cannot be read"):
        local.names("a")


def test_the_folder_may_vanish(local: LocalStorage) -> None:
    local.create("a", b"")
    Path(local.root, "a").unlink()
    Path(local.root).rmdir()
    Path(local.root).write_bytes(b"")
    with pytest.raises(StoppedError):
        local.create("a", b"")


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    LocalStorage(tmp_path / "new" / "run").require_writable()
    assert everything(tmp_path) == []
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"^run.dir: .* cannot be written"):
            LocalStorage(root).require_writable()
