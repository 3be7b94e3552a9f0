"""A pool that is written to object storage: S3 and what speaks its language, and Google Cloud Storage, through Arrow.

An object appears when it is whole. There is no append: what a log holds is written anew each time. A rename is a copy
within the storage, then a removal: it takes a moment for each file, and S3 copies no file above 5 GB.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import IO

import pyarrow as pa
from pyarrow import fs

from poolscore.engine.storage.filesystem import locate, require_bucket, require_reachable
from poolscore.jobs.pack.destination import Log

_COPY_BYTES = 1 << 22


class Bucket:
    """See Destination. The objects directly below a URI such as `s3://bucket/pool`."""

    def __init__(self, uri: str) -> None:
        self.path = uri.rstrip("/")
        require_reachable(self.path)
        require_bucket(self.path)
        at = locate(self.path)
        self._files, self._root = at.filesystem, at.path

    def prepare(self) -> bool:
        """See Destination. There are no folders."""
        return False

    def discard(self) -> None:
        """See Destination."""

    def entries(self) -> set[str]:
        """See Destination."""
        found = self._files.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        return {entry.base_name for entry in found if entry.base_name}

    def size(self, name: str) -> int | None:
        """See Destination."""
        about = self._files.get_file_info(self._at(name))
        return int(about.size) if about.type == fs.FileType.File else None

    def open(self, name: str) -> pa.NativeFile:
        """See Destination."""
        return self._files.open_input_file(self._at(name))

    def create(self, name: str) -> pa.NativeFile:
        """See Destination."""
        return self._files.open_output_stream(self._at(name), compression=None)

    def seal(self, name: str) -> None:
        """See Destination. What was closed is there."""

    def log(self, name: str, keep: int = 0) -> Log:
        """See Destination."""
        held = tempfile.TemporaryFile()  # noqa: SIM115  the log closes it
        if keep:
            with self.open(name) as old:
                held.write(old.read(keep))
        return _ObjectLog(self, name, held)

    def rename(self, old: str, new: str) -> None:
        """See Destination."""
        self._files.move(self._at(old), self._at(new))

    def remove(self, name: str) -> None:
        """See Destination."""
        if self.size(name) is not None:
            self._files.delete_file(self._at(name))

    def finish(self) -> None:
        """See Destination."""

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


class _ObjectLog:
    """Held in a temporary file here; every `sync` writes the whole object."""

    def __init__(self, bucket: Bucket, name: str, held: IO[bytes]) -> None:
        self._bucket, self._name, self._held = bucket, name, held

    def write(self, text: str) -> None:
        self._held.write(text.encode(errors="backslashreplace"))

    def tell(self) -> int:
        return self._held.tell()

    def sync(self) -> int:
        length = self._held.tell()
        self._held.seek(0)
        with self._bucket.create(self._name) as to:
            shutil.copyfileobj(self._held, to, _COPY_BYTES)
        return length

    def close(self) -> None:
        self._held.close()
