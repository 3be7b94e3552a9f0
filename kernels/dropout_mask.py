"""The dropout masks of the contract in torch, on any device; defined in `dropout_mask_numpy.py`, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

from poolscore.kernels.dropout_mask_numpy import DRAWS, check_coordinates, check_rate, dropout_scale, keep_threshold
from poolscore.kernels.philox import WORD
from poolscore.kernels.philox_torch import philox_torch
from poolscore.kernels.triton_devices import runs_triton

__all__ = ["dropout_scale", "keep_mask"]


def keep_mask(
    seed: int,
    layer: int,
    passes: range,
    elements: int,
    p: float,
    row_keys_N: Tensor | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Which elements dropout keeps; multiply what is kept by `dropout_scale(p)`.

    Shapes: N rows, T passes, E elements, G groups of eight elements. On a GPU with Triton one kernel writes the mask.
    Elsewhere about 8 bytes per element are held besides the result while it is made (Philox words as int64); cut N or T
    where that is too much, the bits stay the same.

    Args:
        seed: 64 bits.
        layer: ordinal of the live dropout call in execution order, below 65536.
        passes: absolute pass indices t, below 65536; a piece of the passes gives that piece of the whole mask.
        elements: E, size of the feature shape at the model's full length, flattened.
        p: probability of dropping, 0 <= p < 1.
        row_keys_N: int64 [N] with the bits of the uint64 row keys, for masks that differ by row; None for shared masks.
        device: of the result; by default that of `row_keys_N`, else the CPU.

    Returns:
        bool [N, T, E], or [T, E] for shared masks. Where E is no multiple of 8 it is a view of a wider tensor.

    Raises:
        ValueError: an argument is out of range, or keys that are not int64 [N].
    """
    check_coordinates(seed, layer, passes, elements)
    check_rate(p)
    if row_keys_N is not None and (row_keys_N.dtype != torch.int64 or row_keys_N.ndim != 1):
        raise ValueError(f"row keys must be int64 [N], got {row_keys_N.dtype} {list(row_keys_N.shape)}")
    if device is None:
        device = "cpu" if row_keys_N is None else row_keys_N.device
    device = torch.device(device)
    if runs_triton(device) and elements < 1 << 31:
        from poolscore.kernels.dropout_mask_triton import keep_mask_triton  # only here: it needs Triton

        keys_N = None if row_keys_N is None else row_keys_N.to(device)
        return keep_mask_triton(seed, layer, passes, elements, p, keys_N, device)
    return keep_mask_reference(seed, layer, passes, elements, p, row_keys_N, device)


def keep_mask_reference(
    seed: int, layer: int, passes: range, elements: int, p: float, row_keys_N: Tensor | None, device: torch.device
) -> Tensor:
    """`keep_mask` in plain torch, on any device. Arguments are not checked."""
    threshold = keep_threshold(p)
    t_T1 = torch.tensor(list(passes), dtype=torch.int64, device=device)[:, None]
    group_G = torch.arange(-(-elements // DRAWS), device=device)
    if row_keys_N is None:
        low = high = torch.full((), WORD, dtype=torch.int64, device=device)
    else:
        key_N11 = row_keys_N.to(device)[:, None, None]
        low, high = key_N11 & WORD, (key_N11 >> 32) & WORD  # >> copies the sign bit of int64
    words = philox_torch(low, high, t_T1 | layer << 16, group_G, seed=seed)
    return _keep(words, threshold)[..., :elements]


def _keep(words: tuple[Tensor, Tensor, Tensor, Tensor], threshold: int) -> Tensor:
    """Compare the eight draws of each group, [..., G] words to bool [..., 8·G], written in place of a stack."""
    shape = words[0].shape
    keep = torch.empty((*shape, DRAWS), dtype=torch.bool, device=words[0].device)
    for i, word in enumerate(words):
        torch.ge(word & 0xFFFF, threshold, out=keep[..., 2 * i])
        torch.ge(word, threshold << 16, out=keep[..., 2 * i + 1])  # high half >= threshold, without the shift
    return keep.reshape(*shape[:-1], shape[-1] * DRAWS)
