"""Logits in full precision: the last Linear of a model in half precision does not round its sums again.

Rounding logits to bfloat16 moves BALD by 2e-3 nats; products of rounded features and weights, summed in float32, cost
the same on tensor cores.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from poolscore.engine.model.folded_linear import full, full_product

LINEAR = torch.ops.aten.linear.default
HALF = (torch.bfloat16, torch.float16)


def keep_logits_full(suffix: GraphModule, precision: torch.dtype | None) -> None:
    """Let a Linear that gives the output compute in `precision`, or its weights' own, and give float32."""
    for node in list(suffix.graph.nodes):
        if node.target is LINEAR and all(user.op == "output" for user in node.users):
            dtype = precision or node.args[1].meta["val"].dtype
            if dtype in HALF:
                bias = node.args[2] if len(node.args) > 2 else None
                with suffix.graph.inserting_before(node):
                    head = suffix.graph.call_function(head_linear, (*node.args[:2], bias, dtype))
                head.meta = node.meta
                node.replace_all_uses_with(head)
                suffix.graph.erase_node(node)
    suffix.recompile()


def head_linear(x: Tensor, weight_OD: Tensor, bias_O: Tensor | None, dtype: torch.dtype) -> Tensor:
    """x Wᵀ + b with factors in `dtype` and sums in float32, [N, O]."""
    with torch.autocast(x.device.type, enabled=False):
        out = full_product(x.to(dtype), weight_OD.to(dtype))
        return out if bias_O is None else out + full(bias_O)
