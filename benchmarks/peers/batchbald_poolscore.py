"""poolscore's batchbald for bench_batchbald.py: one line of JSON in, one out."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pyarrow as pa

from poolscore.engine.selection.batchbald import batchbald
from poolscore.engine.selection.caps import Caps

for line in sys.stdin:
    request = json.loads(line)
    log_probs = np.load(request["log_probs"])
    N = len(log_probs)
    room = Caps().room(pa.table({"place": np.arange(N)}))
    started = time.perf_counter()
    found = batchbald(log_probs, np.arange(N), request["k"], room, samples=request["samples"], seed=0)
    seconds = time.perf_counter() - started
    scores = found.gains.cumsum().tolist()
    print(
        json.dumps({"seconds": seconds, "picks": found.places.tolist(), "scores": scores, "exact": found.exact}),
        flush=True,
    )
