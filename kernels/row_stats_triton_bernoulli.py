"""Independent sigmoids over logits [N, T, L]: one (binary) or one per label (multilabel). See `row_stats_bernoulli.py`.

A program owns R rows; the labels are visited in pieces of B, a tile [R, B] at a time, and each piece's passes in order.
With a = |z| and e = exp(-a), the smaller of p and 1 - p is e/(1 + e) and the entropy is ln(1 + e) + a·e/(1 + e).
"""

from __future__ import annotations

import triton
import triton.language as tl

from poolscore.kernels.row_stats_triton_ops import (
    BALD,
    ENTROPY,
    EXPECTED_ENTROPY,
    LEAST_CONFIDENCE,
    LN2,
    MARGIN,
    MEAN_STD,
    SMALLEST_NORMAL,
    VARIATION_RATIO,
    add_squares,
    add_to_mean,
    divide,
    exp,
    inverse_of,
    kl_terms,
    log1p,
    log2,
    non_negative,
    top_two,
)

HIGHEST = tl.constexpr(1e30)  # stands for |±inf|: exp(-1e30) is 0, and 1e30 · 0 is 0 where inf · 0 would be NaN


@triton.jit
def sigmoid(z):
    """p, 1 - p and the entropy of one pass, all with full relative accuracy."""
    a = tl.minimum(tl.abs(z), HIGHEST, propagate_nan=tl.PropagateNan.ALL)
    e = exp(-a)
    larger = 1.0 / (1.0 + e)
    smaller = e * larger
    entropy = tl.math.fma(a, smaller, log1p(e))
    return tl.where(z > 0, larger, smaller), tl.where(z > 0, smaller, larger), entropy


@triton.jit
def gather_labels(so_far, value, ok, TAKE_MAX: tl.constexpr):
    """Sum or maximum over the pieces of the labels of values >= 0."""
    value = tl.where(ok, value, 0.0)
    if TAKE_MAX:
        return tl.maximum(so_far, value)
    else:
        return so_far + value


@triton.jit
def over_labels(value_RB, TAKE_MAX: tl.constexpr):
    """Sum or maximum over the labels of a tile."""
    if TAKE_MAX:
        return tl.max(value_RB, 1)
    else:
        return tl.sum(value_RB, 1)


@triton.jit(do_not_specialize=["N", "offset", "stride_n", "stride_t", "stride_c"])
def bernoulli(
    x_ptr,
    scores_ptr,
    prediction_ptr,
    confidence_ptr,
    finite_ptr,
    N,
    offset,
    stride_n,
    stride_t,
    stride_c,
    T: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    B: tl.constexpr,
    BINARY: tl.constexpr,
    TAKE_MAX: tl.constexpr,
    ACCURATE_BALD: tl.constexpr,
):
    """scores [7, N] (all that the task has), prediction, confidence, finite [N] of R rows."""
    n_R = tl.program_id(0) * R + tl.arange(0, R)
    row_ok_R = n_R < N
    n_R = n_R.to(tl.int64)
    row_R1 = (offset + n_R * stride_n)[:, None]
    entropies_RB = tl.zeros((R, B), tl.float32)
    expecteds_RB = tl.zeros((R, B), tl.float32)
    balds_RB = tl.zeros((R, B), tl.float32)
    deviations_RB = tl.zeros((R, B), tl.float32)
    poison_RB = tl.zeros((R, B), tl.float32)  # NaN if any logit is
    best_RB = tl.full((R, B), -1.0, tl.float32)
    second_RB = tl.full((R, B), -1.0, tl.float32)
    index_RB = tl.full((R, B), C, tl.int32)
    p_RB, rest_RB, small_RB = poison_RB, poison_RB, poison_RB  # of the last piece: binary has one
    votes_RB = tl.zeros((R, B), tl.int32)
    for piece in tl.range((C + B - 1) // B):
        c_B = piece * B + tl.arange(0, B)[None, :]
        ok_RB = row_ok_R[:, None] & (c_B < C)
        p_RB = tl.zeros((R, B), tl.float32)
        rest_RB = tl.zeros((R, B), tl.float32)
        expected_RB = tl.zeros((R, B), tl.float32)
        squares_RB = tl.zeros((R, B), tl.float32)
        mean_p_RB = tl.zeros((R, B), tl.float32)
        mean_rest_RB = tl.zeros((R, B), tl.float32)
        votes_RB = tl.zeros((R, B), tl.int32)
        for t in tl.range(T):
            at_RB = row_R1 + tl.cast(t, tl.int64) * stride_t + c_B.to(tl.int64) * stride_c
            z_RB = tl.load(x_ptr + at_RB, mask=ok_RB, other=0.0).to(tl.float32)
            pass_p_RB, pass_rest_RB, entropy_RB = sigmoid(z_RB)
            expected_RB += entropy_RB
            p_RB += pass_p_RB
            rest_RB += pass_rest_RB
            squares_RB = add_squares(squares_RB, pass_p_RB, 1.0, p_RB, t)
            if ACCURATE_BALD:
                mean_p_RB = add_to_mean(mean_p_RB, pass_p_RB, t)
                mean_rest_RB = add_to_mean(mean_rest_RB, pass_rest_RB, t)
            votes_RB += (z_RB > 0).to(tl.int32)
        poison_RB += expected_RB
        p_RB = divide(p_RB, T)
        rest_RB = divide(rest_RB, T)
        expected_RB = divide(expected_RB, T)
        small_RB = tl.minimum(p_RB, rest_RB)
        log_RB = log2(tl.maximum(small_RB, SMALLEST_NORMAL)) * LN2
        entropy_RB = non_negative(-(small_RB * log_RB + tl.maximum(p_RB, rest_RB) * log1p(-small_RB)))
        entropies_RB = gather_labels(entropies_RB, entropy_RB, ok_RB, TAKE_MAX)
        expecteds_RB = gather_labels(expecteds_RB, expected_RB, ok_RB, TAKE_MAX)
        bald_RB = non_negative(entropy_RB - expected_RB)
        if ACCURATE_BALD:  # a second run over the passes finds them in the cache
            bald_RB = tl.zeros((R, B), tl.float32)
            inverse_p_RB = inverse_of(mean_p_RB)
            inverse_rest_RB = inverse_of(mean_rest_RB)
            for t in tl.range(T):
                at_RB = row_R1 + tl.cast(t, tl.int64) * stride_t + c_B.to(tl.int64) * stride_c
                z_RB = tl.load(x_ptr + at_RB, mask=ok_RB, other=0.0).to(tl.float32)
                pass_p_RB, pass_rest_RB, _ = sigmoid(z_RB)
                terms_RB = kl_terms(pass_p_RB, mean_p_RB, inverse_p_RB)
                bald_RB += terms_RB + kl_terms(pass_rest_RB, mean_rest_RB, inverse_rest_RB)
            bald_RB = divide(bald_RB, T)
        balds_RB = gather_labels(balds_RB, bald_RB, ok_RB, TAKE_MAX)
        deviations_RB = gather_labels(deviations_RB, tl.sqrt(divide(squares_RB, T)), ok_RB, False)
        best_RB, second_RB, index_RB = top_two(best_RB, second_RB, index_RB, p_RB, c_B, C)

    score_ptr = scores_ptr + n_R
    S = N.to(tl.int64)
    tl.store(score_ptr + ENTROPY * S, over_labels(entropies_RB, TAKE_MAX), mask=row_ok_R)
    tl.store(score_ptr + EXPECTED_ENTROPY * S, over_labels(expecteds_RB, TAKE_MAX), mask=row_ok_R)
    tl.store(score_ptr + BALD * S, over_labels(balds_RB, TAKE_MAX), mask=row_ok_R)
    tl.store(score_ptr + MEAN_STD * S, divide(tl.sum(deviations_RB, 1), C), mask=row_ok_R)
    best_R = tl.max(best_RB, 1)
    index_R = tl.min(tl.where(best_RB == best_R[:, None], index_RB, C), 1)
    if BINARY:
        small_R = tl.sum(small_RB, 1)
        large_R = tl.sum(tl.maximum(p_RB, rest_RB), 1)
        votes_R = tl.sum(votes_RB, 1)
        ratio_R = divide(tl.minimum(votes_R, T - votes_R).to(tl.float32), T)
        tl.store(score_ptr + VARIATION_RATIO * S, ratio_R, mask=row_ok_R)
        tl.store(score_ptr + LEAST_CONFIDENCE * S, small_R, mask=row_ok_R)
        tl.store(score_ptr + MARGIN * S, 2.0 * small_R, mask=row_ok_R)
        index_R = (tl.sum(p_RB, 1) > tl.sum(rest_RB, 1)).to(tl.int32)
        best_R = large_R
    tl.store(prediction_ptr + n_R, index_R.to(tl.int64), mask=row_ok_R)
    tl.store(confidence_ptr + n_R, best_R, mask=row_ok_R)
    poison_R = tl.sum(poison_RB, 1)
    tl.store(finite_ptr + n_R, poison_R == poison_R, mask=row_ok_R)
