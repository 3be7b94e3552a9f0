"""Dropout and repeat in one step, as plain torch does it; the Triton kernel is in test_dropout_mask_triton.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poolscore.kernels.dropout_mask_numpy import keep_mask_numpy
from poolscore.kernels.masked_repeat import masked_repeat

KEYS = np.array([3, 2**40, 2**64 - 1], dtype=np.uint64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keys", [None, KEYS])
def test_definition(keys: np.ndarray | None, dtype: torch.dtype) -> None:
    features_ND = torch.randn(3, 21, generator=torch.Generator().manual_seed(0)).to(dtype)
    keys_N = None if keys is None else torch.from_numpy(keys.view(np.int64))
    got = masked_repeat(features_ND, 9, 4, range(2, 6), 0.25, keys_N)
    keep = np.broadcast_to(keep_mask_numpy(9, 4, range(2, 6), 21, 0.25, keys), (3, 4, 21))
    assert got.dtype == dtype
    for n, t, d in np.ndindex(3, 4, 21):
        kept = (features_ND[n, d].float() * np.float32(1 / 0.75)).to(dtype)
        assert got[n, t, d] == (kept if keep[n, t, d] else 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features_ND": torch.zeros(3)}, "features"),
        ({"features_ND": torch.zeros(3, 4, dtype=torch.float64)}, "features"),
        ({"row_keys_N": torch.zeros(2, dtype=torch.int64)}, r"row keys must be int64 \[3\]"),
        ({"row_keys_N": torch.zeros(3)}, "row keys"),
        ({"layer": -1}, "layer"),
        ({"p": 1.0}, "dropout p"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    arguments = {"features_ND": torch.zeros(3, 4), "seed": 1, "layer": 0, "passes": range(2), "p": 0.5} | change
    with pytest.raises(ValueError, match=message):
        masked_repeat(**arguments)  # type: ignore[arg-type]
