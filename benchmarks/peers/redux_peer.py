"""batchbald_redux scores the pool with its consistent dropout: the whole network k times, or its prefix cut by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from batchbald_redux.batchbald import compute_conditional_entropy, compute_entropy
from batchbald_redux.consistent_mc_dropout import BayesianModule, ConsistentMCDropout
from protocol import serve
from torch import Tensor, nn
from workloads import PASSES, Workload, frontier


class Network(BayesianModule):  # type: ignore[misc]
    """The network as its documentation writes one: what is repeated k times stands in `mc_forward_impl`.

    Args:
        before: layers that run once, moved out of it by hand.
    """

    def __init__(self, network: nn.Sequential, before: int) -> None:
        super().__init__()
        self.once, self.repeated = network[:before], with_its_dropout(network[before:])
        self.eval()

    def forward(self, x: Tensor, k: int) -> Any:
        """[N, …] → log-probabilities [N, k, C]."""
        return super().forward(self.once(x), k)

    def mc_forward_impl(self, x: Tensor) -> Any:
        """[N·k, …] → [N·k, C]."""
        return self.repeated(x).log_softmax(1)


def with_its_dropout(module: nn.Module) -> nn.Module:
    """The module, every `nn.Dropout` in it replaced."""
    for name, child in module.named_children():
        new = ConsistentMCDropout(child.p) if isinstance(child, nn.Dropout) else with_its_dropout(child)
        setattr(module, name, new)
    return module


class Redux:
    """See Contestant."""

    def __init__(self, workload: Workload, folder: Path, cut: bool) -> None:
        self._workload, self._folder = workload, folder
        network = workload.load_network(folder)
        self._model = Network(network, before=frontier(network) if cut else 0)

    def ready(self, rows: int, few: int) -> None:
        """See Contestant."""
        self._few, self._pool = few, self._workload.load_pool(self._folder, rows)

    def score(self, rows: int) -> object:
        """See Contestant: what `get_bald_batch` ranks by."""
        log_probs_N_K_C = self._log_probs(self._pool[:rows])
        return compute_entropy(log_probs_N_K_C) - compute_conditional_entropy(log_probs_N_K_C)

    def two_passes(self) -> tuple[Tensor, Tensor]:
        """See Contestant."""
        log_probs_N_K_C = self._log_probs(self._pool[: self._few])
        return log_probs_N_K_C[:, 0], log_probs_N_K_C[:, 1]

    def _log_probs(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self._model(part, PASSES) for part in x.split(self._workload.batch)])


if __name__ == "__main__":
    serve(
        {
            "repeated": partial(Redux, cut=False),
            "cut by hand": partial(Redux, cut=True),
        },
        packages=("batchbald_redux", "torch", "numpy"),
    )
