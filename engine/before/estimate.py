"""What the whole pool will take: hours, GPU-hours, requests, and their price where the prices are known."""

from __future__ import annotations

from dataclasses import dataclass

from poolscore.engine.config import PricesConfig

GB = 1e9


@dataclass(frozen=True)
class Work:
    """What scoring the pool comes to, whoever does it."""

    rows: int
    rows_per_second: float  # of one worker
    cpu_seconds_per_row: float  # of one worker's process, all its threads
    requests: int  # to storage: reads of footers and row groups, writes of parts
    bytes: int  # read from storage, at most


@dataclass(frozen=True)
class Estimate:
    """For the whole pool. A price is None where its setting is missing or its amount unknown."""

    hours: float
    workers: int
    gpu_hours: float | None  # None: not measured on a GPU
    cpu_hours: float
    requests: int
    bytes: int
    prices: dict[str, float | None]  # by GPU, CPU, requests, egress

    @property
    def price(self) -> float | None:
        """The sum of the prices that are known; None if none is."""
        known = [price for price in self.prices.values() if price is not None]
        return sum(known) if known else None


def estimate(work: Work, workers: int, on_gpu: bool, prices: PricesConfig) -> Estimate:
    """Spread the work over workers of the kind that was measured."""
    hours = work.rows / work.rows_per_second / 3600 / workers
    gpu_hours = hours * workers if on_gpu else None
    cpu_hours = work.rows * work.cpu_seconds_per_row / 3600
    amounts = {
        "GPU": (gpu_hours, prices.gpu_hour),
        "CPU": (cpu_hours, prices.cpu_hour),
        "requests": (work.requests / 1000, prices.thousand_requests),
        "egress": (work.bytes / GB, prices.egress_gb),
    }
    return Estimate(
        hours=hours,
        workers=workers,
        gpu_hours=gpu_hours,
        cpu_hours=cpu_hours,
        requests=work.requests,
        bytes=work.bytes,
        prices={
            name: None if amount is None or price is None else amount * price
            for name, (amount, price) in amounts.items()
        },
    )
