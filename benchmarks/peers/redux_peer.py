"""batchbald_redux scores the pool with its consistent dropout: the whole network k times, or its prefix cut by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from batchbald_redux.batchbald import compute_conditional_entropy, compute_entropy
from batchbald_redux.consistent_mc_dropout import BayesianModule, ConsistentMCDropout
from protocol import SOME, serve
from subject import FRONTIER, PASSES, load_network, load_pool
from torch import Tensor, nn


class Network(BayesianModule):  # type: ignore[misc]
    """The network as its documentation writes one: what is repeated k times stands in `mc_forward_impl`.

    Args:
        before: layers that run once, moved out of it by hand.
    """

    def __init__(self, folder: Path, before: int) -> None:
        super().__init__()
        layers = [ConsistentMCDropout(x.p) if isinstance(x, nn.Dropout) else x for x in load_network(folder)]
        self.once, self.repeated = nn.Sequential(*layers[:before]), nn.Sequential(*layers[before:])
        self.eval()

    def forward(self, x: Tensor, k: int) -> Any:
        """[N, …] → log-probabilities [N, k, C]."""
        return super().forward(self.once(x), k)

    def mc_forward_impl(self, x: Tensor) -> Any:
        """[N·k, …] → [N·k, C]."""
        return self.repeated(x).log_softmax(1)


class Redux:
    """See Contestant."""

    def __init__(self, folder: Path, before: int) -> None:
        self._model = Network(folder, before)
        self._pool = load_pool(folder)

    def ready(self, batch: int) -> None:
        """See Contestant."""
        self._batch = batch
        self._log_probs(self._pool[: 2 * batch])

    def score(self) -> object:
        """See Contestant: what `get_bald_batch` ranks by."""
        log_probs_N_K_C = self._log_probs(self._pool)
        return compute_entropy(log_probs_N_K_C) - compute_conditional_entropy(log_probs_N_K_C)

    def two_passes(self) -> tuple[Tensor, Tensor]:
        """See Contestant."""
        log_probs_N_K_C = self._log_probs(self._pool[:SOME])
        return log_probs_N_K_C[:, 0], log_probs_N_K_C[:, 1]

    def _log_probs(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self._model(part, PASSES) for part in x.split(self._batch)])


if __name__ == "__main__":
    serve(
        {
            "repeated": lambda folder: Redux(folder, before=0),
            "cut by hand": lambda folder: Redux(folder, before=FRONTIER),
        },
        packages=("batchbald_redux", "torch", "numpy"),
    )
