"""Reading many places at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from poolscore.engine.storage.filesystem import in_order


@pytest.mark.parametrize("at_once", [1, 4])
def test_what_is_read_at_once_comes_in_order(at_once: int) -> None:
    asked: list[int] = []

    def places() -> Iterator[int]:
        for i in range(10):
            asked.append(i)
            yield i

    found = in_order(lambda i: i * i, places(), at_once)
    assert next(found) == 0
    assert len(asked) == at_once  # no place is asked for before its turn
    assert list(found) == [i * i for i in range(1, 10)]
    assert not list(in_order(lambda i: i, [], at_once))


def test_as_many_are_read_at_once() -> None:
    meeting = threading.Barrier(4, timeout=30)
    assert list(in_order(lambda i: meeting.wait() >= 0, range(8), 4)) == [True] * 8


@pytest.mark.parametrize("at_once", [1, 4])
def test_an_error_is_that_of_the_first_place_that_fails(at_once: int) -> None:
    def fail(i: int) -> int:
        if i in (3, 5):
            raise OSError(i)
        return i

    found = in_order(fail, range(9), at_once)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="3"):
        next(found)
