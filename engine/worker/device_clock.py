"""Points in the work of a device, and the time between them, without waiting for the device."""

from __future__ import annotations

import time
from typing import Any

import torch

Mark = Any  # seconds on the host's clock, or an event of a CUDA stream


class DeviceClock:
    """Of one device. A CPU has done its work when it returns; a GPU is asked with events."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def mark(self) -> Mark:
        """Now; on a GPU: when all that was queued so far is done, or now if nothing is queued."""
        if not self._cuda:
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self, mark: Mark) -> None:
        """Until the device has reached the mark."""
        if self._cuda:
            mark.synchronize()

    def seconds(self, start: Mark, end: Mark) -> float:
        """Between two marks that the device has reached."""
        return float(start.elapsed_time(end) / 1e3 if self._cuda else end - start)
