"""A run directory in a folder of this machine, or of a network file system."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from poolscore.engine.errors import ConfigError, StoppedError

_TEMPORARY = re.compile(r"[.].+[.][0-9a-f]{8}[.]tmp")


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
