"""Your own model and your own reading of a row; then what every pass said of the best rows.

    python -m poolscore.jobs.examples.own

Writes into the folder own-example.
"""

# %% A pool: Parquet with an id and whatever your function reads. Row 7 is broken.
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from poolscore.engine import RunDirectory, parse_config, read_shortlist, score_pool
from poolscore.jobs.demo import read_digits
from poolscore.jobs.examples.own_code import network

folder = Path("own-example")
folder.mkdir(exist_ok=True)
digits, _ = read_digits()
raw = [picture.tobytes() for picture in digits[:500]]
raw[7] = b"broken"
pq.write_table(pa.table({"id": [f"digit-{i}" for i in range(500)], "raw": raw}), folder / "pool.parquet")

# %% Weights: here of a network that was never trained.
torch.manual_seed(0)
torch.save(network(classes=10).state_dict(), folder / "weights.pt")

# %% The configuration as a dictionary; `load_config` reads the same from a file.
config = parse_config(
    {
        "pool": {
            "uri": "pool.parquet",
            "id": "id",
            "input": "raw",
            "decode": {"kind": "function", "function": "poolscore.jobs.examples.own_code:read_row"},
        },
        "model": {
            "source": "poolscore.jobs.examples.own_code:network",
            "args": {"classes": 10},
            "weights": "weights.pt",
            "task": "multiclass",
        },
        "passes": {"count": 20},
        "select": {"k": 10},
        "run": {"dir": "run", "executor": "local"},
    },
    base=folder,
)
result = score_pool(config)
print(f"{result.totals.scored} rows scored; set aside: {dict(result.totals.reasons)}")

# %% The shortlist holds the log-probabilities of every pass (N rows, T passes, C classes), in nats, best rows first.
shortlist = read_shortlist(RunDirectory(result.run_dir))
assert shortlist.log_probs_NTC is not None  # None: regression
log_p_NTC = shortlist.log_probs_NTC.astype(np.float64)
best = shortlist.rows.slice(0, 1).to_pylist()[0]
print(f"{best['id']}: its {log_p_NTC.shape[1]} passes say {log_p_NTC[0].argmax(axis=1).tolist()}")

# %% BALD by its definition, from these: entropy of the mean less the mean of the entropies. It is the stored score.
p_NTC = np.exp(log_p_NTC)
mean_NC = p_NTC.mean(axis=1)
bald_N = -(mean_NC * np.log(mean_NC)).sum(axis=1) + (p_NTC * log_p_NTC).sum(axis=2).mean(axis=1)
largest = np.abs(bald_N - shortlist.rows["bald"].to_numpy()).max()
print(f"largest difference from the stored BALD: {largest:.1e} nats")
