"""Two phases in one launch over logits [N, T, C]: for C beyond what the registers of one program hold.

A mean over the passes needs every pass's normaliser before its first class, so the logits are read twice: *slice* tasks
(a range of classes of one pass of a row) find maximum, normaliser and entropy; *block* tasks (a range of classes of all
passes of a row) add up the mean. The second read is to come from the L2 cache, so the blocks of a row follow its slices
after `lag` rows.

Tasks are handed out in one order by a ticket counter: the slices of the rows 0 .. lag-1, then in turn the slices of row
lag + g and the blocks of row g, then the blocks of the last rows. A slice never waits. A block waits until the last
slice of its row has published the passes; all those slices hold lower tickets, so programs that run already will finish
them: no deadlock, however few programs the device runs at a time. The last slice of a row joins its partial results,
the last block its scores, both in a fixed order, so the bits do not depend on who was last.
"""

from __future__ import annotations

import triton
import triton.language as tl

from poolscore.kernels.row_stats_triton_phases import block_means, join_blocks, join_slices, slice_moments


@triton.jit(do_not_specialize=["N", "offset", "stride_n", "stride_t", "lag"])
def softmax_two_phase(
    x_ptr,
    scores_ptr,
    prediction_ptr,
    confidence_ptr,
    finite_ptr,
    slice_ptr,
    slice_vote_ptr,
    pass_ptr,
    vote_ptr,
    row_ptr,
    block_ptr,
    index_ptr,
    counter_ptr,
    N,
    offset,
    stride_n,
    stride_t,
    stride_c,
    lag,
    T: tl.constexpr,
    C: tl.constexpr,
    S: tl.constexpr,
    SLICE: tl.constexpr,
    NB: tl.constexpr,
    P: tl.constexpr,
    V: tl.constexpr,
    K: tl.constexpr,
    UNIT: tl.constexpr,
    WANT_ENTROPY: tl.constexpr,
    WANT_EXPECTED: tl.constexpr,
    WANT_STD: tl.constexpr,
    WANT_VOTES: tl.constexpr,
    ACCURATE_BALD: tl.constexpr,
):
    """One task of N·(T·S + NB). counter_ptr: 1 + 3N zeros; the other pointers after finite_ptr are scratch."""
    slices_done_ptr = counter_ptr + 1
    passes_ready_ptr = slices_done_ptr + N
    blocks_done_ptr = passes_ready_ptr + N
    SLICES: tl.constexpr = T * S
    ticket = tl.atomic_add(counter_ptr, 1, sem="relaxed")
    head = lag * SLICES
    middle = (N - lag) * (SLICES + NB)
    if ticket < head:
        n = ticket // SLICES
        task = ticket % SLICES
    elif ticket < head + middle:
        n = (ticket - head) // (SLICES + NB)
        task = (ticket - head) % (SLICES + NB)
        if task < SLICES:
            n += lag
    else:
        n = N - lag + (ticket - head - middle) // NB
        task = SLICES + (ticket - head - middle) % NB
    row = tl.multiple_of(offset + n.to(tl.int64) * stride_n, V)

    if task < SLICES:
        start = row + tl.multiple_of((task // S).to(tl.int64) * stride_t, V)
        c0 = task % S * SLICE
        top, norm, product, first = slice_moments(x_ptr, start, c0, stride_c, C, SLICE, P, V, K, UNIT, WANT_VOTES)
        at = n.to(tl.int64) * SLICES + task
        tl.store(slice_ptr + at * 3, top)
        tl.store(slice_ptr + at * 3 + 1, norm)
        tl.store(slice_ptr + at * 3 + 2, product)
        if WANT_VOTES:
            tl.store(slice_vote_ptr + at, first)
        tl.debug_barrier()  # every thread's stores come before the count that publishes them
        if tl.atomic_add(slices_done_ptr + n, 1, sem="acq_rel") == SLICES - 1:
            join_slices(
                n.to(tl.int64), slice_ptr, slice_vote_ptr, pass_ptr, vote_ptr, row_ptr, T, C, S, WANT_VOTES
            )  # fmt: skip
            tl.debug_barrier()
            tl.atomic_xchg(passes_ready_ptr + n, 1, sem="release")
    else:
        b = task - SLICES
        while tl.atomic_add(passes_ready_ptr + n, 0, sem="acquire") == 0:
            pass
        best, second, index, mean_terms, deviation, divergence = block_means(
            x_ptr, row, b * (P * V * K), pass_ptr, n.to(tl.int64), stride_t, stride_c,
            T, C, P, V, K, UNIT, WANT_ENTROPY, WANT_STD, ACCURATE_BALD,
        )  # fmt: skip
        at = n.to(tl.int64) * NB + b
        tl.store(block_ptr + at * 5, best)
        tl.store(block_ptr + at * 5 + 1, second)
        tl.store(block_ptr + at * 5 + 2, mean_terms)
        tl.store(block_ptr + at * 5 + 3, deviation)
        tl.store(block_ptr + at * 5 + 4, divergence)
        tl.store(index_ptr + at, index)
        tl.debug_barrier()
        if tl.atomic_add(blocks_done_ptr + n, 1, sem="acq_rel") == NB - 1:
            join_blocks(
                n.to(tl.int64), block_ptr, index_ptr, row_ptr,
                scores_ptr, prediction_ptr, confidence_ptr, finite_ptr, N, T, C, NB,
                WANT_ENTROPY, WANT_EXPECTED, WANT_STD, WANT_VOTES, ACCURATE_BALD,
            )  # fmt: skip
