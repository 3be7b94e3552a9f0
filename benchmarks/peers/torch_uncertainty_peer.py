"""torch-uncertainty scores the pool: its MC-dropout wrapper repeats every batch, or loops over the passes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from protocol import serve
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torch_uncertainty.methods import mc_dropout
from torch_uncertainty.metrics import MutualInformation
from workloads import PASSES, Workload


class TorchUncertainty:
    """See Contestant."""

    def __init__(self, workload: Workload, folder: Path, on_batch: bool) -> None:
        self._workload, self._folder = workload, folder
        self._model = mc_dropout(workload.load_network(folder), num_estimators=PASSES, on_batch=on_batch).eval()

    def ready(self, rows: int, few: int) -> None:
        """See Contestant."""
        self._few, self._pool = few, self._workload.load_pool(self._folder, rows)

    @torch.no_grad()
    def score(self, rows: int) -> object:
        """See Contestant: its metric is the mutual information, which BALD is."""
        mutual_information = MutualInformation(reduction="none")
        for (x,) in DataLoader(TensorDataset(self._pool[:rows]), batch_size=self._workload.batch):
            mutual_information.update(self._logits(x).softmax(-1))
        return mutual_information.compute()

    @torch.no_grad()
    def two_passes(self) -> tuple[Tensor, Tensor]:
        """See Contestant."""
        logits_NTC = self._logits(self._pool[: self._few])
        return logits_NTC[:, 0], logits_NTC[:, 1]

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self._model(x)  # [T·N, C]
        return logits.view(PASSES, len(x), -1).transpose(0, 1)


if __name__ == "__main__":
    serve(
        {
            "repeated": partial(TorchUncertainty, on_batch=True),
            "loop": partial(TorchUncertainty, on_batch=False),
        },
        packages=("torch_uncertainty", "torch", "numpy"),
    )
