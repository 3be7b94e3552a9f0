"""A run directory in object storage: S3 and what speaks its language, and Google Cloud Storage.

An object is written by one PUT: nobody sees half of it. There is no rename.
"""

from __future__ import annotations

import errno
import io
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from pyarrow import fs

from poolscore.engine.errors import ConfigError, PoolscoreError, StoppedError
from poolscore.engine.storage.filesystem import (
    in_order,
    locate,
    may_pass,
    read_whole,
    reason,
    repeated,
    require_bucket,
    require_reachable,
)
from poolscore.engine.storage.object_writer import writer_for
from poolscore.engine.storage.uri import join, parse_object_uri


class ObjectStorage:
    """See Storage. The objects below a URI such as `s3://bucket/runs/1`.

    Raises:
        ConfigError: a kind of storage that is not supported.
    """

    at_once = 32  # a request takes long, but waits for no other

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        locate(self.root)

    def publish(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        """See Storage. The object is held in memory until it is written."""
        buffer = io.BytesIO()
        fill(buffer)
        self._put(name, buffer.getvalue(), new=False)

    def create(self, name: str, data: bytes) -> bool:
        """See Storage. An object with the very same bytes counts as ours: where the answer to a PUT is lost it is sent
        again, and finds what it wrote before."""
        if self._put(name, data, new=True):
            return True
        try:
            return self.read(name) == data
        except FileNotFoundError:  # somebody is writing it
            return False

    def read(self, name: str) -> bytes:
        """See Storage."""
        at = locate(self.path(name))
        with self._stopping(name, "read"):
            try:
                return repeated(lambda: read_whole(at), self.path(name))
            except FileNotFoundError:
                require_bucket(self.root)
        raise FileNotFoundError(errno.ENOENT, "no such object", self.path(name))

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """See Storage."""
        return list(in_order(self.read, names, self.at_once))

    def names(self, folder: str) -> list[str]:
        """See Storage."""
        at = locate(self.path(folder))
        with self._stopping(folder, "read"):
            selector = fs.FileSelector(at.path, allow_not_found=True)
            found = repeated(lambda: at.filesystem.get_file_info(selector), self.path(folder))
            if not found:
                require_bucket(self.root)
        return sorted(entry.base_name for entry in found if not entry.base_name.startswith("."))

    def leftovers(self, folder: str) -> list[str]:
        """See Storage. A PUT that is cut off leaves nothing."""
        return []

    def delete(self, name: str) -> None:
        """See Storage."""
        place = parse_object_uri(self.path(name))
        with self._stopping(name, "deleted"):
            writer_for(place).delete(place)

    def path(self, name: str) -> str:
        """See Storage."""
        return join(self.root, name) if name else self.root

    def require_writable(self) -> None:
        """See Storage. Also proves that the storage honours conditions, by which two jobs are kept apart."""
        probe = f".writable.{secrets.token_hex(4)}"
        try:
            require_reachable(self.root)
            first, second = self.create(probe, b"1"), self.create(probe, b"2")
            self.delete(probe)
        except StoppedError as error:
            if may_pass(error.__cause__ or error):
                raise
            why = reason(error.__cause__ or error)
            raise ConfigError(f"run.dir: {self.root} cannot be written ({why}); mend that or choose another") from error
        if not first or second:
            raise ConfigError(
                f"run.dir: {self.root} lies on storage that overwrites in spite of If-None-Match, so two jobs could "
                "mix their results; use a newer version of its server, or another run.dir"
            )

    def _put(self, name: str, data: bytes, new: bool) -> bool:
        place = parse_object_uri(self.path(name))
        with self._stopping(name, "written"):
            try:
                return writer_for(place).put(place, data, new)
            except FileNotFoundError:  # so gcsfs calls a bucket that is not there
                require_bucket(self.root)
                raise

    @contextmanager
    def _stopping(self, name: str, done: str) -> Iterator[None]:
        try:
            yield
        except PoolscoreError:
            raise
        except Exception as error:  # the clients' exceptions have no common base
            where, why = self.path(name), reason(error)
            raise StoppedError(
                f"{where} cannot be {done} ({why}); mend the storage, then run the same command again"
            ) from error
