"""Select again from a run's stored scores, and compare what the methods choose. No GPU, model, pool or torch.

RUN=poolscore-demo/run python -m poolscore.jobs.examples.again
"""

# %% A run, local or s3://…
import os

import pyarrow as pa
import pyarrow.compute as pc

from poolscore.engine import RunDirectory, select_batch

run = RunDirectory(os.environ.get("RUN", "poolscore-demo/run"))
config = run.config

# %% Batches of the same size: the best, by chance with the score as the weight, jointly informative, and no two alike.
batches = {
    "topk": select_batch(run, config),
    "power": select_batch(run, config, method="power", seed=1),
    "batchbald": select_batch(run, config, method="batchbald"),
    "no two alike": select_batch(run, config, max_per_group={"near_duplicates": 1}),
}


# %% What they have in common with the best rows, how uncertain they are, and how many classes they are of.
def share_in(batch: pa.Table, other: pa.Table) -> float:
    """Of the rows of a batch, those that the other has too."""
    return float(pc.mean(pc.is_in(batch["key"], other["key"].combine_chunks()).cast(pa.float64())).as_py())


for name, batch in batches.items():
    common, score = share_in(batch, batches["topk"]), pc.mean(batch["score"]).as_py()
    classes = pc.count_distinct(batch["prediction"]).as_py()
    print(f"{name:12}  {common:4.0%} of topk  mean {config.selected_by} {score:.3f}  {classes} classes")
