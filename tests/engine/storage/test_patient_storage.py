"""Storage that fails for a while is waited for, and no longer than was said."""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any, BinaryIO

import pytest

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.storage import patient as patient_storage
from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.local import LocalStorage
from poolscore.engine.storage.objects import ObjectStorage
from poolscore.engine.storage.open import open_storage
from poolscore.engine.storage.patient import PatientStorage, hurry, impatient

CALLS: dict[str, Callable[[Storage], Any]] = {
    "publish": lambda s: s.publish("a", lambda file: file.write(b"new")),
    "create": lambda s: s.create("b", b"new"),
    "read": lambda s: s.read("a"),
    "read_all": lambda s: s.read_all(["a"]),
    "names": lambda s: s.names(""),
    "leftovers": lambda s: s.leftovers(""),
    "delete": lambda s: s.delete("a"),
}


class Failing:
    """A storage whose next calls fail; after what they do, with `late`."""

    def __init__(self, inner: Storage) -> None:
        self.inner, self.failures, self.calls, self.late = inner, 0, 0, False
        self.error: OSError = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in CALLS:
            return method

        def call(*args: Any) -> Any:
            self.calls += 1
            if self.failures <= 0:
                return method(*args)
            self.failures -= 1
            if self.late:
                method(*args)
            raise StoppedError(f"{self.path('a')} cannot be written (full); mend the storage, then …") from self.error

        return call


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Failing:
    monkeypatch.setattr(patient_storage, "FIRST_PAUSE", 0.01)
    storage: Any = Failing(LocalStorage(tmp_path))
    storage.create("a", b"old")
    storage.calls = 0
    return storage  # type: ignore[no-any-return]


def patient(failing: Any, seconds: float = 60.0, stopped: Event | None = None) -> PatientStorage:
    return PatientStorage(failing, seconds, stopped)


@pytest.mark.parametrize("name", CALLS)
def test_every_call_is_repeated_until_it_succeeds(failing: Failing, tmp_path: Path, name: str) -> None:
    failing.failures = 3
    expected = CALLS[name](LocalStorage(tmp_path)) if name in ("read", "read_all", "names", "leftovers") else None
    if name == "create":
        expected = True
    assert CALLS[name](patient(failing)) == expected
    assert failing.calls == 4


@pytest.mark.parametrize("name", CALLS)
def test_after_its_time_the_error_is_raised_in_one_line(failing: Failing, name: str) -> None:
    failing.failures = 10**6
    started = time.monotonic()
    with pytest.raises(
        StoppedError, match=r"cannot be written \(full\); .* \(tried for 0 s: run.storage_patience"
    ) as caught:
        CALLS[name](patient(failing, 0.2))
    assert 0.2 <= time.monotonic() - started < 5
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4
    assert 3 < failing.calls < 25  # the pauses grow


def test_the_user_is_told_once(failing: Failing, caplog: pytest.LogCaptureFixture) -> None:
    storage = patient(failing)
    for _ in range(2):
        failing.failures = 3
        storage.read("a")
    assert caplog.messages == [f"{storage.path('a')} cannot be written (full); waiting for up to 60 s"] * 2
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_what_is_not_there_is_not_waited_for(failing: Failing) -> None:
    with pytest.raises(FileNotFoundError):
        patient(failing).read("none")
    assert not patient(failing).create("a", b"old")  # somebody else's, though it says the same
    assert failing.calls == 2


def test_an_object_that_was_written_before_the_call_failed_is_ours(failing: Failing) -> None:
    failing.failures, failing.late = 1, True
    assert patient(failing).create("b", b"mine")
    failing.failures = 1
    assert not patient(failing).create("a", b"mine")
    assert failing.inner.read("a") == b"old"


def test_what_a_write_is_made_from_has_waited_itself(failing: Failing) -> None:
    calls, why = list[BinaryIO](), StoppedError("a part cannot be read")

    def fill(file: BinaryIO) -> None:
        calls.append(file)
        raise why

    failing.failures = 1  # the storage's own error
    with pytest.raises(StoppedError) as caught:
        patient(failing).publish("a", fill)
    assert caught.value is why
    assert len(calls) == 1
    assert failing.inner.read("a") == b"old"


def test_a_wrong_name_is_not_waited_for(tmp_path: Path) -> None:
    storage, started = open_storage(str(tmp_path), 60.0), time.monotonic()
    storage.create("file", b"")
    for name in ("n" * 300, "file/below"):
        with pytest.raises(StoppedError, match=r"cannot be written"):
            storage.create(name, b"")
    assert time.monotonic() - started < 20


def test_storage_is_proved_before_any_work_without_waiting(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"run.dir: .* cannot be written"):
        open_storage(f"{tmp_path}/file", 60.0).require_writable()
    with pytest.raises(ConfigError, match=r"there is no such bucket"):
        open_storage("s3://no-such-bucket/run", 60.0).require_writable()
    open_storage(f"{bucket}/run", 60.0).require_writable()


def test_who_waits_can_be_told_to_stop(failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_storage, "FIRST_PAUSE", 30.0)
    failing.failures = 10**6
    storage, raised = patient(failing, 600.0), list[BaseException]()

    def write() -> None:
        try:
            storage.create("b", b"")
        except StoppedError as error:
            raised.append(error)

    thread = Thread(target=write)
    thread.start()
    while not failing.calls and thread.is_alive():
        time.sleep(0.01)
    hurry(storage)
    thread.join(5)
    assert len(raised) == 1
    with pytest.raises(StoppedError):
        storage.read("a")  # nor does anybody begin to wait
    assert failing.calls == 2


def test_ctrl_c_ends_the_waiting(failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_storage, "FIRST_PAUSE", 30.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    failing.failures = 10**6
    Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            patient(failing, 600.0).create("b", b"")
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 10


def test_a_disk_that_has_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_twice(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) < 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(file: BinaryIO) -> None:
        file.write(b"whole")

    calls: list[int] = []
    monkeypatch.setattr(patient_storage, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(os, "fsync", full_twice)
    storage = open_storage(str(tmp_path), 60.0)
    storage.publish("a", fill)
    assert storage.read("a") == b"whole"
    assert storage.leftovers("") == []


def test_who_has_no_patience_waits_for_nothing(tmp_path: Path) -> None:
    assert isinstance(open_storage(str(tmp_path)), LocalStorage)
    assert isinstance(impatient(open_storage(str(tmp_path), 5.0)), LocalStorage)
    assert isinstance(impatient(open_storage("s3://bucket/run", 5.0)), ObjectStorage)
    assert open_storage(str(tmp_path), 5.0).root == str(tmp_path)


def test_of_many_objects_only_the_one_that_failed_is_read_again(tmp_path: Path) -> None:
    asked: list[str] = []

    class Flaky(LocalStorage):
        def read(self, name: str) -> bytes:
            asked.append(name)
            if asked.count(name) < 2 and name == "3":
                raise StoppedError("away")
            return super().read(name)

    names = [str(i) for i in range(5)]
    storage = Flaky(tmp_path)
    for name in names:
        storage.create(name, name.encode())
    assert PatientStorage(storage, 10.0).read_all(names) == [name.encode() for name in names]
    assert sorted(asked) == sorted([*names, "3"])
