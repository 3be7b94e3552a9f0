"""Dropout and repeating the features T times in one step: each of the T copies of a row is written once, masked.

The masks are those of `dropout_mask.py`, so the result is bit for bit what multiplying with them gives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poolscore.kernels.dropout_mask import keep_mask
from poolscore.kernels.dropout_mask_numpy import check_coordinates, dropout_scale
from poolscore.kernels.triton_devices import runs_triton


def masked_repeat(
    features_ND: Tensor, seed: int, layer: int, passes: range, p: float, row_keys_N: Tensor | None = None
) -> Tensor:
    """T copies of each row after dropout: [N, T, D] = features · keep / (1 - p), computed in float32, in their dtype.

    Args:
        features_ND: float32, bfloat16 or float16, D the feature shape at the model's full length, flattened.
        seed, layer, passes, p: see `dropout_mask.keep_mask`.
        row_keys_N: int64 [N] with the bits of the uint64 row keys, for masks that differ by row; None for shared masks.

    Raises:
        ValueError: an argument is out of range, or features and keys do not fit.
    """
    check_coordinates(seed, layer, passes, features_ND.shape[-1])
    if features_ND.ndim != 2 or features_ND.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(
            f"features must be float32, bfloat16 or float16 [N, D], got {features_ND.dtype} {list(features_ND.shape)}"
        )
    if row_keys_N is not None and (row_keys_N.dtype != torch.int64 or row_keys_N.shape != features_ND.shape[:1]):
        raise ValueError(
            f"row keys must be int64 [{len(features_ND)}], got {row_keys_N.dtype} {list(row_keys_N.shape)}"
        )
    if runs_triton(features_ND.device):
        from poolscore.kernels.dropout_mask_triton import masked_repeat_triton

        return masked_repeat_triton(features_ND, seed, layer, passes, p, row_keys_N)
    return masked_repeat_reference(features_ND, seed, layer, passes, p, row_keys_N)


def masked_repeat_reference(
    features_ND: Tensor, seed: int, layer: int, passes: range, p: float, row_keys_N: Tensor | None = None
) -> Tensor:
    """`masked_repeat` in plain torch, on any device: the specification."""
    keep_NTD = keep_mask(seed, layer, passes, features_ND.shape[1], p, row_keys_N, device=features_ND.device)
    factor_NTD = keep_NTD.float() * dropout_scale(p)
    return (features_ND[:, None].float() * factor_NTD).to(features_ND.dtype)
