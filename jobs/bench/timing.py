"""The timing harness: what is compared runs in turn, medians are reported, device work is timed with events."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved_ms(
    contestants: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 3, device: str = "cpu"
) -> dict[str, list[float]]:
    """Milliseconds of each call, `repeats` for each contestant, taken in turn: A B C A B C …

    Args:
        contestants: name → function; each does the same work on its own inputs.
        warm_up: calls of each that are not counted.
        device: "cuda" times with events on the current stream, anything else with the host's clock.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warm_up + repeats):
        for name, function in contestants.items():
            elapsed = _cuda_ms(function) if device == "cuda" else _host_ms(function)
            if turn >= warm_up:
                times[name].append(elapsed)
    return times


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each contestant."""
    return {name: statistics.median(values) for name, values in times.items()}


def _host_ms(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1e3


def _cuda_ms(function: Callable[[], object]) -> float:
    """The device's time. It sleeps for about a millisecond first, so that the host has launched all when it starts."""
    torch.cuda._sleep(2_000_000)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    function()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))
