"""Dropout masks and masked features, written by one Triton kernel. The masks are those of `dropout_mask_numpy.py`."""

from __future__ import annotations

import math

import triton
import triton.language as tl

THREADS = 128


@triton.jit
def keep_groups(seed, low, high, counter, group, threshold):
    """The eight decisions of each group, [..., G, 2, 2, 2] = word of a pair, pair, half: draw number in that order."""
    word_0, word_1, word_2, word_3 = tl.philox(seed, low, high, counter, group)
    words = tl.join(tl.join(word_0, word_2), tl.join(word_1, word_3))  # [..., i, j] is word 2i + j
    return tl.join(words & 0xFFFF, words >> 16) >= threshold


@triton.jit(do_not_specialize=["N", "passes", "first", "step", "stride_n", "seed", "layer", "threshold", "scale"])
def dropout_rows(
    out_ptr,
    x_ptr,
    key_ptr,
    N,
    passes,
    first,
    step,
    stride_n,
    seed,
    layer,
    threshold,
    scale,
    E: tl.constexpr,
    R: tl.constexpr,
    G: tl.constexpr,
    V: tl.constexpr,
    SHARED: tl.constexpr,
    MASK_ONLY: tl.constexpr,
):
    """Of R rows and G groups of eight elements, in all passes: out [N, T, E] = x [N, E] · keep · scale, or keep itself.

    V: how many elements of out and x are aligned together. SHARED: the masks of the row key of all ones.
    """
    pieces: tl.constexpr = (E + G * 8 - 1) // (G * 8)
    piece = tl.program_id(0) % pieces
    n_R = tl.program_id(0) // pieces * R + tl.arange(0, R)
    group = piece * G + tl.arange(0, G)[None, :]
    e = piece * G * 8 + tl.arange(0, G * 8)[None, :]
    ok = (n_R < N)[:, None] & (e < E)
    n_R = n_R.to(tl.int64)
    if SHARED:
        key = tl.full((R, 1), -1, tl.int64)
    else:
        key = tl.load(key_ptr + n_R, mask=n_R < N, other=0)[:, None]
    low = (key & 0xFFFFFFFF).to(tl.uint32)
    high = ((key >> 32) & 0xFFFFFFFF).to(tl.uint32)
    if not MASK_ONLY:
        x = tl.load(x_ptr + (tl.multiple_of(n_R * stride_n, V)[:, None] + e), mask=ok, other=0.0).to(tl.float32)
    for i in tl.range(passes):
        counter = tl.zeros((R, 1), tl.uint32) + ((layer << 16) | (first + i * step)).to(tl.uint32)
        keep = tl.reshape(keep_groups(seed, low, high, counter, group.to(tl.uint32), threshold), (R, G * 8))
        at = tl.multiple_of((n_R * passes + i) * E, V)[:, None] + e
        if MASK_ONLY:
            tl.store(out_ptr + at, keep, mask=ok)
        else:
            y = x * tl.where(keep, scale, 0.0)
            tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=ok)


def dropout_constants(E: int, itemsize: int, row_step: int) -> dict[str, int]:
    """How the kernel is cut, for E elements a row and features whose rows are row_step elements apart."""
    groups = min(triton.next_power_of_2(triton.cdiv(E, 8)), THREADS)
    return {"E": E, "G": groups, "R": THREADS // groups, "V": math.gcd(E, row_step, 16 // itemsize)}
