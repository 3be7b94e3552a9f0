"""Soak of the two-phase kernel: does it ever hang, or give other bits?

    python benchmarks/soak_two_phase.py --seconds 60

Random shapes, lags and numbers of rows, beside matrix products on another stream that take processors away from it at
random moments. Every result must equal, bit for bit, the first one of its rows. A hang shows as a process that does not
end: `make gpu` gives it a deadline. `--device cpu` runs a little of it in Triton's interpreter. `--few` runs small
shapes once, for compute-sanitizer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

WANT = ("entropy", "expected_entropy", "bald", "variation_ratio", "mean_std", "least_confidence", "margin")
FEW_NTC = {"cuda": ((33, 3, 10), (5, 3, 1000), (3, 3, 9000), (3, 2, 65537)), "cpu": ((2, 1, 8200),)}
SHAPES_TC = {"cuda": ((20, 21841), (16, 128256), (1, 9000), (100, 8193), (3, 262144)), "cpu": ((1, 8200),)}


def soak(device: str, seconds: float) -> dict[str, float | int | bool]:
    """Rounds, rows and whether all bits were equal."""
    from poolscore.kernels.row_stats_triton import launch_softmax
    from poolscore.kernels.row_stats_triton_plan import Strides, softmax_plan

    draw = random.Random(0)
    rounds = rows = 0
    equal = True
    started = time.monotonic()
    while not rounds or time.monotonic() - started < seconds:
        T, C = draw.choice(SHAPES_TC[device])
        N = max(2, min(64, int(2e8 / (T * C)))) if device == "cuda" else 2
        dtype = draw.choice((torch.float32, torch.bfloat16))
        logits_NTC = torch.randn(N, T, C, device=device, generator=_generator(device, rounds)).mul_(4).to(dtype)
        plan = softmax_plan(T, C, Strides.of(logits_NTC), WANT)
        first = launch_softmax(logits_NTC, plan, WANT)
        for _ in range(20 if device == "cuda" else 1):
            start = draw.randrange(N)
            stop = draw.randint(start + 1, N)
            with _disturbed(device, draw):
                again = launch_softmax(logits_NTC[start:stop], plan, WANT, lag=draw.choice((1, 2, 7, 1000)))
            equal &= all(torch.equal(first.scores[name][start:stop], again.scores[name]) for name in WANT)
            equal &= torch.equal(first.prediction[start:stop], again.prediction)
            rows += stop - start
        rounds += 1
    return {"rounds": rounds, "rows": rows, "seconds": round(time.monotonic() - started, 1), "ok": equal}


def few(device: str) -> dict[str, float | int | bool]:
    """Both kernels of the softmax once, on shapes so small that a sanitizer gets through them."""
    from poolscore.kernels.row_stats_triton import launch_softmax
    from poolscore.kernels.row_stats_triton_plan import Strides, softmax_plan

    equal = True
    for N, T, C in FEW_NTC[device]:
        for dtype in (torch.float32, torch.bfloat16):
            logits_NTC = torch.randn(N, T, C, device=device, generator=_generator(device, 0)).to(dtype)
            plan = softmax_plan(T, C, Strides.of(logits_NTC), WANT)
            one, other = (launch_softmax(logits_NTC, plan, WANT) for _ in range(2))
            equal &= all(torch.equal(one.scores[name], other.scores[name]) for name in WANT)
    return {"shapes": len(FEW_NTC[device]), "ok": equal}


def _generator(device: str, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


@contextlib.contextmanager
def _disturbed(device: str, draw: random.Random) -> Iterator[None]:
    """Matrix products of a random size on another stream."""
    if device != "cuda":
        yield
        return
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        size = draw.choice((256, 1024, 4096))
        a: Tensor = torch.ones(size, size, device=device)
        for _ in range(draw.randrange(8)):
            a = a @ a * 0
    yield
    side.synchronize()


def main() -> int:
    """Prints what was found; 1: bits differ."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--few", action="store_true")
    given = arguments.parse_args()
    if given.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    found = few(given.device) if given.few else soak(given.device, given.seconds)
    print(json.dumps(found))
    return int(not found["ok"])


if __name__ == "__main__":
    sys.exit(main())
