"""The tasks of the two-phase kernel (`row_stats_triton_two_phase.py`), where C does not fit into one program.

A tile is [P, V]: P threads with V neighbouring classes each, K tiles at a time. `n` is int64.
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
    store_scores,
    top_two,
)

LOWEST_FLOAT = tl.constexpr(-3.4028234663852886e38)  # finite, so that differences of maxima are never NaN


@triton.jit
def load_tiles(
    x_ptr, start, c0, stride_c, C: tl.constexpr, P: tl.constexpr, V: tl.constexpr, K: tl.constexpr,
    UNIT: tl.constexpr,
):  # fmt: skip
    """K tiles of one pass from class c0 on, as float32; classes that do not exist are -inf."""
    if C % V == 0:
        return load_tiles_masked(x_ptr, start, c0, stride_c, C, P, V, K, UNIT, True)
    else:  # a mask that ends amid V classes would cut every load into single ones: use it only where C ends
        if c0 + P * V * K <= C:
            tiles = load_tiles_masked(x_ptr, start, c0, stride_c, C, P, V, K, UNIT, False)
        else:
            tiles = load_tiles_masked(x_ptr, start, c0, stride_c, C, P, V, K, UNIT, True)
        return tiles


@triton.jit
def load_tiles_masked(
    x_ptr, start, c0, stride_c, C: tl.constexpr, P: tl.constexpr, V: tl.constexpr, K: tl.constexpr, UNIT: tl.constexpr,
    MASK: tl.constexpr,
):  # fmt: skip
    """As `load_tiles`, with or without a look at where C ends."""
    tiles = ()
    for k in tl.static_range(K):
        c = c0 + k * P * V + tl.arange(0, P)[:, None] * V + tl.arange(0, V)[None, :]
        at = c
        if not UNIT:
            at = c.to(tl.int64) * stride_c
        if MASK:
            x_PV = tl.load(x_ptr + (start + at), mask=c < C, other=float("-inf"))
        else:
            x_PV = tl.load(x_ptr + (start + at))
        tiles = tiles + (x_PV.to(tl.float32),)
    return tiles


@triton.jit
def rescale(top, norm, product, new_top):
    """The sums of exp(z) and z·exp(z) for z relative to a larger maximum."""
    shift = tl.maximum(top - new_top, LOWEST, propagate_nan=tl.PropagateNan.ALL)
    factor = tl.exp2(shift * LOG2E)
    return norm * factor, tl.math.fma(norm, shift, product) * factor


@triton.jit
def slice_moments(
    x_ptr, start, c0, stride_c, C: tl.constexpr, SLICE: tl.constexpr, P: tl.constexpr, V: tl.constexpr,
    K: tl.constexpr, UNIT: tl.constexpr, WANT_VOTES: tl.constexpr,
):  # fmt: skip
    """Of the classes c0 .. c0 + SLICE of a pass: maximum, sum of exp(z), sum of z·exp(z), first class of the maximum.

    Each thread keeps its own until the end, so that the threads need not wait for each other in the loop.
    """
    top_P = tl.full((P,), LOWEST_FLOAT, tl.float32)
    norm_P = tl.zeros((P,), tl.float32)
    product_P = tl.zeros((P,), tl.float32)
    first_P = tl.full((P,), C, tl.int32)
    for i in tl.range(SLICE // (P * V * K)):
        c = c0 + i * (P * V * K)
        x = load_tiles(x_ptr, start, c, stride_c, C, P, V, K, UNIT)
        top_PV = x[0]
        for k in tl.static_range(1, K):
            top_PV = tl.maximum(top_PV, x[k])
        new_top_P = tl.maximum(top_P, tl.max(top_PV, 1))
        if WANT_VOTES:
            inside = c + tl.arange(0, P)[:, None] * V + tl.arange(0, V)[None, :]
            first_PV = tl.full((P, V), C, tl.int32)
            for k in tl.static_range(K - 1, -1, -1):
                first_PV = tl.where(x[k] == new_top_P[:, None], inside + k * P * V, first_PV)
            first_P = tl.minimum(tl.where(new_top_P > top_P, C, first_P), tl.min(first_PV, 1))
        norm_P, product_P = rescale(top_P, norm_P, product_P, new_top_P)
        norm_PV = tl.zeros((P, V), tl.float32)
        product_PV = tl.zeros((P, V), tl.float32)
        for k in tl.static_range(K):
            z_PV = tl.maximum(x[k] - new_top_P[:, None], LOWEST, propagate_nan=tl.PropagateNan.ALL)
            exp_PV = tl.exp2(z_PV * LOG2E)
            norm_PV = norm_PV + exp_PV
            product_PV = tl.math.fma(exp_PV, z_PV, product_PV)
        norm_P += tl.sum(norm_PV, 1)
        product_P += tl.sum(product_PV, 1)
        top_P = new_top_P
    top = tl.max(top_P, 0)
    norm_P, product_P = rescale(top_P, norm_P, product_P, top)
    return top, tl.sum(norm_P, 0), tl.sum(product_P, 0), tl.min(tl.where(top_P == top, first_P, C), 0)


@triton.jit
def join_slices(
    n, slice_ptr, slice_vote_ptr, pass_ptr, vote_ptr, row_ptr, T: tl.constexpr, C: tl.constexpr, S: tl.constexpr,
    WANT_VOTES: tl.constexpr,
):  # fmt: skip
    """From the slices of row n: its passes' maximum and 1/normaliser, the sum of their entropies, the modal votes."""
    BS: tl.constexpr = triton.next_power_of_2(S)
    BT: tl.constexpr = min(triton.next_power_of_2(T), max(1, 1024 // BS))
    s = tl.arange(0, BS)[None, :]
    entropy_T = tl.zeros((BT,), tl.float32)
    for step in tl.range((T + BT - 1) // BT):
        t_T = step * BT + tl.arange(0, BT)
        real_T = t_T < T
        ok_TS = real_T[:, None] & (s < S)
        at_TS = (n * T + t_T)[:, None] * S + s
        top_TS = tl.load(slice_ptr + at_TS * 3, mask=ok_TS, other=LOWEST_FLOAT)
        norm_TS = tl.load(slice_ptr + at_TS * 3 + 1, mask=ok_TS, other=0.0)
        product_TS = tl.load(slice_ptr + at_TS * 3 + 2, mask=ok_TS, other=0.0)
        top_T = tl.max(top_TS, 1)
        norm_TS, product_TS = rescale(top_TS, norm_TS, product_TS, top_T[:, None])
        norm_T = tl.where(real_T, tl.sum(norm_TS, 1), 1.0)
        scale_T = tl.where(norm_T > 0.0, 1.0 / norm_T, float("nan"))  # 0: every class is masked
        entropy_T += tl.math.fma(log2(norm_T), LN2, -tl.sum(product_TS, 1) * scale_T)
        tl.store(pass_ptr + (n * T + t_T) * 2, top_T, mask=real_T)
        tl.store(pass_ptr + (n * T + t_T) * 2 + 1, scale_T, mask=real_T)
        if WANT_VOTES:
            vote_TS = tl.load(slice_vote_ptr + at_TS, mask=ok_TS, other=C)
            vote_T = tl.min(tl.where(top_TS == top_T[:, None], vote_TS, C), 1)
            tl.store(vote_ptr + n * T + t_T, vote_T, mask=real_T)
    tl.store(row_ptr + n * 2, tl.sum(entropy_T, 0))
    if WANT_VOTES:
        tl.debug_barrier()  # the list was written by other threads of this program
        n_1 = n + tl.zeros((1,), tl.int64)
        most = tl.max(modal_votes(vote_ptr, n_1, n_1 == n, T), 0)
        tl.store(row_ptr + n * 2 + 1, most.to(tl.float32))


@triton.jit
def block_means(
    x_ptr, row, c0, pass_ptr, n, stride_t, stride_c, T: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
    V: tl.constexpr, K: tl.constexpr, UNIT: tl.constexpr, WANT_ENTROPY: tl.constexpr, WANT_STD: tl.constexpr,
    ACCURATE_BALD: tl.constexpr,
):  # fmt: skip
    """Of the classes c0 .. c0 + P·V·K of row n: largest mean, second, class of the largest, entropy, deviations, terms
    of an accurate BALD (`kl_terms.py`; a second run over the passes, which this program has just read).
    """
    totals, squares, means = (), (), ()
    for _ in tl.static_range(K):
        totals = totals + (tl.zeros((P, V), tl.float32),)
        if WANT_STD:
            squares = squares + (tl.zeros((P, V), tl.float32),)
        if ACCURATE_BALD:
            means = means + (tl.zeros((P, V), tl.float32),)
    for t in tl.range(T):
        top = tl.load(pass_ptr + (n * T + t) * 2)
        scale = tl.load(pass_ptr + (n * T + t) * 2 + 1)
        start = row + tl.multiple_of(tl.cast(t, tl.int64) * stride_t, V)
        x = load_tiles(x_ptr, start, c0, stride_c, C, P, V, K, UNIT)
        new_totals, new_squares, new_means = (), (), ()
        for k in tl.static_range(K):
            exp_PV = tl.exp2((x[k] - top) * LOG2E)
            total_PV = tl.math.fma(exp_PV, scale, totals[k])
            new_totals = new_totals + (total_PV,)
            if WANT_STD:
                new_squares = new_squares + (add_squares(squares[k], exp_PV, scale, total_PV, t),)
            if ACCURATE_BALD:
                new_means = new_means + (add_to_mean(means[k], exp_PV * scale, t),)
        totals, squares, means = new_totals, new_squares, new_means
    divergence_PV = tl.zeros((P, V), tl.float32)
    if ACCURATE_BALD:
        inverses = ()
        for k in tl.static_range(K):
            inverses = inverses + (inverse_of(means[k]),)
        for t in tl.range(T):
            top = tl.load(pass_ptr + (n * T + t) * 2)
            scale = tl.load(pass_ptr + (n * T + t) * 2 + 1)
            start = row + tl.multiple_of(tl.cast(t, tl.int64) * stride_t, V)
            x = load_tiles(x_ptr, start, c0, stride_c, C, P, V, K, UNIT)
            terms_PV = tl.zeros((P, V), tl.float32)
            for k in tl.static_range(K):
                exp_PV = tl.exp2((x[k] - top) * LOG2E)
                terms_PV += kl_terms(exp_PV * scale, means[k], inverses[k])
            divergence_PV += terms_PV
    mean_terms_PV = tl.zeros((P, V), tl.float32)
    deviation_PV = tl.zeros((P, V), tl.float32)
    best_PV = tl.full((P, V), -1.0, tl.float32)
    second_PV = tl.full((P, V), -1.0, tl.float32)
    index_PV = tl.full((P, V), C, tl.int32)
    for k in tl.static_range(K):
        c = c0 + k * P * V + tl.arange(0, P)[:, None] * V + tl.arange(0, V)[None, :]
        mean_PV = divide(totals[k], T)
        if WANT_ENTROPY:
            mean_terms_PV = entropy_terms(mean_terms_PV, mean_PV)
        if WANT_STD:
            deviation_PV += tl.sqrt(divide(squares[k], T))
        best_PV, second_PV, index_PV = top_two(best_PV, second_PV, index_PV, mean_PV, c, C)
    best = tl.max(best_PV)
    index = tl.min(tl.where(best_PV == best, index_PV, C))
    second = tl.max(tl.where(index_PV == index, second_PV, best_PV))
    return best, second, index, tl.sum(mean_terms_PV), tl.sum(deviation_PV), tl.sum(divergence_PV)


@triton.jit
def join_blocks(
    n, block_ptr, index_ptr, row_ptr, scores_ptr, prediction_ptr, confidence_ptr, finite_ptr, N, T: tl.constexpr,
    C: tl.constexpr, NB: tl.constexpr, WANT_ENTROPY: tl.constexpr, WANT_EXPECTED: tl.constexpr,
    WANT_STD: tl.constexpr, WANT_VOTES: tl.constexpr, ACCURATE_BALD: tl.constexpr,
):  # fmt: skip
    """The scores of row n from its blocks."""
    b = tl.arange(0, triton.next_power_of_2(NB))
    ok_B = b < NB
    at_B = n * NB + b
    best_B = tl.load(block_ptr + at_B * 5, mask=ok_B, other=-1.0)
    second_B = tl.load(block_ptr + at_B * 5 + 1, mask=ok_B, other=-1.0)
    mean_terms = tl.sum(tl.load(block_ptr + at_B * 5 + 2, mask=ok_B, other=0.0), 0)
    deviation = tl.sum(tl.load(block_ptr + at_B * 5 + 3, mask=ok_B, other=0.0), 0)
    divergence = tl.sum(tl.load(block_ptr + at_B * 5 + 4, mask=ok_B, other=0.0), 0)
    index_B = tl.load(index_ptr + at_B, mask=ok_B, other=C)
    best = tl.max(best_B, 0)
    index = tl.min(tl.where(best_B == best, index_B, C), 0)
    second = tl.max(tl.where(index_B == index, second_B, best_B), 0)
    expected = tl.load(row_ptr + n * 2)
    most = tl.load(row_ptr + n * 2 + 1)
    store_scores(
        scores_ptr, prediction_ptr, confidence_ptr, finite_ptr, N, n, n < N,
        mean_terms, expected, most, deviation, best, second, index, expected, divergence,
        T, C, WANT_ENTROPY, WANT_EXPECTED, WANT_STD, WANT_VOTES, ACCURATE_BALD,
    )  # fmt: skip
