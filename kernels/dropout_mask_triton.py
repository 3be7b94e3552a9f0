"""Launches the dropout kernel. Arguments are not checked here; see `dropout_mask.keep_mask` and `masked_repeat.py`."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from poolscore.kernels.dropout_mask_numpy import DRAWS, dropout_scale, keep_threshold
from poolscore.kernels.dropout_mask_triton_kernel import THREADS, dropout_constants, dropout_rows


def keep_mask_triton(
    seed: int, layer: int, passes: range, elements: int, p: float, row_keys_N: Tensor | None, device: torch.device
) -> Tensor:
    """See `dropout_mask.keep_mask`: bool [N, T, E], or [T, E] for shared masks, contiguous."""
    N = 1 if row_keys_N is None else len(row_keys_N)
    keep_NTE = torch.empty((N, len(passes), elements), dtype=torch.bool, device=device)
    _launch(keep_NTE, None, row_keys_N, seed, layer, passes, p)
    return keep_NTE[0] if row_keys_N is None else keep_NTE


def masked_repeat_triton(
    features_ND: Tensor, seed: int, layer: int, passes: range, p: float, row_keys_N: Tensor | None
) -> Tensor:
    """See `masked_repeat.masked_repeat`."""
    N, D = features_ND.shape
    out_NTD = torch.empty((N, len(passes), D), dtype=features_ND.dtype, device=features_ND.device)
    if D > 1 and features_ND.stride(1) != 1:
        features_ND = features_ND.contiguous()
    _launch(out_NTD, features_ND, row_keys_N, seed, layer, passes, p)
    return out_NTD


def _launch(
    out_NTE: Tensor, x_NE: Tensor | None, row_keys_N: Tensor | None, seed: int, layer: int, passes: range, p: float
) -> None:
    N, T, E = out_NTE.shape
    if out_NTE.numel() == 0:
        return
    stride_n = 0 if x_NE is None or N == 1 else x_NE.stride(0)
    cut = dropout_constants(E, out_NTE.itemsize, stride_n)
    signed_seed = seed - (1 << 64) if seed >= 1 << 63 else seed  # the same 64 bits
    grid = (triton.cdiv(N, cut["R"]) * triton.cdiv(E, cut["G"] * DRAWS),)
    with torch.cuda.device_of(out_NTE):
        dropout_rows[grid](
            out_NTE,
            out_NTE if x_NE is None else x_NE,
            out_NTE if row_keys_N is None else row_keys_N.contiguous(),
            N, T, passes.start, passes.step, stride_n, signed_seed, layer, keep_threshold(p), dropout_scale(p),
            **cut, SHARED=row_keys_N is None, MASK_ONLY=x_NE is None, num_warps=THREADS // 32,
        )  # fmt: skip
