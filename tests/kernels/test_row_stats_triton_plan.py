"""How the Triton kernels are chosen and cut: a pure function, tested without running them."""

from __future__ import annotations

import pytest
import torch

from poolscore.kernels.row_stats_triton_one_pass import softmax_one_pass
from poolscore.kernels.row_stats_triton_plan import (
    NARROW,
    ONE_PROGRAM,
    Strides,
    bernoulli_plan,
    gaussian_plan,
    softmax_plan,
)
from poolscore.kernels.row_stats_triton_two_phase import softmax_two_phase

BF16, FP32 = torch.bfloat16, torch.float32


def plan_of(logits_NTC: torch.Tensor, want: tuple[str, ...] = ("bald",)) -> dict[str, int]:
    T, C = logits_NTC.shape[1:]
    plan = softmax_plan(T, C, Strides.of(logits_NTC), want)
    return plan.constants | {"rows": plan.rows, "num_warps": plan.num_warps}


@pytest.mark.parametrize("layout", ["NTC", "TNC"])
@pytest.mark.parametrize("C", [1, 10, 16, 17, 100, 512, 513, 1000, ONE_PROGRAM, ONE_PROGRAM + 8])
@pytest.mark.parametrize("T", [1, 4, 20])
@pytest.mark.parametrize("dtype", [BF16, FP32])
def test_the_number_of_rows_and_a_slice_of_them_change_nothing(T: int, C: int, dtype: torch.dtype, layout: str) -> None:
    def logits(N: int) -> torch.Tensor:
        if layout == "NTC":
            return torch.empty(N, T, C, dtype=dtype)
        return torch.empty(T, N, C, dtype=dtype).transpose(0, 1)

    views = (logits(1), logits(3), logits(7)[2:3], logits(7)[5:], logits(300)[1:], logits(3)[2].unsqueeze(0))
    plans = [plan_of(view) for view in views]
    if C <= NARROW:  # how many passes a thread loads at once has no influence on the bits
        plans = [plan | {"U": 0, "V": 0} for plan in plans]
    assert all(plan == plans[0] for plan in plans)


@pytest.mark.parametrize("C", [1, 2, 3, 7, 10, 15, 16, 17, 31, 33, 100, 257, 512, 513, 600, 1000, 4097, ONE_PROGRAM])
@pytest.mark.parametrize("dtype", [BF16, FP32])
def test_blocks_hold_every_class_and_threads_few(C: int, dtype: torch.dtype) -> None:
    for T in (1, 6, 20):
        c = plan_of(torch.empty(2, T, C, dtype=dtype))
        assert c["K"] * c["B"] >= C > (c["K"] - 1) * c["B"]
        assert T % c["U"] == 0
        assert c["U"] * C % c["V"] == 0 or c["U"] == 1
        assert c["R"] * c["B"] == 32 * c["num_warps"] * (c["V"] if c["B"] > 1 else 1)  # no lane without work
        if c["B"] > 1:
            assert c["K"] * c["V"] <= 32 + c["V"]
        assert c["V"] * dtype.itemsize <= 16


def test_loads_are_as_wide_as_the_strides_allow() -> None:
    def width(logits_NTC: torch.Tensor) -> int:
        return plan_of(logits_NTC)["V"] * logits_NTC.itemsize

    assert width(torch.empty(9, 20, 1000, dtype=BF16)) == 16
    assert width(torch.empty(9, 20, 1000)) == 16
    assert width(torch.empty(9, 20, 1001)) == 4
    assert width(torch.empty(9, 20, 1008)[..., :1001]) == 16  # padded rows
    assert width(torch.empty(9, 20, 1008)[..., 1:1001]) == 4  # shifted: no row starts at 16 bytes
    assert width(torch.empty(9, 20, 1002)) == 8
    assert width(torch.empty(9, 20, 2000)[..., ::2]) == 4
    # Narrow rows: passes that follow one another are read together, two of 40 bytes or four of 20.
    assert plan_of(torch.empty(9, 20, 10))["U"] == 2
    assert plan_of(torch.empty(9, 20, 10, dtype=BF16))["U"] == 4
    assert width(torch.empty(9, 20, 10, dtype=BF16)) == 16
    assert width(torch.empty(20, 9, 10, dtype=BF16).transpose(0, 1)) == 4
    assert width(torch.empty(9, 7, 10)) == 8  # passes are odd in number
    assert width(torch.empty(9, 20, 21848)[..., :21841]) == 16


def test_kernels_and_flags() -> None:
    strides = Strides.of(torch.empty(2, 20, 10))
    assert softmax_plan(20, ONE_PROGRAM, strides, ()).kernel is softmax_one_pass
    large = softmax_plan(20, 128256, strides, ())
    assert large.kernel is softmax_two_phase
    c = large.constants
    assert c["S"] * c["SLICE"] >= 128256 > (c["S"] - 1) * c["SLICE"]
    assert c["SLICE"] % (c["P"] * c["V"] * c["K"]) == 0
    assert c["NB"] * c["P"] * c["V"] * c["K"] >= 128256
    assert large.tasks == 20 * c["S"] + c["NB"]
    names = ("WANT_ENTROPY", "WANT_EXPECTED", "WANT_STD", "WANT_VOTES", "LIST_VOTES")

    def flags(C: int, T: int, *want: str) -> list[bool]:
        return [bool(softmax_plan(T, C, strides, want).constants[name]) for name in names]

    assert flags(10, 20) == [False] * 5
    assert flags(10, 20, "bald") == [True, True, False, False, False]
    assert flags(10, 20, "entropy", "mean_std") == [True, False, True, False, False]
    assert flags(10, 20, "expected_entropy", "variation_ratio") == [False, True, False, True, False]
    assert flags(17, 32, "variation_ratio")[4]
    assert not flags(17, 33, "variation_ratio")[4]
    assert flags(513, 1000, "variation_ratio")[4]


def test_an_accurate_bald() -> None:
    """It needs no entropies. Its lanes hold at most 16 classes, whatever is wanted: the bits of a score follow them."""
    strides = Strides.of(torch.empty(2, 20, 1000))

    def plan(*want: str) -> dict[str, int]:
        chosen = softmax_plan(20, 1000, strides, want, accurate_bald=True)
        return chosen.constants | {"num_warps": chosen.num_warps}

    names = ("ACCURATE_BALD", "WANT_ENTROPY", "WANT_EXPECTED")
    assert [plan("bald")[name] for name in names] == [True, False, False]
    assert [plan("bald", "entropy")[name] for name in names] == [True, True, False]
    assert [plan("margin")[name] for name in names] == [False, False, False]
    for want in ((), ("bald",)):
        assert plan(*want)["num_warps"] == 2
        assert plan(*want)["K"] * plan(*want)["V"] == 16
    assert not softmax_plan(20, 1000, strides, ("bald",)).constants["ACCURATE_BALD"]
    assert bernoulli_plan(20, 5, False, True, True).constants["ACCURATE_BALD"]


def test_other_tasks() -> None:
    assert (bernoulli_plan(20, 1, True, False).rows, bernoulli_plan(20, 5, False, True).rows) == (128, 16)
    assert bernoulli_plan(20, 300, False, False).rows == 1
    assert (gaussian_plan(20, 1, False, True).rows, gaussian_plan(20, 1000, True, True).rows) == (128, 1)
