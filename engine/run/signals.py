"""Ctrl-C and SIGTERM while something starts that must not be left half-way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def signals_after() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block. Ray puts its own handler for SIGTERM in place while it
    starts, which would end the process at once, and an interruption half-way would leave its processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: received.append(number)) for number in signals]
    try:
        yield
    except SystemExit:  # Ray's handler
        received.append(signal.SIGTERM)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt
