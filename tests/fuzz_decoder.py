"""Damaged pictures by the thousand: each is decoded as Pillow decodes it, or refused where Pillow refuses it.

    python tests/fuzz_decoder.py --files 20000 --seed 0

Each file is decoded in a process that is watched: a crash or a hang is found, named, and the next file is tried.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pyarrow as pa
from odd_pictures import by_pillow, damaged

from poolscore.engine.config import ImageDecode
from poolscore.engine.inputs.image import ImageDecoder

SECONDS = 20  # for one file, on a busy machine
MEMORY = 8 << 30  # address space of the process
MAX_PIXELS = 1 << 22  # so that damage to a header does not make the run slow
WAYS: tuple[dict[str, Any], ...] = (
    {"mode": "RGB"},
    {"mode": "L"},
    {"mode": "RGB", "exif": "apply"},
    {"mode": "L", "exif": "apply"},
)
FINE = ("as Pillow", "refused, as by Pillow", "refused: too many pixels", "refused: more than 8 bits")


def judge(data: bytes, way: dict[str, Any]) -> str:
    """What our decoder does with a file, beside what Pillow does."""
    decoder = ImageDecoder(ImageDecode(column="x", max_pixels=MAX_PIXELS, **way))
    table = pa.table({"x": pa.array([data], pa.binary())})
    spec = decoder.row_spec(table)
    shape = spec.shape if spec else (1, 1, len(way["mode"]))
    out = np.full((1, *shape), 7, np.uint8)
    reason = decoder.decode(table, out).get(0)
    if (reason is None) != (spec is not None) or (reason is not None and out.any()):
        return f"the decoder contradicts itself: {spec}, {reason}"
    if reason is not None and f"more than {MAX_PIXELS}" in reason:
        return "refused: too many pixels"
    if reason is not None and reason.startswith("more than 8 bits"):
        return "refused: more than 8 bits"
    try:
        expected = by_pillow(data, way["mode"], way.get("exif", "ignore"))
    except Exception:
        return "decoded, refused by Pillow" if reason is None else "refused, as by Pillow"
    if reason is not None:
        return f"refused, not by Pillow: {reason}"
    return "as Pillow" if np.array_equal(out[0], expected) else "not as Pillow"


def _serve(pipe: Connection, seed: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")  # Pillow's, of odd metadata
    while True:
        index = pipe.recv()
        pipe.send(judge(damaged(index, seed), WAYS[index % len(WAYS)]))


def fuzz(files: int, seed: int) -> Iterator[tuple[int, str]]:
    """(index, verdict) of each of the damaged files."""
    context = multiprocessing.get_context("spawn")
    process = pipe = None
    for index in range(files):
        if process is None or pipe is None:
            pipe, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, seed), daemon=True)
            process.start()
            theirs.close()
        pipe.send(index)
        try:
            verdict = pipe.recv() if pipe.poll(SECONDS) else "hangs"
        except EOFError:
            process.join()
            verdict = f"crashes: exit code {process.exitcode}"
        yield index, verdict
        if verdict.startswith(("hangs", "crashes")):
            process.kill()
            process = None
    if process is not None:
        process.kill()
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    verdicts: Counter[str] = Counter()
    for index, verdict in fuzz(asked.files, asked.seed):
        verdicts[verdict] += 1
        if verdict not in FINE:
            print(f"file {index}: {verdict}")
    for verdict, count in verdicts.most_common():
        print(f"{count:8,}  {verdict}")
    raise SystemExit(any(verdict not in FINE for verdict in verdicts))


if __name__ == "__main__":
    main()
