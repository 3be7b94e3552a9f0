"""A Linear layer behind shared masks, with the masks folded into it: no row is ever repeated.

For T masks m_t that all rows share, the layer gives W (m_t ∘ h)/(1−p) + b. Two ways, by what a device is good at:

- `DroppedColumns`, for a CPU: W (m_t ∘ h) = W h − W[:, S_t] h[S_t] with S_t the columns that pass t drops. W h is
  computed once per row, and a pass costs only its dropped columns (or its kept ones, where about half are dropped or
  more).
- `MaskedWeights`, for a GPU: all passes in one product with the weights [T·O, D] that have the masks in them. It costs
  all the operations, which tensor cores have to spare, and one launch.

Legend: N rows, T passes, D inputs and O outputs of the layer, K columns of it. Results are float32, or float64 for
float64.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

SUBTRACT_BELOW = 0.45  # of the columns dropped


class FoldedLinear(Protocol):
    """A Linear layer with T masks in it."""

    bytes: int  # of copied weights

    def once(self, h: Tensor) -> tuple[Tensor, ...]:
        """What is computed once per row from the features [N, …]."""

    def passes(self, once: tuple[Tensor, ...], passes: range) -> Tensor:
        """[N·len(passes), O] from what `once` gave."""


class DroppedColumns:
    """See FoldedLinear.

    Args:
        weight_OD, bias_O: of the layer.
        factor_TD: the masks with their scale: 0 or 1/(1−p).
    """

    def __init__(self, weight_OD: Tensor, bias_O: Tensor | None, factor_TD: Tensor) -> None:
        self._weight_OD = full(weight_OD)
        self._scale = float(factor_TD.max())
        self._bias_O1 = None if bias_O is None else full(bias_O)[:, None]
        # At p = 0.5 both cost the same, and a sum of the kept columns rounds half as much as a difference.
        self._subtracts = bool((factor_TD == 0).float().mean() < SUBTRACT_BELOW)
        self._columns: list[tuple[Tensor, Tensor]] = []  # which, and their weights
        for factor_D in factor_TD:
            columns_K = torch.nonzero((factor_D == 0) == self._subtracts).flatten()
            self._columns.append((columns_K, self._weight_OD[:, columns_K].contiguous()))
        self.bytes = sum(weight_OK.nbytes for _, weight_OK in self._columns)

    def once(self, h: Tensor) -> tuple[Tensor, ...]:
        """h with its columns as rows, so that picking some of them copies whole lines; and W h, to subtract from."""
        with torch.autocast(h.device.type, enabled=False):
            h_DN = full(h).flatten(1).t().contiguous()
            return (h_DN, self._weight_OD @ h_DN) if self._subtracts else (h_DN,)

    def passes(self, once: tuple[Tensor, ...], passes: range) -> Tensor:
        """See FoldedLinear."""
        h_DN = once[0]
        with torch.autocast(h_DN.device.type, enabled=False):
            out_TON = h_DN.new_empty(len(passes), len(self._weight_OD), h_DN.shape[1])
            for out_ON, t in zip(out_TON, passes, strict=True):
                columns_K, weight_OK = self._columns[t]
                part_KN = h_DN.index_select(0, columns_K)
                if self._subtracts:
                    torch.addmm(once[1], weight_OK, part_KN, alpha=-1.0, out=out_ON)
                else:
                    torch.mm(weight_OK, part_KN, out=out_ON)
            out_TON *= self._scale
            if self._bias_O1 is not None:
                out_TON += self._bias_O1
            return out_TON.permute(2, 0, 1).flatten(0, 1)


class MaskedWeights:
    """See FoldedLinear and DroppedColumns. The product is taken in `dtype`, summed and given in float32."""

    def __init__(self, weight_OD: Tensor, bias_O: Tensor | None, factor_TD: Tensor, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._scale = float(factor_TD.max())
        self._bias_O = None if bias_O is None else full(bias_O)
        kept_TD = (factor_TD != 0).to(dtype)
        self._weight_TOD = weight_OD.to(dtype) * kept_TD[:, None]
        self.bytes = self._weight_TOD.nbytes

    def once(self, h: Tensor) -> tuple[Tensor, ...]:
        """The features as they go into the product."""
        return (h.flatten(1).to(self._dtype),)

    def passes(self, once: tuple[Tensor, ...], passes: range) -> Tensor:
        """See FoldedLinear."""
        (h_ND,) = once
        weight_TOD = self._weight_TOD[passes.start : passes.stop]
        with torch.autocast(h_ND.device.type, enabled=False):
            out = full_product(h_ND, weight_TOD.flatten(0, 1)).view(-1, weight_TOD.shape[1])
            out *= self._scale
            return out if self._bias_O is None else out.add_(self._bias_O)


def full(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def full_product(x_ND: Tensor, weight_OD: Tensor) -> Tensor:
    """x Wᵀ in at least float32, [N, O]: half precision is multiplied as it is, but not rounded again."""
    if x_ND.is_cuda and x_ND.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(x_ND, weight_OD.t(), out_dtype=torch.float32)
    return functional.linear(full(x_ND), full(weight_OD))
