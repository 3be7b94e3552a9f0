"""The seam to storage: objects under one root, each written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import BinaryIO, Protocol

from poolscore.engine.errors import StoppedError


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
