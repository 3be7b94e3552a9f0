"""A loop over a Parquet pool as one writes it by hand, with torch and pyarrow; or one that cuts the network, too."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import torch
from protocol import serve
from torch import Tensor, nn
from torch.special import entr
from workloads import DEVICE, PASSES, Workload, frontier, pool_file


class MonteCarlo:
    """A network with its dropout on; T passes of a batch, and their BALD.

    Args:
        cut: the layers before the first dropout run once.
    """

    def __init__(self, network: nn.Sequential, cut: bool) -> None:
        for module in network.modules():
            module.train(isinstance(module, nn.Dropout))
        before = frontier(network) if cut else 0
        self._once, self._repeated = network[:before], network[before:]

    @torch.inference_mode()
    def logits(self, x: Tensor, passes: int) -> Tensor:
        """[N, …] → [T, N, C]."""
        x = self._once(x.to(DEVICE))
        return torch.stack([self._repeated(x) for _ in range(passes)])

    @torch.inference_mode()
    def bald(self, x: Tensor) -> Tensor:
        """[N, …] → nats [N]."""
        p = self.logits(x, PASSES).softmax(-1)
        entropy, expected_entropy = entr(p.mean(0)).sum(-1), entr(p).sum(-1).mean(0)
        bald: Tensor = entropy - expected_entropy
        return bald.cpu()


class Loop:
    """See Contestant."""

    def __init__(self, workload: Workload, folder: Path, cut: bool) -> None:
        self._workload, self._folder = workload, folder
        self._model = MonteCarlo(workload.load_network(folder), cut)

    def ready(self, rows: int, few: int) -> None:
        """See Contestant."""
        self._few = few

    def score(self, rows: int) -> object:
        """See Contestant."""
        file = pq.ParquetFile(pool_file(self._folder, rows))
        batches = file.iter_batches(self._workload.batch)
        return torch.cat([self._model.bald(self._workload.decode(batch)) for batch in batches])

    def two_passes(self) -> tuple[Tensor, Tensor]:
        """See Contestant."""
        one, other = self._model.logits(self._workload.load_pool(self._folder, self._few), passes=2)
        return one, other


if __name__ == "__main__":
    serve(
        {
            "loop": partial(Loop, cut=False),
            "cut by hand": partial(Loop, cut=True),
        },
        packages=("torch", "pyarrow", "numpy"),
    )
