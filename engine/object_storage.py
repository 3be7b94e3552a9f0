"""A run directory in object storage: S3 and what speaks its language, and Google Cloud Storage.

Arrow's file systems read; fsspec's write, because Arrow has no conditional write. An object is written by one PUT, or,
where it is large, by an upload in parts that is completed at its end: nobody sees half of it. There is no rename.
"""

from __future__ import annotations

import errno
import io
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, BinaryIO

import fsspec
from pyarrow import fs

from poolscore.engine.errors import ConfigError, PoolscoreError, StoppedError
from poolscore.engine.filesystem import CONNECT_SECONDS, SILENCE_SECONDS, attempts, locate, reason, s3_endpoint
from poolscore.engine.uri import join, parse_object_uri

READERS = 32  # objects that are read at once
_TAKEN = re.compile("PreconditionFailed|ConditionalRequestConflict|conditionNotMet")


class ObjectStorage:
    """See Storage. The objects below a URI such as `s3://bucket/runs/1`.

    Raises:
        ConfigError: a kind of storage that is not supported.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        locate(self.root)

    def publish(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        """See Storage. The object is held in memory while it is written."""
        buffer = io.BytesIO()
        fill(buffer)
        with self._stopping(name, "written"):
            self._put(name, buffer.getvalue(), "overwrite")

    def create(self, name: str, data: bytes) -> bool:
        """See Storage. An object with the very same bytes counts as ours: where the answer to a PUT is lost it is sent
        again, and finds what it wrote before."""
        with self._stopping(name, "written"):
            try:
                self._put(name, data, "create")
            except Exception as error:  # clients have no common name for "taken"
                if not isinstance(error, FileExistsError) and not _TAKEN.search(repr(error.__cause__ or error)):
                    raise
                return self._holds(name, data)
        return True

    def read(self, name: str) -> bytes:
        """See Storage."""
        at = locate(self.path(name))
        with self._stopping(name, "read"):
            try:
                with at.filesystem.open_input_stream(at.path, compression=None) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                self._require_bucket()
        raise FileNotFoundError(errno.ENOENT, "no such object", self.path(name))

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """See Storage. Many at once: a request takes long, but waits for no other."""
        with ThreadPoolExecutor(READERS) as threads:
            return list(threads.map(self.read, names))

    def names(self, folder: str) -> list[str]:
        """See Storage."""
        at = locate(self.path(folder))
        with self._stopping(folder, "read"):
            found = at.filesystem.get_file_info(fs.FileSelector(at.path, allow_not_found=True))
        return sorted(entry.base_name for entry in found if not entry.base_name.startswith("."))

    def delete(self, name: str) -> None:
        """See Storage."""
        with self._stopping(name, "deleted"), suppress(FileNotFoundError):
            _writer(self.root).rm_file(self._key(name))

    def path(self, name: str) -> str:
        """See Storage."""
        return join(self.root, name) if name else self.root

    def require_writable(self) -> None:
        """See Storage. Also proves that the storage honours conditions, by which two jobs are kept apart."""
        probe = f".writable.{secrets.token_hex(4)}"
        try:
            first, second = self.create(probe, b"1"), self.create(probe, b"2")
            self.delete(probe)
        except StoppedError as error:
            why = reason(error.__cause__ or error)
            raise ConfigError(f"run.dir: {self.root} cannot be written ({why}); mend that or choose another") from error
        if not first or second:
            raise ConfigError(
                f"run.dir: {self.root} lies on storage that overwrites in spite of If-None-Match, so two jobs could "
                "mix their results; use a newer version of its server, or another run.dir"
            )

    def _put(self, name: str, data: bytes, mode: str) -> None:
        _writer(self.root).pipe_file(self._key(name), data, mode=mode)

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except FileNotFoundError:  # taken by a write that is not finished
            return False

    def _key(self, name: str) -> str:
        return parse_object_uri(self.path(name)).path

    def _require_bucket(self) -> None:
        """A bucket that is not there is no empty one, though Arrow calls both by one name."""
        at = locate(self.root)
        bucket = at.path.partition("/")[0]
        with suppress(OSError):  # it may be hidden from us, and its objects not
            if at.filesystem.get_file_info(bucket).type == fs.FileType.NotFound:
                raise ConfigError(f"{self.root}: there is no bucket '{bucket}' here")

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


def _writer(root: str) -> Any:
    place = parse_object_uri(root)
    if place.scheme == "s3":
        return _s3_writer(s3_endpoint(), place.anonymous, attempts())
    return _gs_writer(place.anonymous)


@cache
def _s3_writer(endpoint: str | None, anonymous: bool, times: int) -> Any:
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": SILENCE_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": times},
    }
    if endpoint:
        settings["s3"] = {"addressing_style": "path"}  # as Arrow's: few such servers know a host for each bucket
    options = {"anon": anonymous, "endpoint_url": endpoint, "config_kwargs": settings}
    return _fsspec("s3", use_listings_cache=False, **options)


@cache
def _gs_writer(anonymous: bool) -> Any:
    return _fsspec("gs", use_listings_cache=False, **({"token": "anon"} if anonymous else {}))


def _fsspec(kind: str, **options: Any) -> Any:
    try:
        return fsspec.filesystem(kind, **options)
    except ImportError as error:
        raise ConfigError(
            f"{kind}:// is read without further packages, but writing to it needs one: pip install 'poolscore[{kind}]'"
        ) from error
