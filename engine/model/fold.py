"""Shared masks in front of a Linear layer at the frontier: no row is ever repeated there.

For T masks that all rows share, and h the features of a row,

    W (m_t ∘ h)/(1−p) = (W h − W[:, S_t] h[S_t])/(1−p)      S_t: the columns that pass t drops

so W h is computed once per row, and each pass costs only its dropped columns (or its kept ones, where those are fewer).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional

from poolscore.engine.model.dropout import apply_affine
from poolscore.engine.model.masks import SharedMasks
from poolscore.engine.model.split import Split

LINEAR = torch.ops.aten.linear.default
SAME_ORDER = {
    torch.ops.aten.view.default,
    torch.ops.aten.reshape.default,
    torch.ops.aten.flatten.using_ints,
    torch.ops.aten._unsafe_view.default,
}
MOST_BYTES = 256 << 20  # of copied weight columns; beyond that the features are masked instead


class WithoutBias(nn.Module):
    """W h in fp32, once for each row."""

    def __init__(self, weight_OD: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight_OD", _full(weight_OD))

    def forward(self, h: Tensor) -> Tensor:
        """[N, …] → [N, O]."""
        with torch.autocast(h.device.type, enabled=False):
            return functional.linear(_full(h).flatten(1), self.get_buffer("weight_OD"))


class DroppedLinear(nn.Module):
    """W (m_t ∘ h)/(1−p) + b in fp32 for T fixed masks.

    Args:
        weight_OD, bias_O: of the layer.
        factor_TD: the masks with their scale: 0 or 1/(1−p).
        dtype: of the result.
    """

    def __init__(self, weight_OD: Tensor, bias_O: Tensor | None, factor_TD: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._scale = float(factor_TD.max())
        self._bias_O = None if bias_O is None else _full(bias_O)
        self._columns: list[tuple[bool, Tensor, Tensor]] = []  # whether they are subtracted, which, their weights
        for factor_D in factor_TD:
            subtract = bool((factor_D == 0).sum() * 2 <= len(factor_D))
            columns = torch.nonzero((factor_D == 0) == subtract).flatten()
            self._columns.append((subtract, columns, _full(weight_OD)[:, columns].t().contiguous()))

    def forward(self, h: Tensor, base_NO: Tensor, first: int, passes: int) -> Tensor:
        """Passes first … first + passes − 1 of h [N, …], whose W h is base_NO: [N·passes, O]."""
        with torch.autocast(h.device.type, enabled=False):
            h_ND = _full(h).flatten(1)
            out_NTO = base_NO.new_empty(len(h_ND), passes, base_NO.shape[1])
            for i, (subtract, columns, weight_KO) in enumerate(self._columns[first : first + passes]):
                part_NO = h_ND.index_select(1, columns) @ weight_KO
                out_NTO[:, i] = base_NO - part_NO if subtract else part_NO
            out_NTO *= self._scale
            if self._bias_O is not None:
                out_NTO += self._bias_O
            return out_NTO.flatten(0, 1).to(self._dtype)


def fold_linears(parts: Split, masks: SharedMasks) -> Split:
    """The same model with every `drop → flatten → linear` right at the frontier done by `DroppedLinear`."""
    folded: set[int] = set()
    layers = {layer.index: layer for layer in parts.layers}
    for node in list(parts.suffix.graph.nodes):
        linear: Any = _linear_behind(node)
        if linear is None:
            continue
        feature, index = node.args[0], _layer_of(node.args[1])
        layer, shape = layers[index], feature.meta["val"].shape[1:]
        weight = _value(parts.suffix, linear.args[1])
        assert weight is not None
        if "alpha" in layer.kind or weight.ndim != 2 or weight.shape[1] != math.prod(shape):
            continue
        ones = torch.ones(1, *shape, device=weight.device)
        factor, _ = masks.affine(index, torch.zeros(1), range(masks.passes))
        factor_TD = apply_affine(ones, factor, None, layer.batch_dim, layer.fold, 1).flatten(1)
        if _copied_bytes(factor_TD, weight) <= MOST_BYTES:
            bias = _value(parts.suffix, linear.args[2]) if len(linear.args) > 2 else None
            is_head = all(user.op == "output" for user in linear.users)
            dtype = _full(weight[:0]).dtype if is_head else weight.dtype  # logits are not rounded
            _replace(parts, feature, linear, index, weight, DroppedLinear(weight, bias, factor_TD, dtype))
            folded.add(index)
    for graph in (parts.prefix, parts.suffix):
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return replace(parts, folded=frozenset(folded))


def _full(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def _linear_behind(node: Any) -> Node | None:
    """The Linear that alone takes what this node drops from a feature, in the feature's own order."""
    if node.target is not apply_affine or node.args[0].op != "placeholder" or tuple(node.args[3:]) != (0, 1, 1):
        return None
    while len(node.users) == 1:
        (user,) = node.users
        if user.target is LINEAR and user.args[0] is node and user.args[1].op == "get_attr":
            found: Node = user
            return found
        if user.target not in SAME_ORDER:
            return None
        node = user
    return None


def _replace(parts: Split, feature: Node, linear: Node, index: int, weight: Tensor, module: DroppedLinear) -> None:
    prefix, suffix = parts.prefix, parts.suffix
    placeholders = [node for node in suffix.graph.nodes if node.op == "placeholder"]
    prefix.add_submodule(f"base_{index}", WithoutBias(weight))
    output: Any = next(node for node in prefix.graph.nodes if node.op == "output")
    features = output.args[0]
    with prefix.graph.inserting_before(output):
        base = prefix.graph.call_module(f"base_{index}", (features[placeholders.index(feature)],))
    output.args = ((*features, base),)
    suffix.add_submodule(f"dropped_linear_{index}", module)
    with suffix.graph.inserting_before(placeholders[len(features)]):
        base = suffix.graph.placeholder(f"base_{index}")
    passes, first = placeholders[-2:]
    with suffix.graph.inserting_before(linear):
        done = suffix.graph.call_module(f"dropped_linear_{index}", (feature, base, first, passes))
    done.meta = linear.meta
    linear.replace_all_uses_with(done)


def _copied_bytes(factor_TD: Tensor, weight_OD: Tensor) -> int:
    dropped = (factor_TD == 0).sum(1)
    columns = int(torch.minimum(dropped, factor_TD.shape[1] - dropped).sum())
    return columns * weight_OD.shape[0] * 4


def _layer_of(factor: Node) -> int:
    return int(factor.name.rpartition("_")[2])


def _value(graph: GraphModule, node: Node | None) -> Tensor | None:
    """The parameter that a get_attr node names."""
    value: Any = graph
    for name in str(node.target).split(".") if node is not None else ():
        value = getattr(value, name)
    return value if node is not None else None
