"""Dropout masks as data: the same for every row (`shared`) or each row's own (`independent`).

Masks are functions of seed, layer, pass and element (and the row's key): see `kernels/dropout_mask.py`. They do not
depend on batch, shard or worker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from poolscore.engine.model.dropout import ALPHA, DropoutLayer
from poolscore.kernels.dropout_mask import dropout_scale, keep_mask

Affine = tuple[Tensor, Tensor | None]  # factor and offset, each [1 or N, T, *layer.shape]


class Masks(Protocol):
    """Where the answers to dropout calls come from."""

    bytes: int  # memory that is kept

    def affine(self, layer: int, row_keys_N: Tensor, passes: range) -> Affine:
        """What a dropout call does to the given rows in the given passes: x → x·factor + offset."""


class SharedMasks:
    """T masks a layer, for all rows: T fixed sub-networks. Made once."""

    def __init__(self, layers: Sequence[DropoutLayer], seed: int, passes: int, device: torch.device) -> None:
        self.passes = passes
        self._affine = {
            layer.index: _affine(
                layer, keep_mask(seed, layer.index, range(passes), layer.elements, layer.p, device=device)[None]
            )
            for layer in layers
        }
        tensors = [tensor for pair in self._affine.values() for tensor in pair if tensor is not None]
        self.bytes = sum(tensor.nbytes for tensor in tensors)

    def affine(self, layer: int, row_keys_N: Tensor, passes: range) -> Affine:
        """See Masks."""
        factor, offset = self._affine[layer]
        piece = slice(passes.start, passes.stop)
        return factor[:, piece], None if offset is None else offset[:, piece]


class IndependentMasks:
    """A mask for each row and pass, keyed by the row's key. Made when it is used."""

    def __init__(self, layers: Sequence[DropoutLayer], seed: int) -> None:
        self._layers = {layer.index: layer for layer in layers}
        self._seed = seed
        self.bytes = 0

    def affine(self, layer: int, row_keys_N: Tensor, passes: range) -> Affine:
        """See Masks."""
        of = self._layers[layer]
        keep = keep_mask(self._seed, of.index, passes, of.elements, of.p, row_keys_N, device=row_keys_N.device)
        return _affine(of, keep)


class DropAll:
    """Masks that drop everything, to see whether dropout reaches the output."""

    bytes = 0

    def __init__(self, layers: Sequence[DropoutLayer], device: torch.device) -> None:
        self._layers = {layer.index: layer for layer in layers}
        self._device = device

    def affine(self, layer: int, row_keys_N: Tensor, passes: range) -> Affine:
        """See Masks."""
        of = self._layers[layer]
        return torch.zeros(1, len(passes), *of.shape, dtype=of.dtype, device=self._device), None


def _affine(layer: DropoutLayer, keep_NTE: Tensor) -> Affine:
    """Dropout: x·keep/(1−p). Alpha dropout (Klambauer et al. 2017): a·(x·keep − α(1−keep)) + a·α·p."""
    keep = keep_NTE.reshape(*keep_NTE.shape[:2], *layer.shape).to(layer.dtype)
    if "alpha" not in layer.kind:
        return keep.mul_(dropout_scale(layer.p)), None
    a = 1.0 / math.sqrt((ALPHA**2 * layer.p + 1.0) * (1.0 - layer.p))
    return keep * a, (keep - 1.0) * (ALPHA * a) + ALPHA * a * layer.p
