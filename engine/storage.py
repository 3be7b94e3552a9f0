"""The seam to storage: objects under one root, each written whole or not at all."""

from __future__ import annotations

import io
import os
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import BinaryIO, Protocol

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.patient_storage import PatientStorage
from poolscore.engine.uri import local_path

_TEMPORARY = re.compile(r"[.].+[.][0-9a-f]{8}[.]tmp")


class Storage(Protocol):
    """Objects named by relative POSIX paths. Nothing here relies on renaming, which object stores do not have."""

    root: str
    at_once: int  # objects worth reading at the same time

    def publish(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        """Write an object through `fill(file)`; readers see the whole of it or nothing. Replaces an older one."""

    def create(self, name: str, data: bytes) -> bool:
        """Write an object only if there is none of that name; False if there is."""

    def read(self, name: str) -> bytes:
        """The bytes of an object; FileNotFoundError if there is none."""

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """The bytes of many objects, in the order of their names; FileNotFoundError if one is missing."""

    def names(self, folder: str) -> list[str]:
        """Sorted names of the objects and folders directly in a folder; empty if there is no such folder."""

    def leftovers(self, folder: str) -> list[str]:
        """Sorted names of what writers that died, or still write, have in a folder. It is in no listing."""

    def delete(self, name: str) -> None:
        """Take an object away; nothing happens if there is none."""

    def path(self, name: str) -> str:
        """Path or URI of the object, for people and for `locate`."""

    def require_writable(self) -> None:
        """Prove before any work that objects can be written; ConfigError, with the system's reason, if they cannot."""


class LocalStorage:
    """A folder on a local disk: temporary file, fsync, atomic rename."""

    at_once = 1

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)

    def publish(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        temporary = self._write_temporary(name, fill)
        try:
            temporary.replace(self._at(name))
            _sync_folder(self._at(name).parent)
        except OSError as error:
            _discard(temporary)
            raise _stopped(self._at(name), error) from error

    def create(self, name: str, data: bytes) -> bool:
        temporary = self._write_temporary(name, lambda file: file.write(data))
        try:
            os.link(temporary, self._at(name))  # fails if the name is taken, and shows the whole content at once
            _sync_folder(self._at(name).parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise _stopped(self._at(name), error) from error
        finally:
            _discard(temporary)
        return True

    def read(self, name: str) -> bytes:
        try:
            return self._at(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(error.errno, "no such object", self.path(name)) from error
        except OSError as error:
            raise _stopped(self._at(name), error, "read") from error

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        return [self.read(name) for name in names]

    def names(self, folder: str) -> list[str]:
        return [name for name in self._all_names(folder) if not name.startswith(".")]

    def leftovers(self, folder: str) -> list[str]:
        return [name for name in self._all_names(folder) if _TEMPORARY.fullmatch(name)]

    def delete(self, name: str) -> None:
        try:
            self._at(name).unlink(missing_ok=True)
        except OSError as error:
            raise _stopped(self._at(name), error) from error

    def path(self, name: str) -> str:
        return str(self._at(name))

    def require_writable(self) -> None:
        root = Path(self.root)
        new = not root.exists()
        try:
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f".writable.{secrets.token_hex(4)}.tmp"
            probe.touch(exist_ok=False)
            probe.unlink(missing_ok=True)  # a driver that ends beside us sweeps
            if new:
                root.rmdir()  # a job that is refused for something else leaves nothing behind
        except OSError as error:
            raise ConfigError(
                f"run.dir: {self.root} cannot be written ({error.strerror}); choose another folder"
            ) from error

    def _at(self, name: str) -> Path:
        return Path(self.root) / name

    def _all_names(self, folder: str) -> list[str]:
        at = self._at(folder)
        try:
            return sorted(path.name for path in at.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _stopped(at, error, "read") from error

    def _write_temporary(self, name: str, fill: Callable[[BinaryIO], object]) -> Path:
        final = self._at(name)
        temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            _discard(temporary)
            raise _stopped(final, error) from error
        except BaseException:
            _discard(temporary)
            raise
        return temporary


def open_storage(
    root: str,
    patience: float = 0.0,
    stopped: Event | None = None,
    on_waited: Callable[[float, str], None] = lambda seconds, why: None,
) -> Storage:
    """The storage behind a run directory, given as a path or URI.

    Args:
        patience: seconds to wait for storage that fails; see PatientStorage.
        stopped: once it is set nobody waits any more.
        on_waited: see PatientStorage.

    Raises:
        ConfigError: a kind of storage that is not supported.
    """
    storage = _bare_storage(root)
    return PatientStorage(storage, patience, stopped, on_waited) if patience else storage


def publish_new(storage: Storage, name: str, fill: Callable[[BinaryIO], object]) -> None:
    """Write an object whose name nobody else has, on the condition that nobody has: so a worker's rights need not
    allow it to write over anything. It is held in memory until it is written.

    Raises:
        StoppedError: somebody has it.
    """
    buffer = io.BytesIO()
    fill(buffer)
    if not storage.create(name, buffer.getvalue()):
        raise StoppedError(f"{storage.path(name)} is there already, and somebody else's; run the same command again")


def _bare_storage(root: str) -> Storage:
    path = local_path(root)
    if path is not None:
        return LocalStorage(path if "://" in root else root)
    from poolscore.engine.object_storage import ObjectStorage  # its clients are not needed for a local run

    return ObjectStorage(root)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(temporary: Path) -> None:
    with suppress(OSError):  # the error that led here is the one to tell of
        temporary.unlink()


def _stopped(path: Path, error: OSError, done: str = "written") -> StoppedError:
    reason = " ".join(str(error.strerror or error).split())
    return StoppedError(f"{path} cannot be {done} ({reason}); mend the storage, then run the same command again")
