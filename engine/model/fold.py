"""Find the Linear layers at the frontier that shared masks can be folded into, and take them out of the suffix.

What they give for each pass (`folded_linear.py`) becomes an input of the suffix, in the place of the mask's factor.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from poolscore.engine.model.dropout import apply_affine
from poolscore.engine.model.folded_linear import DroppedColumns, FoldedLinear, MaskedWeights
from poolscore.engine.model.head import LINEAR, SAME_ORDER, gives_logits
from poolscore.engine.model.masks import SharedMasks
from poolscore.engine.model.split import Split

MOST_BYTES = {"cpu": 1 << 30, "cuda": 4 << 30}  # of copied weights; beyond that the features are masked instead


def fold_linears(parts: Split, masks: SharedMasks, precision: torch.dtype | None) -> Split:
    """The same model with every `drop → flatten → linear` right at the frontier folded.

    Args:
        precision: half precision that products are taken in on a GPU, if not in the weights' own.
    """
    folded: dict[int, tuple[int, FoldedLinear]] = {}
    layers = {layer.index: layer for layer in parts.layers}
    placeholders = [node for node in parts.suffix.graph.nodes if node.op == "placeholder"]
    for node in list(parts.suffix.graph.nodes):
        linear: Any = _linear_behind(node)
        if linear is None:
            continue
        feature, mask = node.args[0], node.args[1]
        index = int(mask.name.rpartition("_")[2])
        layer, shape = layers[index], feature.meta["val"].shape[1:]
        weight = _value(parts.suffix, linear.args[1])
        assert weight is not None
        if "alpha" in layer.kind or weight.ndim != 2 or weight.shape[1] != math.prod(shape):
            continue
        ones = torch.ones(1, *shape, dtype=layer.dtype, device=weight.device)
        factor, _ = masks.affine(index, torch.zeros(1), range(masks.passes))
        factor_TD = apply_affine(ones, factor, None, layer.batch_dim, layer.fold, 1).flatten(1)
        bias = _value(parts.suffix, linear.args[2]) if len(linear.args) > 2 else None
        done = _fold(weight, bias, factor_TD, precision)
        if done is not None:
            folded[index] = placeholders.index(feature), done
            _take_out(parts.suffix, linear, mask, done_dtype=weight.dtype)
    parts.suffix.graph.eliminate_dead_code()
    parts.suffix.recompile()
    return replace(parts, folded=folded)


def _fold(
    weight_OD: Tensor, bias_O: Tensor | None, factor_TD: Tensor, precision: torch.dtype | None
) -> FoldedLinear | None:
    """None where it would take too much memory."""
    device, outputs = weight_OD.device.type, len(weight_OD)
    most = MOST_BYTES.get(device, MOST_BYTES["cpu"])
    if device == "cuda":
        dtype = precision or weight_OD.dtype
        fits = factor_TD.numel() * outputs * dtype.itemsize <= most
        return MaskedWeights(weight_OD, bias_O, factor_TD, dtype) if fits else None
    dropped_T = (factor_TD == 0).sum(1)
    columns = int(torch.minimum(dropped_T, factor_TD.shape[1] - dropped_T).sum())
    fits = columns * outputs * weight_OD.element_size() <= most
    return DroppedColumns(weight_OD, bias_O, factor_TD) if fits else None


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


def _take_out(suffix: GraphModule, linear: Node, given: Node, done_dtype: torch.dtype) -> None:
    """Let the suffix be given what this Linear gives."""
    with suffix.graph.inserting_before(linear):
        # Logits are not rounded; in between, the suffix goes on in the precision that it has.
        done = given if gives_logits(linear) else suffix.graph.call_method("to", (given, done_dtype))
    done.meta = linear.meta
    linear.replace_all_uses_with(done)


def _value(graph: GraphModule, node: Node | None) -> Tensor | None:
    """The parameter that a get_attr node names."""
    value: Any = graph
    for name in str(node.target).split(".") if node is not None else ():
        value = getattr(value, name)
    return value if node is not None else None
