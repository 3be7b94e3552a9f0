"""One pass over logits [N, T, C] with all classes of a row in registers: for C up to a few thousand.

A program owns R rows and visits their passes in order. The classes are cut into K blocks of B, each a tensor [R, B];
the blocks are unrolled, so C needs no padding to a power of two. With C <= 16 a thread owns a row (B = 1, K = C): no
value ever crosses threads, and U consecutive passes are read at once, because a single pass is shorter than 16 bytes or
not aligned to them. Wider rows share the lanes of a warp, the widest several warps. V is the width of a load.

Per class and pass: maximum, difference, clamp, exp2, and one fused multiply-add each for normaliser, entropy and mean.

ACCURATE_BALD needs the mean before the first of its terms (`kl_terms.py`): a second run over the passes reads them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from poolscore.kernels.row_stats_triton_ops import (
    LN2,
    LOG2E,
    LOWEST,
    add_squares,
    add_to_mean,
    divide,
    entropy_terms,
    inverse_of,
    kl_terms,
    log2,
    modal_votes,
    multiply_up,
    store_scores,
    top_two,
)


@triton.jit
def unpack(x_RV, V: tl.constexpr):
    """The V columns [R] of [R, V] in order, as a tuple. A thread holds whole rows, so nothing moves."""
    if V == 1:
        return (tl.reshape(x_RV, [x_RV.shape[0]]),)
    else:  # what follows a return is compiled all the same
        even_RV, odd_RV = tl.split(tl.reshape(x_RV, [x_RV.shape[0], V // 2, 2]))
        evens = unpack(even_RV, V // 2)
        odds = unpack(odd_RV, V // 2)
        columns = ()
        for i in tl.static_range(V // 2):
            columns = columns + (evens[i], odds[i])
        return columns


@triton.jit
def load_passes(
    x_ptr, start_R, row_ok_R, stride_c, C: tl.constexpr, U: tl.constexpr, B: tl.constexpr, K: tl.constexpr,
    V: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The logits of U passes as float32, a tuple of U·K tensors [R, B]. Classes that do not exist are -inf."""
    blocks = ()
    if B == 1 and V > 1:
        v = tl.arange(0, V)[None, :]
        for i in tl.static_range(U * K // V):
            x_RV = tl.load(x_ptr + (start_R[:, None] + (i * V + v)), mask=row_ok_R[:, None], other=0.0)
            columns = unpack(x_RV.to(tl.float32), V)
            for j in tl.static_range(V):
                blocks = blocks + (columns[j][:, None],)
    else:
        for k in tl.static_range(K):
            c = k * B + tl.arange(0, B)[None, :]
            ok_RB = row_ok_R[:, None]
            if (k + 1) * B > C:
                ok_RB = ok_RB & (c < C)
            if not UNIT:
                c = c.to(tl.int64) * stride_c
            x_RB = tl.load(x_ptr + (start_R[:, None] + c), mask=ok_RB, other=float("-inf"))
            blocks = blocks + (x_RB.to(tl.float32),)
    return blocks


@triton.jit
def softmax(x, u: tl.constexpr, K: tl.constexpr):
    """Of pass u of those in x: the maximum [R, 1], z = x - maximum and e^z as tuples of K blocks, their sum [R]."""
    top_RB = x[u * K]
    for k in tl.static_range(1, K):
        top_RB = tl.maximum(top_RB, x[u * K + k])
    top_R1 = tl.max(top_RB, 1)[:, None]
    norm_RB = tl.zeros(top_RB.shape, tl.float32)
    zs, exps = (), ()
    for k in tl.static_range(K):
        z_RB = tl.maximum(x[u * K + k] - top_R1, LOWEST, propagate_nan=tl.PropagateNan.ALL)
        exp_RB = tl.exp2(z_RB * LOG2E)
        norm_RB = norm_RB + exp_RB
        zs = zs + (z_RB,)
        exps = exps + (exp_RB,)
    return top_R1, zs, exps, tl.sum(norm_RB, 1)


@triton.jit(do_not_specialize=["N", "offset", "stride_n", "stride_t"])
def softmax_one_pass(
    x_ptr,
    scores_ptr,
    prediction_ptr,
    confidence_ptr,
    finite_ptr,
    votes_ptr,
    N,
    offset,
    stride_n,
    stride_t,
    stride_c,
    T: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    U: tl.constexpr,
    B: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    UNIT: tl.constexpr,
    WANT_ENTROPY: tl.constexpr,
    WANT_EXPECTED: tl.constexpr,
    WANT_STD: tl.constexpr,
    WANT_VOTES: tl.constexpr,
    LIST_VOTES: tl.constexpr,
    ACCURATE_BALD: tl.constexpr,
):
    """scores [7, N], prediction, confidence, finite [N] of R rows; votes [N, T] is scratch if LIST_VOTES."""
    COUNT_VOTES: tl.constexpr = WANT_VOTES and not LIST_VOTES
    n_R = tl.program_id(0) * R + tl.arange(0, R)
    row_ok_R = n_R < N
    n_R = n_R.to(tl.int64)
    row_R = tl.multiple_of(offset + n_R * stride_n, V)
    c_B = tl.arange(0, B)[None, :]
    totals, squares, votes, means = (), (), (), ()
    for _ in tl.static_range(K):
        totals = totals + (tl.zeros((R, B), tl.float32),)
        if WANT_STD:
            squares = squares + (tl.zeros((R, B), tl.float32),)
        if COUNT_VOTES:
            votes = votes + (tl.zeros((R, B), tl.int32),)
        if ACCURATE_BALD:
            means = means + (tl.zeros((R, B), tl.float32),)
    entropy_RB = tl.zeros((R, B), tl.float32)  # sum over the passes of the mean of z
    mantissa_R = tl.full((R,), 1.0, tl.float32)  # product over the passes of the normalisers
    exponent_R = tl.zeros((R,), tl.int32)
    scale_sum_R = tl.zeros((R,), tl.float32)  # NaN if any pass is not finite

    for step in tl.range(T // U):
        start_R = row_R + tl.multiple_of(tl.cast(step * U, tl.int64) * stride_t, V)
        x = load_passes(x_ptr, start_R, row_ok_R, stride_c, C, U, B, K, V, UNIT)
        for u in tl.static_range(U):
            t = step * U + u
            top_R1, zs, exps, norm_R = softmax(x, u, K)
            if WANT_VOTES:
                first_RB = tl.full((R, B), C, tl.int32)
                for k in tl.static_range(K - 1, -1, -1):
                    first_RB = tl.where(x[u * K + k] == top_R1, k * B + c_B, first_RB)
                first_R1 = tl.min(first_RB, 1)[:, None]
                if LIST_VOTES:
                    tl.store(votes_ptr + (n_R * T + t)[:, None], first_R1, mask=row_ok_R[:, None])
            scale_R = 1.0 / norm_R
            scale_sum_R += scale_R
            if WANT_EXPECTED:
                product_RB = tl.zeros((R, B), tl.float32)
                for k in tl.static_range(K):
                    product_RB = tl.math.fma(exps[k], zs[k], product_RB)
                entropy_RB = tl.math.fma(product_RB, scale_R[:, None], entropy_RB)
                mantissa_R, exponent_R = multiply_up(mantissa_R, exponent_R, norm_R)
            new_totals, new_squares, new_votes, new_means = (), (), (), ()
            for k in tl.static_range(K):
                total_RB = tl.math.fma(exps[k], scale_R[:, None], totals[k])
                new_totals = new_totals + (total_RB,)
                if WANT_STD:
                    new_squares = new_squares + (add_squares(squares[k], exps[k], scale_R[:, None], total_RB, t),)
                if COUNT_VOTES:
                    new_votes = new_votes + (votes[k] + (first_R1 == k * B + c_B).to(tl.int32),)
                if ACCURATE_BALD:
                    new_means = new_means + (add_to_mean(means[k], exps[k] * scale_R[:, None], t),)
            totals, squares, votes, means = new_totals, new_squares, new_votes, new_means

    divergence_RB = tl.zeros((R, B), tl.float32)
    if ACCURATE_BALD:
        inverses = ()
        for k in tl.static_range(K):
            inverses = inverses + (inverse_of(means[k]),)
        for step in tl.range(T // U):
            start_R = row_R + tl.multiple_of(tl.cast(step * U, tl.int64) * stride_t, V)
            x = load_passes(x_ptr, start_R, row_ok_R, stride_c, C, U, B, K, V, UNIT)
            for u in tl.static_range(U):
                top_R1, zs, exps, norm_R = softmax(x, u, K)
                scale_R = 1.0 / norm_R
                terms_RB = tl.zeros((R, B), tl.float32)
                for k in tl.static_range(K):
                    terms_RB += kl_terms(exps[k] * scale_R[:, None], means[k], inverses[k])
                divergence_RB += terms_RB

    mean_terms_RB = tl.zeros((R, B), tl.float32)
    deviation_RB = tl.zeros((R, B), tl.float32)
    best_RB = tl.full((R, B), -1.0, tl.float32)
    second_RB = tl.full((R, B), -1.0, tl.float32)
    index_RB = tl.full((R, B), C, tl.int32)
    most_RB = tl.zeros((R, B), tl.int32)
    for k in tl.static_range(K):
        mean_RB = divide(totals[k], T)
        if WANT_ENTROPY:
            mean_terms_RB = entropy_terms(mean_terms_RB, mean_RB)
        if WANT_STD:
            deviation_RB += tl.sqrt(divide(squares[k], T))
        if COUNT_VOTES:
            most_RB = tl.maximum(most_RB, votes[k])
        best_RB, second_RB, index_RB = top_two(best_RB, second_RB, index_RB, mean_RB, k * B + c_B, C)
    best_R = tl.max(best_RB, 1)
    index_R = tl.min(tl.where(best_RB == best_R[:, None], index_RB, C), 1)
    second_R = tl.max(tl.where(index_RB == index_R[:, None], second_RB, best_RB), 1)
    expected_R = (log2(mantissa_R) + (exponent_R - T * 127).to(tl.float32)) * LN2 - tl.sum(entropy_RB, 1)
    most_R = tl.max(most_RB, 1)
    if LIST_VOTES:
        tl.debug_barrier()  # the list was written by other threads of this program
        most_R = modal_votes(votes_ptr, n_R, row_ok_R, T)
    store_scores(
        scores_ptr, prediction_ptr, confidence_ptr, finite_ptr, N, n_R, row_ok_R,
        tl.sum(mean_terms_RB, 1), expected_R, most_R, tl.sum(deviation_RB, 1), best_R, second_R, index_R, scale_sum_R,
        tl.sum(divergence_RB, 1), T, C, WANT_ENTROPY, WANT_EXPECTED, WANT_STD, WANT_VOTES, ACCURATE_BALD,
    )  # fmt: skip
