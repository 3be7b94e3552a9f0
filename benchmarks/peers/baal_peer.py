"""baal 2.1 scores the pool: its wrapper replicates every batch, or loops over the passes, or loops with its cache."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import structlog
import torch
from baal import ModelWrapper
from baal.active.heuristics import BALD
from baal.bayesian.caching_utils import MCCachingModule
from baal.bayesian.dropout import MCDropoutModule
from baal.modelwrapper import TrainingArgs
from protocol import serve
from torch import Tensor
from torch.utils.data import TensorDataset
from workloads import PASSES, Workload

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


class Baal:
    """See Contestant. No loader processes: the pool lies in memory and every core computes."""

    def __init__(self, workload: Workload, folder: Path, replicate: bool, cache: bool) -> None:
        self._workload, self._folder = workload, folder
        model: torch.nn.Module = MCDropoutModule(workload.load_network(folder))
        model = MCCachingModule(model).eval() if cache else model.eval()
        arguments = TrainingArgs(batch_size=workload.batch, use_cuda=False, workers=0, replicate_in_memory=replicate)
        self._wrapper = ModelWrapper(model, arguments)

    def ready(self, rows: int, few: int) -> None:
        """See Contestant."""
        self._few, self._pool = few, self._workload.load_pool(self._folder, rows)

    def score(self, rows: int) -> object:
        """See Contestant."""
        dataset = TensorDataset(self._pool[:rows], torch.zeros(rows))
        predictions = self._wrapper.predict_on_dataset(dataset, iterations=PASSES, verbose=False)
        return BALD().get_uncertainties(predictions)

    def two_passes(self) -> tuple[Tensor, Tensor]:
        """See Contestant."""
        logits_NCT = self._wrapper.predict_on_batch(self._pool[: self._few], iterations=2)
        return logits_NCT[..., 0], logits_NCT[..., 1]


if __name__ == "__main__":
    serve(
        {
            "replicated": partial(Baal, replicate=True, cache=False),
            "loop": partial(Baal, replicate=False, cache=False),
            "cached": partial(Baal, replicate=False, cache=True),
        },
        packages=("baal", "torch", "numpy"),
    )
