"""Storage in memory that tells of each step before it is done: a test may wait there, count, or raise."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import BinaryIO

Tell = Callable[[str, str], None]


class MemoryStorage:
    """See Storage. Views of one memory have tellers of their own.

    Args:
        tell: called with the step (`publish`, `create`, `read`, `names`, `delete`) and the name.
    """

    root = "memory"
    at_once = 1

    def __init__(self, objects: dict[str, bytes] | None = None, tell: Tell = lambda step, name: None) -> None:
        self.objects = {} if objects is None else objects
        self._tell = tell

    def seen_by(self, tell: Tell) -> MemoryStorage:
        return MemoryStorage(self.objects, tell)

    def publish(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        file = io.BytesIO()
        fill(file)
        self._tell("publish", name)
        self.objects[name] = file.getvalue()

    def create(self, name: str, data: bytes) -> bool:
        self._tell("create", name)
        return self.objects.setdefault(name, data) is data

    def read(self, name: str) -> bytes:
        self._tell("read", name)
        try:
            return self.objects[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        return [self.read(name) for name in names]

    def names(self, folder: str) -> list[str]:
        self._tell("names", folder)
        start = f"{folder}/" if folder else ""
        below = {name[len(start) :].partition("/")[0] for name in self.objects if name.startswith(start)}
        return sorted(below)

    def leftovers(self, folder: str) -> list[str]:
        return []

    def delete(self, name: str) -> None:
        self._tell("delete", name)
        self.objects.pop(name, None)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def require_writable(self) -> None:
        pass
