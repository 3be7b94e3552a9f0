"""What the split at the stochastic frontier is worth: ResNet-50 at 224x224 with dropout before its head, T=1, 20 and
100 passes, and 20 repeated at the input.

    python benchmarks/bench_frontier.py --out FILE.json

`bench_peers.py` compares with other libraries. On a machine with a GPU, `make gpu PART=frontier` does this there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from frontier_resnet import measure

from poolscore.jobs.bench.environment import environment


def main() -> None:
    """Measure; print and write it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--pixels", type=int, default=224)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--onnx", action="store_true", help="the same model through ONNX Runtime as well")
    arguments.add_argument("--out", type=Path, help="JSON, with the environment beside the figures")
    given = arguments.parse_args()
    result = measure(
        batch=given.batch, pixels=given.pixels, repeats=given.repeats, threads=given.threads, onnx=given.onnx
    )
    print(json.dumps(result, indent=2), flush=True)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        document = {"environment": environment(), "results": {"resnet": result}}
        given.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
