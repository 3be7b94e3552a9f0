"""The Triton kernel of dropout masks and masked features, bit for bit against numpy and plain torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from triton_device import DEVICE, INTERPRETED, RUNS_TRITON

from poolscore.kernels.dropout_mask_numpy import keep_mask_numpy
from poolscore.kernels.dropout_mask_triton import keep_mask_triton, masked_repeat_triton
from poolscore.kernels.masked_repeat import masked_repeat_reference

pytestmark = RUNS_TRITON
KEYS = np.array([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 0x0123456789ABCDEF], dtype=np.uint64)

# The interpreter cuts float32 to bfloat16 where a GPU rounds.
DTYPES = (torch.float32, torch.float16) if INTERPRETED else (torch.float32, torch.float16, torch.bfloat16)


def keys_on_device(keys: np.ndarray = KEYS) -> torch.Tensor:
    return torch.from_numpy(keys.view(np.int64)).to(DEVICE)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63, 2**64 - 1, 0x123456789])
@pytest.mark.parametrize(
    ("layer", "passes", "elements", "p"),
    [
        (0, range(2), 16, 0.5),
        (3, range(65533, 65536), 19, 0.3),
        (65535, range(1, 8, 3), 1, 0.1),
        (7, range(1), 1031, 0.9),
        (1, range(2), 8, 0.0),
        (1, range(2), 8, 1 - 2**-18),
    ],
)
def test_masks_equal_numpy(seed: int, layer: int, passes: range, elements: int, p: float) -> None:
    independent = keep_mask_triton(seed, layer, passes, elements, p, keys_on_device(), DEVICE)
    assert independent.dtype == torch.bool
    assert np.array_equal(independent.cpu().numpy(), keep_mask_numpy(seed, layer, passes, elements, p, KEYS))
    shared = keep_mask_triton(seed, layer, passes, elements, p, None, DEVICE)
    assert np.array_equal(shared.cpu().numpy(), keep_mask_numpy(seed, layer, passes, elements, p))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("D", [1, 7, 16, 128, 1032])
def test_masked_features_equal_plain_torch(D: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(D)
    wide = torch.randn(7, 2 * D + 3, generator=generator).to(DEVICE, dtype)
    wide[3, 0] = float("nan")
    for features_ND in (wide[:, :D].contiguous(), wide[:, :D], wide[:, : 2 * D : 2], wide[4:5, 1 : D + 1]):
        for keys_N in (None, keys_on_device()[: len(features_ND)]):
            got = masked_repeat_triton(features_ND, 5, 2, range(3, 6), 0.4, keys_N)
            expected = masked_repeat_reference(features_ND, 5, 2, range(3, 6), 0.4, keys_N)
            assert got.shape == (len(features_ND), 3, D)
            assert got.dtype == dtype
            assert torch.equal(got.isnan(), expected.isnan())
            assert torch.equal(got.nan_to_num(nan=1.0), expected.nan_to_num(nan=1.0))


def test_nothing_to_write() -> None:
    assert keep_mask_triton(1, 0, range(0), 8, 0.5, None, DEVICE).shape == (0, 8)
    assert keep_mask_triton(1, 0, range(2), 0, 0.5, keys_on_device(), DEVICE).shape == (7, 2, 0)
    nothing = masked_repeat_triton(torch.zeros(0, 4, device=DEVICE), 1, 0, range(2), 0.5, None)
    assert nothing.shape == (0, 2, 4)
