"""The terms of an accurate BALD: mean_t KL(p_t || p̄), summed over terms of which none is negative and none cancels.

As a difference of two entropies BALD carries their rounding, about 1e-6 nats: of a row whose BALD is smaller, nothing
is known. Since p̄ is the mean of the p_t,

    BALD = mean_t sum_c p_tc ln(p_tc/p̄_c) = mean_t sum_c [p_tc ln(p_tc/p̄_c) - p_tc + p̄_c]

and each bracket is >= 0, about (p - p̄)²/(2p̄). What is left is the rounding of the p_t themselves, of relative size u:
a BALD of B nats has a relative error of about u/sqrt(B), and passes with the same bits give exactly 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_terms(p: Tensor, q: Tensor) -> Tensor:
    """p ln(p/q) - p + q >= 0, elementwise, with full relative accuracy at p near q too; p >= 0, and q > 0 where p > 0.

    With d = p - q and v = d/(p + q): ln(p/q) = 2 artanh v = 2 (v + v³/3 + v⁵/5 + …), so for small v the term is
    d·v + d·(1 + v)·(v²/3 + v⁴/5 + …). Source: Loader 2000, Fast and Accurate Computation of Binomial Probabilities.
    """
    tiny = torch.finfo(p.dtype).tiny
    d = p - q
    v = d / (p + q).clamp(min=tiny)
    square = v * v
    series = torch.zeros_like(v)
    for k in range(p.itemsize, 0, -1):  # |v| <= 1/8: as many terms as a number has bytes are enough for it
        series = (series + 1 / (2 * k + 1)) * square
    near = d * (v + (1 + v) * series)
    far = p * (p.clamp(min=tiny) / q.clamp(min=tiny)).log() - d
    return torch.where(v.abs() <= 0.125, near, far)
