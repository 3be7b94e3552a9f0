"""Logits in full precision: the last Linear of a model in half precision does not round its sums again.

Rounding logits to bfloat16 moves BALD by 2e-3 nats; products of rounded features and weights, summed in float32, cost
the same on tensor cores.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from poolscore.engine.model.folded_linear import full, full_product

ATEN = torch.ops.aten
LINEAR = ATEN.linear.default
SAME_ORDER = {ATEN.view.default, ATEN.reshape.default, ATEN.flatten.using_ints, ATEN._unsafe_view.default}
RESHAPES = {*SAME_ORDER, ATEN.squeeze.dim, ATEN.squeeze.dims, ATEN.unsqueeze.default}
HALF = (torch.bfloat16, torch.float16)


def keep_logits_full(suffix: GraphModule, precision: torch.dtype | None) -> None:
    """Let a Linear that gives the output compute in `precision`, or its weights' own, and give float32."""
    for node in list(suffix.graph.nodes):
        if node.target is LINEAR and gives_logits(node):
            dtype = precision or node.args[1].meta["val"].dtype
            if dtype in HALF:
                bias = node.args[2] if len(node.args) > 2 else None
                with suffix.graph.inserting_before(node):
                    head = suffix.graph.call_function(head_linear, (*node.args[:2], bias, dtype))
                head.meta = node.meta
                node.replace_all_uses_with(head)
                suffix.graph.erase_node(node)
    suffix.recompile()


def gives_logits(node: Node) -> bool:
    """Whether what a node gives is the output, or becomes it by taking another shape."""
    return all(user.op == "output" or (user.target in RESHAPES and gives_logits(user)) for user in node.users)


def head_linear(x: Tensor, weight_OD: Tensor, bias_O: Tensor | None, dtype: torch.dtype) -> Tensor:
    """x Wᵀ + b with factors in `dtype` and sums in float32, [N, O]."""
    with torch.autocast(x.device.type, enabled=False):
        out = full_product(x.to(dtype), weight_OD.to(dtype))
        return out if bias_O is None else out + full(bias_O)
