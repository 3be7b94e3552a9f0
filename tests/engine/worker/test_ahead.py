"""A stage on its own thread: order, budget, errors, and an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from poolscore.engine.worker.ahead import Ahead


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("poolscore")]


def size(item: int) -> int:
    return 10


def test_items_come_in_order_and_the_thread_ends() -> None:
    ahead = Ahead(iter(range(100)), 30, size, "test")
    assert list(ahead) == list(range(100))
    assert list(ahead) == []  # still at its end
    ahead.close()
    assert our_threads() == []


def test_no_more_waits_than_the_budget_allows() -> None:
    ahead = Ahead(iter(range(100)), 30, size, "test")
    deadline = time.monotonic() + 5
    while ahead.peak < 30 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert ahead.peak == 30
    assert [next(ahead) for _ in range(100)] == list(range(100))
    assert ahead.peak == 30
    ahead.close()


def test_one_item_may_wait_however_large() -> None:
    ahead = Ahead(iter(range(3)), 5, size, "test")
    assert list(ahead) == [0, 1, 2]
    assert ahead.peak == 10
    ahead.close()


def test_an_error_comes_after_what_was_made_before_it_and_comes_again() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("torn")

    ahead = Ahead(failing(), 100, size, "test")
    assert next(ahead) == 1
    for _ in range(2):
        with pytest.raises(OSError, match="torn"):
            next(ahead)
    ahead.close()
    assert our_threads() == []


def test_a_consumer_that_leaves_ends_the_thread_and_closes_the_generator() -> None:
    closed: list[bool] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    ahead = Ahead(endless(), 30, size, "test")
    next(ahead)
    ahead.close()
    ahead.close()
    assert (closed, our_threads()) == ([True], [])
