"""Ray Data scores the pool as its guide to batch inference has it: the loop of `torch_peer.py` in an actor."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import torch
from protocol import serve
from torch_peer import Loop, MonteCarlo
from workloads import DEVICE, WORKLOADS, Workload, pool_file


class Actor:
    """A stateful class for `map_batches`."""

    def __init__(self, workload: str, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._workload = WORKLOADS[workload]
        self._model = MonteCarlo(self._workload.load_network(folder), cut=False)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The pool's columns → id and bald."""
        bald_N = self._model.bald(self._workload.decode(batch))
        return pa.table({"id": batch["id"], "bald": bald_N.numpy()})


class RayData(Loop):
    """See Contestant. One actor that has all threads; reading is a task of its own beside it."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        super().__init__(workload, folder, cut=False)
        self._name = next(name for name, one in WORKLOADS.items() if one is workload)

    def ready(self, rows: int, few: int) -> None:
        """See Contestant."""
        self._few = few
        ray.init(
            address="local",
            num_cpus=torch.get_num_threads() + 1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=300_000_000,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)

    def score(self, rows: int) -> object:
        """See Contestant."""
        scores = self._folder / "ray-data"
        shutil.rmtree(scores, ignore_errors=True)
        threads = torch.get_num_threads()
        ray.data.read_parquet(str(pool_file(self._folder, rows).parent)).map_batches(
            Actor,
            fn_constructor_args=(self._name, self._folder, threads),
            batch_size=self._workload.batch,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=threads,
            num_gpus=1 if DEVICE == "cuda" else None,
        ).write_parquet(str(scores))
        return pq.read_table(scores).sort_by("id")["bald"].to_numpy()


if __name__ == "__main__":
    serve({"actor": RayData}, packages=("ray", "torch", "pyarrow"))
