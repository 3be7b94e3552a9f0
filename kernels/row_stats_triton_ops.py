"""What the Triton kernels of the row statistics share: arithmetic, and how a row's results are stored.

Every product that is added uses `tl.math.fma` by name, and the kernels are compiled with fusion switched off, so that
the bits of a result do not hang on what a compiler version fuses.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LOG2E_REST = tl.constexpr(1.925962991126617e-08)  # log2 e less its float32
LN2 = tl.constexpr(0.6931471805599453)
LN2_OVER_2_23 = tl.constexpr(0.6931471805599453 / 2**23)
SMALLEST_NORMAL = tl.constexpr(1.1754943508222875e-38)
# exp(-1e30) is 0, and 0 · -1e30 is -0 where 0 · -inf would be NaN: masked classes then contribute nothing to p ln p.
LOWEST = tl.constexpr(-1e30)

# Rows of the score tensor [7, N] that the softmax and Bernoulli kernels fill.
ENTROPY = tl.constexpr(0)
EXPECTED_ENTROPY = tl.constexpr(1)
BALD = tl.constexpr(2)
VARIATION_RATIO = tl.constexpr(3)
MEAN_STD = tl.constexpr(4)
LEAST_CONFIDENCE = tl.constexpr(5)
MARGIN = tl.constexpr(6)


@triton.jit
def divide(x, by: tl.constexpr):
    """x / by, rounded correctly: a product with 1/by, then one step of Newton's method (Markstein 1990)."""
    reciprocal: tl.constexpr = 1.0 / by
    quotient = x * reciprocal
    return tl.math.fma(tl.math.fma(quotient, -1.0 * by, x), reciprocal, quotient)


@triton.jit
def log2(x):
    """log2 of a positive normal number, relative error below 2e-7, exact at 1. Half the instructions of `tl.log2`.

    x = 2^e · (1 + f) with f in [sqrt(1/2) - 1, sqrt(2) - 1]; log2(1 + f) is f times a polynomial fitted to it at
    Chebyshev nodes.
    """
    bits = x.to(tl.int32, bitcast=True)
    e = (bits - 0x3F3504F3) >> 23
    f = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
    y = tl.math.fma(f, 0.12614846229553223, -0.20742103457450867)
    y = tl.math.fma(f, y, 0.21566985547542572)
    y = tl.math.fma(f, y, -0.23892034590244293)
    y = tl.math.fma(f, y, 0.2879183292388916)
    y = tl.math.fma(f, y, -0.36070483922958374)
    y = tl.math.fma(f, y, 0.48091059923171997)
    y = tl.math.fma(f, y, -0.7213473320007324)
    y = tl.math.fma(f, y, 1.4426950216293335)
    return tl.math.fma(f, y, e.to(tl.float32))


@triton.jit
def log1p(x):
    """ln(1 + x) for -1 < x <= 1 with full relative accuracy (Kahan): what 1 + x rounds away is put back as a factor."""
    u = 1.0 + x
    return tl.where(u == 1.0, x, log2(u) * LN2 * (x / tl.where(u == 1.0, 1.0, u - 1.0)))


@triton.jit
def exp(x):
    """e^x with a relative error of a few 2^-24 for any x: the product with log2 e is carried in two words."""
    x = tl.maximum(x, LOWEST, propagate_nan=tl.PropagateNan.ALL)
    high = x * LOG2E
    low = tl.math.fma(x, LOG2E, -high) + x * LOG2E_REST
    power = tl.exp2(high)
    return tl.where(power * 0.0 == 0.0, tl.math.fma(power * low, LN2, power), power)


@triton.jit
def multiply_up(mantissa, exponent, factor):
    """A product of many factors >= 1 as mantissa · 2^(exponent - 127·count): one logarithm in the end, not one each."""
    bits = (mantissa * factor).to(tl.int32, bitcast=True)
    return ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True), exponent + (bits >> 23)


@triton.jit
def non_negative(x):
    """Clamp rounding noise below zero, and turn -0.0 into 0.0."""
    return tl.maximum(x, 0.0) + 0.0


@triton.jit
def entropy_terms(sum_bits, mean):
    """Add -p log2 p of mean probabilities; 0 log2 0 = 0."""
    return tl.math.fma(mean, -log2(tl.maximum(mean, SMALLEST_NORMAL)), sum_bits)


@triton.jit
def kl_terms(p, mean, inverse):
    """p ln(p/mean) - p + mean >= 0 with full relative accuracy at p near mean too; inverse: 1/mean, or large for 0.

    With ratio = p/mean = 2^e·(1 + f), f in [sqrt(1/2) - 1, sqrt(2) - 1], the term over mean is
    2^e·((1 + f) ln(1 + f) - f) + ratio·e·ln 2 + (1 - 2^e). For e = 0, f is (p - mean)/mean, where nothing cancels, and
    what follows the first product is 0. That is f² times a polynomial fitted to it at Chebyshev nodes.
    """
    ratio = tl.maximum(p * inverse, 1e-30)
    bits = ratio.to(tl.int32, bitcast=True)
    e_bits = (bits - 0x3F3504F3) & -0x800000
    f = tl.where(e_bits == 0, (p - mean) * inverse, (bits - e_bits).to(tl.float32, bitcast=True) - 1.0)
    y = tl.math.fma(f, -0.011080852709710598, 0.01966600865125656)
    y = tl.math.fma(f, y, -0.02443419210612774)
    y = tl.math.fma(f, y, 0.03324859216809273)
    y = tl.math.fma(f, y, -0.049968574196100235)
    y = tl.math.fma(f, y, 0.08333458006381989)
    y = tl.math.fma(f, y, -0.16666704416275024)
    y = tl.math.fma(f, y, 0.5)
    scale = (e_bits + 0x3F800000).to(tl.float32, bitcast=True)
    log_scale = e_bits.to(tl.float32) * LN2_OVER_2_23
    return mean * tl.math.fma(ratio, log_scale, tl.math.fma(scale, f * f * y, 1.0 - scale))


@triton.jit
def add_to_mean(mean, p, t):
    """The running mean with pass number t (from 0) added. The mean of equal numbers is that number, exactly."""
    return tl.math.fma(p - mean, 1.0 / (t + 1.0), mean)


@triton.jit
def inverse_of(mean):
    """1/mean, or large where a mean probability is 0 or subnormal: `kl_terms` is 0 for it all the same."""
    return 1.0 / tl.maximum(mean, SMALLEST_NORMAL)


@triton.jit
def add_squares(squares, exp, scale, total, t):
    """Sum of squared deviations from the running mean, with pass number t (from 0) of probability exp·scale added.

    total includes pass t. Youngs, Cramer 1971: += ((t + 1)·p - total)² / (t·(t + 1)). The running sum stays what it is
    without deviations, and nothing cancels as in mean p² - (mean p)².
    """
    y = tl.math.fma(exp, scale * (t + 1.0), -total)
    return tl.math.fma(y * y, 1.0 / tl.maximum((t + 1.0) * t, 1.0), squares)


@triton.jit
def top_two(best, second, index, mean, c, C: tl.constexpr):
    """Largest and second mean so far and the class of the largest; the lowest class wins a tie if c grows."""
    mean = tl.where(c < C, mean, -1.0)
    better = mean > best
    return tl.where(better, mean, best), tl.where(better, best, tl.maximum(second, mean)), tl.where(better, c, index)


@triton.jit
def modal_votes(votes_ptr, n_R, row_ok_R, T: tl.constexpr):
    """How often the most frequent of the T classes listed for each row n occurs, int32 [R]."""
    R: tl.constexpr = n_R.shape[0]
    PIECE: tl.constexpr = min(triton.next_power_of_2(T), max(512 // R, 32))  # of the list, held in registers
    most_R = tl.zeros((R,), tl.int32)
    for piece in tl.range((T + PIECE - 1) // PIECE):
        t = piece * PIECE + tl.arange(0, PIECE)[None, :]
        vote_RT = tl.load(votes_ptr + (n_R[:, None] * T + t), mask=row_ok_R[:, None] & (t < T), other=-1)
        count_RT = tl.zeros((R, PIECE), tl.int32)
        for other in tl.range(T):
            vote_R = tl.load(votes_ptr + (n_R * T + other), mask=row_ok_R, other=-2)
            count_RT += (vote_RT == vote_R[:, None]).to(tl.int32)
        most_R = tl.maximum(most_R, tl.max(count_RT, 1))
    return most_R


@triton.jit
def store_scores(
    scores_ptr, prediction_ptr, confidence_ptr, finite_ptr, N, n, ok, mean_terms, expected_sum, most, deviation,
    best, second, index, finite_sum, divergence, T: tl.constexpr, C: tl.constexpr, WANT_ENTROPY: tl.constexpr,
    WANT_EXPECTED: tl.constexpr, WANT_STD: tl.constexpr, WANT_VOTES: tl.constexpr, ACCURATE_BALD: tl.constexpr,
):  # fmt: skip
    """Everything about the rows n. mean_terms in bits, expected_sum and divergence in nats over the passes, deviation
    over classes.

    finite_sum is NaN for a row that is not finite.
    """
    score_ptr = scores_ptr + n
    S = N.to(tl.int64)
    if WANT_ENTROPY:
        entropy = non_negative(mean_terms * LN2)
        tl.store(score_ptr + ENTROPY * S, entropy, mask=ok)
    if WANT_EXPECTED:
        expected = non_negative(divide(expected_sum, T))
        tl.store(score_ptr + EXPECTED_ENTROPY * S, expected, mask=ok)
    if ACCURATE_BALD:
        tl.store(score_ptr + BALD * S, divide(divergence, T), mask=ok)
    elif WANT_ENTROPY and WANT_EXPECTED:
        tl.store(score_ptr + BALD * S, non_negative(entropy - expected), mask=ok)
    if WANT_VOTES:
        tl.store(score_ptr + VARIATION_RATIO * S, divide(T - most.to(tl.float32), T), mask=ok)
    if WANT_STD:
        tl.store(score_ptr + MEAN_STD * S, divide(deviation, C), mask=ok)
    tl.store(score_ptr + LEAST_CONFIDENCE * S, non_negative(1.0 - best), mask=ok)
    tl.store(score_ptr + MARGIN * S, non_negative(1.0 - (best - second)), mask=ok)
    tl.store(prediction_ptr + n, index.to(tl.int64), mask=ok)
    tl.store(confidence_ptr + n, best, mask=ok)
    tl.store(finite_ptr + n, finite_sum == finite_sum, mask=ok)
