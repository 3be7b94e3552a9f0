"""Dropout masks: the contract's definition draw by draw, torch against numpy, and what must not change a mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poolscore.kernels.dropout_mask import _keep, dropout_scale, keep_mask
from poolscore.kernels.dropout_mask_numpy import keep_mask_numpy, keep_threshold
from poolscore.kernels.philox import philox_numpy

KEYS = np.array([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 0x0123456789ABCDEF], dtype=np.uint64)


def as_torch(keys: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(keys.view(np.int64))


def one_draw(seed: int, layer: int, t: int, element: int, key: int | None) -> int:
    """The 16-bit draw of one element, spelled out from the contract with Python integers."""
    low, high = (0xFFFFFFFF, 0xFFFFFFFF) if key is None else (key % 2**32, key // 2**32)
    words = [int(w) for w in philox_numpy(low, high, layer * 65536 + t, element // 8, seed=seed)]
    number = element % 8
    word = words[number // 2]
    return word // 65536 if number % 2 else word % 65536


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1 - 2**-18])
@pytest.mark.parametrize("seed", [0, 2**64 - 1, 0x123456789])
def test_definition(seed: int, p: float) -> None:
    layer, passes, elements = 3, range(65533, 65536), 19
    got = keep_mask(seed, layer, passes, elements, p, as_torch(KEYS))
    shared = keep_mask(seed, layer, passes, elements, p)
    for i, t in enumerate(passes):
        for e in range(elements):
            assert shared[i, e].item() == (one_draw(seed, layer, t, e, None) >= round(p * 65536))
            for n, key in enumerate(KEYS.tolist()):
                assert got[n, i, e].item() == (one_draw(seed, layer, t, e, key) >= round(p * 65536))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    layer=st.integers(0, 65535),
    first=st.integers(0, 65530),
    count=st.integers(0, 5),
    elements=st.integers(0, 70),
    p=st.floats(0, 1, exclude_max=True),
    keys=st.none() | st.lists(st.integers(0, 2**64 - 1), max_size=4),
)
def test_torch_equals_numpy(
    seed: int, layer: int, first: int, count: int, elements: int, p: float, keys: list[int] | None
) -> None:
    keys_N = None if keys is None else np.array(keys, dtype=np.uint64)
    passes = range(first, first + count)
    expected = keep_mask_numpy(seed, layer, passes, elements, p, keys_N)
    got = keep_mask(seed, layer, passes, elements, p, None if keys_N is None else as_torch(keys_N))
    assert got.dtype == torch.bool
    assert expected.dtype == np.bool_
    assert expected.shape == ((count, elements) if keys is None else (len(keys), count, elements))
    assert np.array_equal(got.numpy(), expected)


def test_pieces_equal_slices_of_the_whole() -> None:
    keys_N = as_torch(KEYS)
    whole = keep_mask(5, 2, range(20), 50, 0.3, keys_N)
    assert torch.equal(keep_mask(5, 2, range(7, 13), 50, 0.3, keys_N), whole[:, 7:13])
    assert torch.equal(keep_mask(5, 2, range(3, 20, 4), 50, 0.3, keys_N), whole[:, 3::4])
    assert torch.equal(keep_mask(5, 2, range(20), 21, 0.3, keys_N), whole[:, :, :21])  # a shorter feature shape
    shared = keep_mask(5, 2, range(20), 50, 0.3)
    assert torch.equal(keep_mask(5, 2, range(9, 10), 50, 0.3), shared[9:10])


def test_neighbours_order_and_a_grown_pool_do_not_matter() -> None:
    keys_N = as_torch(KEYS)
    mask = keep_mask(5, 2, range(4), 50, 0.3, keys_N)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    assert torch.equal(keep_mask(5, 2, range(4), 50, 0.3, keys_N[order]), mask[order])
    assert torch.equal(keep_mask(5, 2, range(4), 50, 0.3, keys_N[2:3]), mask[2:3])
    grown = torch.cat([torch.arange(100, 130), keys_N, torch.arange(9)])
    assert torch.equal(keep_mask(5, 2, range(4), 50, 0.3, grown)[30:37], mask)


def test_every_coordinate_changes_the_mask() -> None:
    base = keep_mask(5, 2, range(2), 256, 0.5, as_torch(KEYS))
    assert not torch.equal(base, keep_mask(6, 2, range(2), 256, 0.5, as_torch(KEYS)))
    assert not torch.equal(base, keep_mask(5 + 2**32, 2, range(2), 256, 0.5, as_torch(KEYS)))
    assert not torch.equal(base, keep_mask(5, 3, range(2), 256, 0.5, as_torch(KEYS)))
    masks = {bytes(row.numpy()) for row in base.reshape(-1, 256)}
    assert len(masks) == 2 * len(KEYS)
    shared = keep_mask(5, 2, range(2), 256, 0.5)
    assert [torch.equal(row, shared) for row in base] == [key == 2**64 - 1 for key in KEYS.tolist()]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_keep_rate(p: float) -> None:
    """Chi-square of the kept counts per pass, per element and per row: within four standard deviations (fixed seed)."""
    N, T, E = 64, 50, 64
    keep = keep_mask(11, 0, range(T), E, p, torch.arange(N)).double()
    q = 1 - p
    for dims, cells in (((0, 2), T), ((0, 1), E), ((1, 2), N)):
        draws = keep.numel() / cells
        chi_square = ((keep.sum(dims) - draws * q) ** 2 / (draws * p * q)).sum().item()
        assert abs(chi_square - cells) < 4 * (2 * cells) ** 0.5
    pairs = (keep[..., :-1] * keep[..., 1:]).mean().item()  # neighbouring elements are uncorrelated
    assert abs(pairs - q * q) < 0.006


@pytest.mark.parametrize("element", range(16))
def test_a_draw_at_the_threshold_is_kept(element: int) -> None:
    draw = one_draw(8, 1, 2, element, None)
    for p, kept in ((draw / 65536, True), ((draw + 1) / 65536, False)):
        assert keep_mask(8, 1, range(2, 3), 16, p)[0, element].item() is kept
        assert bool(keep_mask_numpy(8, 1, range(2, 3), 16, p)[0, element]) is kept


def test_comparison_of_whole_words() -> None:
    """The high half is compared without a shift; a low half of 0 is too rare for a random mask to show an error."""
    for word, threshold, low, high in ((5 << 16, 5, False, True), ((5 << 16) - 1, 5, True, False), (5, 5, True, False)):
        words = torch.full((4, 1), word)
        assert _keep((words[0], words[1], words[2], words[3]), threshold).tolist() == [low, high] * 4


def test_threshold_rounds_half_to_even() -> None:
    assert [keep_threshold(x / 65536) for x in (0.5, 1.5, 2.5, 2.51, 65535.5)] == [0, 2, 2, 3, 65536]


def test_scale_and_extremes() -> None:
    assert dropout_scale(0.0) == 1.0
    assert dropout_scale(0.75) == 4.0
    assert keep_mask(1, 0, range(3), 100, 0.0).all()
    assert keep_mask(1, 0, range(3), 100, 2**-18).all()
    assert not keep_mask(1, 0, range(3), 100, 1 - 2**-18).any()


@pytest.mark.parametrize("function", [keep_mask, keep_mask_numpy])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"layer": 65536}, "layer"),
        ({"layer": -1}, "layer"),
        ({"passes": range(65530, 65537)}, "passes"),
        ({"passes": range(-1, 3)}, "passes"),
        ({"elements": -1}, "elements"),
        ({"elements": 2**35 + 1}, "elements"),
        ({"p": 1.0}, "dropout p"),
        ({"p": -0.1}, "dropout p"),
        ({"p": float("nan")}, "dropout p"),
    ],
)
def test_refusals(function: object, change: dict[str, object], message: str) -> None:
    arguments = {"seed": 1, "layer": 0, "passes": range(2), "elements": 8, "p": 0.5} | change
    with pytest.raises(ValueError, match=message):
        function(**arguments)  # type: ignore[operator]


def test_refused_keys_and_scale() -> None:
    with pytest.raises(ValueError, match="int64"):
        keep_mask(1, 0, range(2), 8, 0.5, torch.zeros(3))
    with pytest.raises(ValueError, match="uint64"):
        keep_mask_numpy(1, 0, range(2), 8, 0.5, KEYS[None])
    with pytest.raises(ValueError, match="dropout p"):
        dropout_scale(1.0)


def test_empty_range_and_device() -> None:
    assert keep_mask(1, 0, range(5, 2), 8, 0.5).shape == (0, 8)
    keys_N = as_torch(KEYS)
    assert torch.equal(
        keep_mask(1, 0, range(2), 8, 0.5, keys_N, device="cpu"), keep_mask(1, 0, range(2), 8, 0.5, keys_N)
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_numpy() -> None:
    expected = keep_mask_numpy(2**64 - 1, 3, range(5), 1001, 0.3, KEYS)
    assert np.array_equal(keep_mask(2**64 - 1, 3, range(5), 1001, 0.3, as_torch(KEYS), device="cuda").cpu(), expected)
