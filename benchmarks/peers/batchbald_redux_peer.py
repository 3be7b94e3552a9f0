"""batchbald_redux for bench_batchbald.py: one line of JSON in, one out. In float64, as its documentation calls it."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import torch
from batchbald_redux.batchbald import get_batchbald_batch

replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
torch.set_num_threads(int(sys.argv[1]))
for line in sys.stdin:
    request = json.loads(line)
    log_probs = torch.from_numpy(np.load(request["log_probs"])).double()
    torch.manual_seed(0)
    started = time.perf_counter()
    found = get_batchbald_batch(log_probs, request["k"], request["samples"], dtype=torch.double, device="cpu")
    seconds = time.perf_counter() - started
    reply = {"seconds": seconds, "picks": found.indices, "scores": found.scores}
    print(json.dumps(reply), file=replies, flush=True)
