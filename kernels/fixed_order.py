"""Reductions whose result for a row does not depend on the rows beside it, bit for bit.

A library's float sum picks its order from the shape, the strides and the number of threads: the same row may differ in
the last bit alone and in a batch. Here every float addition is an elementwise one, in an order fixed by the length of
the reduced dimension. For the same reason the score formulas use only +, -, ×, /, sqrt, exp, log and log1p elementwise:
torch's CPU `sigmoid` and `softplus` round differently in a vector's body and in its tail.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def upcast_passes(logits_NTC: Tensor) -> Iterator[Tensor]:
    """The T passes [N, C] one by one, float64 for float64, else float32. Views where possible: not to be written."""
    dtype = torch.float64 if logits_NTC.dtype == torch.float64 else torch.float32
    return (logits_NTC[:, t].to(dtype) for t in range(logits_NTC.shape[1]))


def sum_last(x: Tensor) -> Tensor:
    """Sum over the last dimension (at least 1) by folding it in half: error of order log2(C), not C. Shape [...]."""
    width = x.shape[-1]
    if width == 1:
        return x[..., 0]
    half = (width + 1) // 2
    folded = x[..., :half].clone()
    folded[..., : width - half] += x[..., half:]
    while half > 1:
        width, half = half, (half + 1) // 2
        folded[..., : width - half] += folded[..., half:width]
    return folded[..., 0]


def first_argmax(x_NC: Tensor) -> Tensor:
    """Index of the maximum, the lowest on ties, on every device. int64 [N]; some valid index for a row with NaN."""
    last = x_NC.shape[-1] - 1
    index_C = torch.arange(last + 1, dtype=torch.int32, device=x_NC.device)
    return torch.where(x_NC == x_NC.amax(-1, keepdim=True), index_C, last).amin(-1).to(torch.int64)


def non_negative(x: Tensor) -> Tensor:
    """Clamp rounding noise below zero, and turn -0.0 into 0.0, so that equal scores have equal bits. NaN stays."""
    return x.clamp(min=0.0) + 0.0
