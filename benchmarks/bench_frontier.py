"""What the split at the stochastic frontier is worth, in two subjects:

    resnet   ResNet-50 at 224x224 with dropout before its head: T=1, 20 and 100 passes, and 20 repeated at the input
    peers    a small CNN over a pool of 5,000, T=20: poolscore beside baal and batchbald_redux in the same run

    python benchmarks/bench_frontier.py --peers /tmp/peers/bin/python --data ../shared/data/mnist --out FILE.json

`peers/requirements.txt` says how the peers' interpreter is made. On a machine with a GPU, `make gpu PART=frontier` runs
the first subject there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from frontier_peers import CONTESTANTS, compare
from frontier_resnet import measure

from poolscore.jobs.bench.environment import environment


def main() -> None:
    """Measure what is asked for; print and write it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--subject", choices=("resnet", "peers"), action="append", help="default: both")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--out", type=Path, help="JSON, with the environment beside the figures")
    resnet = arguments.add_argument_group("resnet")
    resnet.add_argument("--batch", type=int, default=16)
    resnet.add_argument("--pixels", type=int, default=224)
    resnet.add_argument("--repeats", type=int, default=5)
    resnet.add_argument("--onnx", action="store_true", help="the same model through ONNX Runtime as well")
    peers = arguments.add_argument_group("peers")
    peers.add_argument("--peers", type=Path, help="the interpreter of the peers; without it only poolscore is measured")
    peers.add_argument("--data", type=Path, default=Path("../shared/data/mnist"))
    peers.add_argument("--rows", type=int, default=5000)
    peers.add_argument("--batches", type=int, nargs="+", default=[32, 64, 256])
    peers.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    results: dict[str, Any] = {}
    subjects = given.subject or ("resnet", "peers")
    if "resnet" in subjects:
        results["resnet"] = measure(
            batch=given.batch, pixels=given.pixels, repeats=given.repeats, threads=given.threads, onnx=given.onnx
        )
        print(json.dumps(results["resnet"], indent=2), flush=True)
    if "peers" in subjects:
        names = [name for name, (file, _) in CONTESTANTS.items() if given.peers or file == "poolscore_peer.py"]
        python = given.peers or Path(sys.executable)
        results["peers"] = compare(python, given.data, given.rows, given.batches, given.rounds, given.threads, names)
        print(json.dumps(results["peers"], indent=2), flush=True)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps({"environment": environment(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
