"""Mean and predictive variance of outputs [N, T, D], or [N, T, 2D] with log-variances. See `row_stats_gaussian.py`.

A program owns R rows; the outputs are visited in pieces of B, a tile [R, B] at a time. The second run over the passes,
for the squares, finds them in the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from poolscore.kernels.row_stats_triton_ops import divide, exp


@triton.jit(do_not_specialize=["N", "offset", "stride_n", "stride_t", "stride_c"])
def gaussian(
    x_ptr,
    variance_ptr,
    prediction_ptr,
    finite_ptr,
    N,
    offset,
    stride_n,
    stride_t,
    stride_c,
    T: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    B: tl.constexpr,
    NOISE: tl.constexpr,
    WANT_VARIANCE: tl.constexpr,
):
    """variance [N], prediction [N, D], finite [N] of R rows."""
    n_R = tl.program_id(0) * R + tl.arange(0, R)
    row_ok_R = n_R < N
    n_R = n_R.to(tl.int64)
    row_R1 = (offset + n_R * stride_n)[:, None]
    variances_RB = tl.zeros((R, B), tl.float32)
    poison_RB = tl.zeros((R, B), tl.float32)  # 0 · inf and 0 · NaN are NaN
    for piece in tl.range((D + B - 1) // B):
        d_B = piece * B + tl.arange(0, B)[None, :]
        ok_RB = row_ok_R[:, None] & (d_B < D)
        at_RB = row_R1 + d_B.to(tl.int64) * stride_c
        total_RB = tl.zeros((R, B), tl.float32)
        noise_RB = tl.zeros((R, B), tl.float32)
        for t in tl.range(T):
            here_RB = at_RB + tl.cast(t, tl.int64) * stride_t
            y_RB = tl.load(x_ptr + here_RB, mask=ok_RB, other=0.0).to(tl.float32)
            total_RB += y_RB
            poison_RB += y_RB * 0.0
            if NOISE:
                log_at_RB = here_RB + tl.cast(D, tl.int64) * stride_c
                log_RB = tl.load(x_ptr + log_at_RB, mask=ok_RB, other=0.0).to(tl.float32)
                noise_RB += tl.where(ok_RB, exp(log_RB), 0.0)
                poison_RB += log_RB * 0.0
        mean_RB = divide(total_RB, T)
        tl.store(prediction_ptr + (n_R[:, None] * D + d_B), mean_RB, mask=ok_RB)
        poison_RB += mean_RB * 0.0
        squares_RB = tl.zeros((R, B), tl.float32)
        for t in tl.range(T):
            here_RB = at_RB + tl.cast(t, tl.int64) * stride_t
            y_RB = tl.load(x_ptr + here_RB, mask=ok_RB, other=0.0).to(tl.float32)
            squares_RB = tl.math.fma(y_RB - mean_RB, y_RB - mean_RB, squares_RB)
        variances_RB += divide(squares_RB, T)
        if NOISE:
            variances_RB += divide(noise_RB, T)
    variance_R = tl.sum(variances_RB, 1)
    poison_R = tl.sum(poison_RB, 1)
    if WANT_VARIANCE:
        tl.store(variance_ptr + n_R, variance_R, mask=row_ok_R)
        poison_R += variance_R * 0.0
    tl.store(finite_ptr + n_R, poison_R == 0.0, mask=row_ok_R)
