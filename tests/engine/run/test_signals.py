"""Signals wait while Ray starts."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from poolscore.engine.run.signals import signals_after


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_ray_starts_waits_until_it_has_started(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    reached = False
    with pytest.raises(KeyboardInterrupt), signals_after():
        os.kill(os.getpid(), number)
        reached = True
    assert reached
    assert signal.getsignal(number) is before


def test_rays_own_handler_does_not_end_the_process() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), signals_after():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(signal.SIGTERM))  # as ray.init does
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_nothing_happens_without_a_signal() -> None:
    with signals_after():
        pass
