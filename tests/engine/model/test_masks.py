"""Masks as data: what dropout does to a row, drawn by the contract's definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dropout_nets import CPU, SELU_ALPHA, keys_of
from hypothesis import given, settings
from hypothesis import strategies as st

from poolscore.engine.model.dropout import DropoutLayer
from poolscore.engine.model.masks import IndependentMasks, SharedMasks
from poolscore.kernels.dropout_mask_numpy import keep_mask_numpy

LAYERS = [
    DropoutLayer(0, "a", "element", 0.5, 0, 1, (7,)),
    DropoutLayer(1, "b", "feature", 0.25, 0, 1, (5,)),
    DropoutLayer(2, "c", "alpha", 0.3, 1, 2, (3, 2, 4)),
    DropoutLayer(3, "d", "feature_alpha", 0.1, 0, 3, (3, 2)),
    DropoutLayer(4, "e", "attention", 0.2, 0, 1, (2, 3, 3)),
    DropoutLayer(5, "f", "element", 0.4, 0, 1, ()),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.kind)
@pytest.mark.parametrize("piece", [range(6), range(2, 5), range(5, 6)])
def test_definition(layer: DropoutLayer, piece: range) -> None:
    keys, seed = keys_of(3), 2**63 + 5
    shared = SharedMasks(LAYERS, seed, 6, CPU).affine(layer.index, keys, piece)
    own = IndependentMasks(LAYERS, seed).affine(layer.index, keys, piece)
    for (factor, offset), row_keys in ((shared, None), (own, keys.numpy().view(np.uint64))):
        bits = keep_mask_numpy(seed, layer.index, piece, math.prod(layer.shape), layer.p, row_keys)
        kept = torch.from_numpy(bits.reshape(1 if row_keys is None else 3, len(piece), *layer.shape).copy())
        assert factor.dtype == torch.float32
        if "alpha" in layer.kind:
            a = ((1 - layer.p) * (1 + layer.p * SELU_ALPHA**2)) ** -0.5
            assert offset is not None
            dropped = torch.full_like(factor, a * -SELU_ALPHA * (1 - layer.p))  # a·(−α') + a·p·α'
            torch.testing.assert_close(factor, kept * a)
            torch.testing.assert_close(offset, torch.where(kept, a * layer.p * SELU_ALPHA, dropped))
        else:
            assert offset is None
            torch.testing.assert_close(factor, kept / (1 - layer.p))


@pytest.mark.parametrize("p", [0.05, 0.3, 0.8])
def test_alpha_keeps_mean_and_variance(p: float) -> None:
    """Klambauer et al. 2017: of inputs with mean 0 and variance 1; over the draws, by their probabilities."""
    layer = DropoutLayer(0, "", "alpha", p, 0, 1, (4096,))
    factor, offset = SharedMasks([layer], 0, 16, CPU).affine(0, keys_of(1), range(16))
    assert offset is not None
    kept = factor > 0
    a, b = factor[kept][0].double(), offset[kept][0].double()
    dropped = offset[~kept][0].double()
    mean = (1 - p) * b + p * dropped
    variance = (1 - p) * (a**2 + b**2) + p * dropped**2 - mean**2
    assert mean.abs() < 1e-6
    assert (variance - 1).abs() < 1e-6


@settings(max_examples=20, deadline=None)
@given(p=st.floats(1e-6, 0.999), passes=st.integers(1, 9), elements=st.integers(1, 40))
def test_factors_are_zero_or_one_over_keep(p: float, passes: int, elements: int) -> None:
    layer = DropoutLayer(0, "", "element", p, 0, 1, (elements,))
    factor, _ = IndependentMasks([layer], 3).affine(0, keys_of(2), range(passes))
    assert set(factor.unique().tolist()) <= {0.0, np.float32(1 / (1 - p)).item()}


def test_layers_and_passes_and_rows_differ() -> None:
    layers = [DropoutLayer(i, "", "element", 0.5, 0, 1, (64,)) for i in range(2)]
    masks = IndependentMasks(layers, 0)
    drawn = torch.stack([masks.affine(i, keys_of(3), range(3))[0] for i in range(2)]).flatten(0, 2)
    assert len(drawn.unique(dim=0)) == 2 * 3 * 3
