"""ReLU in the place of its input, where nobody else reads that: a large tensor less to write to."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

ATEN = torch.ops.aten
# Operators that give a new tensor, never a view of one.
FRESH = {ATEN.conv1d.default, ATEN.conv2d.default, ATEN.conv3d.default, ATEN.batch_norm.default, ATEN.linear.default}


def relu_in_place(graph: GraphModule) -> None:
    """Let a ReLU overwrite what a convolution, a BatchNorm or a Linear gives to it alone."""
    for node in graph.graph.find_nodes(op="call_function", target=ATEN.relu.default):
        x = node.args[0]
        if isinstance(x, Node) and x.target in FRESH and len(x.users) == 1:
            node.target = ATEN.relu_.default
    graph.recompile()
