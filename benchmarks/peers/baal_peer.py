"""baal 2.1 scores the pool: its wrapper replicates every batch, or loops over the passes, or loops with its cache."""

from __future__ import annotations

import logging
from pathlib import Path

import structlog
import torch
from baal import ModelWrapper
from baal.active.heuristics import BALD
from baal.bayesian.caching_utils import MCCachingModule
from baal.bayesian.dropout import MCDropoutModule
from baal.modelwrapper import TrainingArgs
from protocol import SOME, serve
from subject import PASSES, load_network, load_pool
from torch import Tensor
from torch.utils.data import TensorDataset

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


class Baal:
    """See Contestant."""

    def __init__(self, folder: Path, replicate: bool, cache: bool) -> None:
        model: torch.nn.Module = MCDropoutModule(load_network(folder))
        self._model = MCCachingModule(model).eval() if cache else model.eval()
        self._replicate = replicate
        x = load_pool(folder)
        self._pool = TensorDataset(x, torch.zeros(len(x)))

    def ready(self, batch: int) -> None:
        """See Contestant. No loader processes: the pool lies in memory and every core computes."""
        arguments = TrainingArgs(batch_size=batch, use_cuda=False, workers=0, replicate_in_memory=self._replicate)
        self._wrapper = ModelWrapper(self._model, arguments)
        few = TensorDataset(*self._pool[: 2 * batch])
        self._wrapper.predict_on_dataset(few, iterations=PASSES, verbose=False)

    def score(self) -> object:
        """See Contestant."""
        predictions = self._wrapper.predict_on_dataset(self._pool, iterations=PASSES, verbose=False)
        return BALD().get_uncertainties(predictions)

    def two_passes(self) -> tuple[Tensor, Tensor]:
        """See Contestant."""
        logits_NCT = self._wrapper.predict_on_batch(self._pool[:SOME][0], iterations=2)
        return logits_NCT[..., 0], logits_NCT[..., 1]


if __name__ == "__main__":
    serve(
        {
            "replicated": lambda folder: Baal(folder, replicate=True, cache=False),
            "loop": lambda folder: Baal(folder, replicate=False, cache=False),
            "cached": lambda folder: Baal(folder, replicate=False, cache=True),
        },
        packages=("baal", "torch", "numpy"),
    )
