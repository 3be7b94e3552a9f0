"""A whole loop on real handwritten digits, with and without BALD: how many labels does it save?

It makes a pool, first labels and the truth in the folder `digits-loop`, and takes about a minute on two cores.
"""

# %% A pool of 1,297 digits, packed; the other 500 are for testing.
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine import load_config
from poolscore.jobs.demo import read_digits
from poolscore.jobs.examples.loop_code import POOL
from poolscore.jobs.loop import run_loop
from poolscore.jobs.pack import pack

folder = Path("digits-loop")
pictures, digits = (part[:POOL] for part in read_digits())
if not (folder / "loop.yaml").exists():
    folder.mkdir()
    np.save(folder / "digits.npy", pictures)
    pack(folder / "digits.npy", folder / "pool")

    # %% The truth, and for each seed two first labels of every digit.
    pool = pq.read_table(folder / "pool")
    truth = pool.select(["id"]).append_column("label", pa.array(digits))
    pq.write_table(truth, folder / "truth.parquet")
    for seed in (0, 1):
        order = np.random.default_rng(seed).permutation(POOL)
        chosen = np.concatenate([order[digits[order] == digit][:2] for digit in range(10)])
        first = pool.append_column("label", truth["label"]).take(pa.array(np.sort(chosen)))
        pq.write_table(first, folder / f"first-{seed}.parquet")
    text = files("poolscore.jobs.examples").joinpath("loop.yaml").read_text(encoding="utf-8")
    (folder / "loop.yaml").write_text(text, encoding="utf-8")

# %% The loop. Stopped and started again it goes on; `poolscore loop digits-loop/loop.yaml` does the same.
result = run_loop(load_config(folder / "loop.yaml"), on_progress=print)
print(result.in_words)
print(f"the curves are in {result.curve} and {result.report}")
