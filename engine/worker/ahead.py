"""A stage of the pipeline on a thread of its own, with a budget of bytes for what waits to be taken."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """The items of a generator, in order, made by a thread before they are asked for. Close it, also after an error.

    Args:
        items: runs on the thread, and is closed there. What it raises is raised to whoever asks for the next item.
        budget: bytes that may wait; the next item is begun when one as large as the last has room. One may always wait.
        size: bytes of an item.
    """

    def __init__(self, items: Iterator[T], budget: int, size: Callable[[T], int], name: str) -> None:
        self.peak = 0  # bytes that waited at once
        self._items = items
        self._budget = budget
        self._size = size
        self._waiting: deque[tuple[T, int]] = deque()
        self._held = 0
        self._last = 0
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"poolscore-{name}", daemon=True)
        self._thread.start()

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if self._waiting:
                item, size = self._waiting.popleft()
                self._held -= size
                self._changed.notify_all()
                return item
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        """End the thread, after the item that it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._waiting.clear()

    def _run(self) -> None:
        try:
            while self._has_room():
                item = next(self._items)
                size = self._size(item)
                with self._changed:
                    self._waiting.append((item, size))
                    self._held += size
                    self._last = size
                    self.peak = max(self.peak, self._held)
                    self._changed.notify_all()
                del item
        except StopIteration:
            pass
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Waits for it; False: nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._waiting or self._held + self._last <= self._budget)
            return not self._closed
