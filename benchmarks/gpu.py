"""`make gpu`: everything that only a machine with a GPU can show, each part on its own, most important first.

    make gpu                                        all parts
    make gpu PART="bits soak"                       some of them
    make gpu MINUTES=8.5 OUT=.gpu                   what fits; the same again goes on where this one ended
    python benchmarks/gpu.py --device cpu           the same with small sizes, to lose no GPU minute to a typo

Each part is a process of its own with a deadline. As it ends it is written to OUT as PART_HARDWARE_DATE.json, with the
environment, and predictions beside what was measured. A part is passed over that has ended well in OUT with the same
hardware and sources (engine, kernels, jobs); `--again` measures it anew. What has failed there, or was left out because
something is missing, is tried again when all else has had its turn. A table comes last.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_parts.listed import PARTS
from gpu_parts.part import Part, Result, told

from poolscore.jobs.bench.environment import environment

HERE = Path(__file__).parent
SOURCES = ("engine", "kernels", "jobs")  # a part that is done counts as long as these are the same
PATIENCE = 2  # times its guess, and a minute: the deadline of a part
MARK = "POOLSCORE_GPU_PART"  # in the environment of whatever a part starts: its folder
SECONDS_TO_DIE = 30.0  # after a kill: a driver may take its time to free what a process held
WIDTH = 66  # of what a line of the table says


def run_parts(
    names: Sequence[str],
    parts: Mapping[str, Part],
    done: Callable[[str], bool],
    run: Callable[[str, float], None],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, str]:
    """Run what is not done and fits, in order; what became of each part: "done before", "ran", "left".

    Args:
        run: a part's name and the seconds that are left for it.
        seconds: for all. No part is started whose guess is more than what is left; a shorter one behind it may be.
    """
    end = clock() + seconds
    became = {}
    for name in names:
        if done(name):
            became[name] = "done before"
        elif parts[name].seconds > end - clock():
            became[name] = "left"
        else:
            run(name, end - clock())
            became[name] = "ran"
    return became


class Results:
    """The folder of results: one file for each part and time."""

    def __init__(self, folder: Path, hardware: str) -> None:
        self._folder, self._hardware = folder, hardware
        self._sources = sources()
        folder.mkdir(parents=True, exist_ok=True)

    def last(self, name: str) -> Result | None:
        """The newest document of a part with this hardware and these sources."""
        files = self._folder.glob(f"{name}_{self._hardware}_????-??-??-??????.json")
        documents = (json.loads(file.read_text()) for file in sorted(files, reverse=True))
        # Other benchmarks name their files like this, too, but theirs have no sources.
        return next((one for one in documents if one.get("sources") == self._sources), None)

    def done(self, name: str) -> bool:
        """Whether it ended well, and nothing that it needs was missing."""
        found = self.last(name)
        return found is not None and bool(found["result"]["ok"]) and "left_out" not in found["result"]

    def tried(self, name: str) -> bool:
        """Whether it has had its turn: it ended, well or not, or took all of the time that a part may take."""
        found = self.last(name)
        return found is not None and not found["result"].get("cut_short", False)

    def write(self, name: str, result: Result, of: Mapping[str, Any], seconds: float) -> None:
        """A part has ended. Where git says nothing, the commit is what OUT/COMMIT holds, or unknown."""
        where = dict(of)
        if not where["commit"]:
            file = self._folder / "COMMIT"
            where["commit"] = file.read_text().strip() if file.exists() else "unknown"
        document: dict[str, Any] = {
            "part": name,
            "about": PARTS[name].about,
            "sources": self._sources,
            "environment": where,
        }
        document |= {"seconds": round(seconds, 1), "guessed_seconds": PARTS[name].seconds, "result": result}
        path = self._folder / f"{name}_{self._hardware}_{time.strftime('%Y-%m-%d-%H%M%S')}.json"
        path.with_suffix(".new").write_text(json.dumps(document, indent=2) + "\n")
        path.with_suffix(".new").replace(path)


def sources() -> str:
    """A digest of the product's code."""
    digest = hashlib.sha256()
    for file in sorted(file for folder in SOURCES for file in (HERE.parent / folder).rglob("*.py")):
        digest.update(file.relative_to(HERE.parent).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def in_a_process(name: str, device: str, results: Results, seconds: float) -> None:
    """Run a part in a process of its own, which a broken GPU context or a hanging kernel does not outlive."""
    print(f"== {name}: {PARTS[name].about} (guessed: {PARTS[name].seconds} s)", flush=True)
    started = time.monotonic()
    deadline = PARTS[name].seconds * PATIENCE + 60
    with tempfile.TemporaryDirectory(prefix="poolscore-gpu-", ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--device", device, "--child", name, "--folder", folder]
        process = subprocess.Popen(command, env={**os.environ, MARK: folder})
        try:
            code: int | None = process.wait(min(seconds, deadline))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process, folder)
        if out.exists():
            found = json.loads(out.read_text())
        else:
            why = "was not done in time" if code is None else f"ended with exit code {code}"
            result = told(Path(folder) / "work") | {"ok": False, "error": why}
            result["cut_short"] = code is None and seconds < deadline
            found = {"result": result, "environment": environment()}
    results.write(name, found["result"], found["environment"], time.monotonic() - started)


def _end(process: subprocess.Popen[bytes], folder: str) -> None:
    """Kill a part with all that it started, also in sessions of their own, as Ray's processes: they hold the GPU.

    Returns when all their threads have ended, for the next part wants what they held, or after SECONDS_TO_DIE.
    """
    process.kill()
    process.wait()
    mark, deadline = f"{MARK}={folder}".encode(), time.monotonic() + SECONDS_TO_DIE
    while (left := _bearing(mark)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(OSError):  # it has ended
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(OSError):
                ended = os.pidfd_open(pid)
                select.select([ended], [], [], max(0.0, deadline - time.monotonic()))
                os.close(ended)
    if left:
        print(f"processes {left} of this part do not end", flush=True)


def _bearing(mark: bytes) -> list[int]:
    """The processes in whose environment the mark is; a dead one that waits for its parent has none."""
    pids = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environ.read_bytes().split(b"\0"):
                pids.append(int(environ.parent.name))
    return pids


def child(name: str, device: str, folder: Path) -> None:
    """Run a part here; the clocks of its environment are those at its end."""
    work = folder / "work"
    work.mkdir()
    try:
        result = PARTS[name].run(device, work)
    except Exception as error:
        said = getattr(error, "stderr", None) or ""
        result = told(work) | {"ok": False, "error": f"{type(error).__name__}: {error} {said[-2000:]}".strip()}
    document = {"result": result, "environment": environment()}
    (folder / "result.new").write_text(json.dumps(document))
    (folder / "result.new").replace(folder / "result.json")


def table(became: Mapping[str, str], results: Results) -> str:
    """A line for each figure, and one for what went wrong or is left."""
    lines = [f"{'':{WIDTH}} {'measured':>14} {'predicted':>10} {'to reach':>9}"]
    for name, how in became.items():
        found = results.last(name)
        if how == "left" or found is None:
            lines.append(f"LEFT {name}: {PARTS[name].about}, about {PARTS[name].seconds} s")
            continue
        result = found["result"]
        error = f" {result['error'].splitlines()[0][:150]}" if "error" in result else ""
        lines.append(f"{'ok  ' if result['ok'] else 'FAIL'} {name} ({how}, {found['seconds']} s){error}")
        for one in result["figures"]:
            predicted = "" if one["predicted"] is None else str(one["predicted"])
            measured = f"{one['measured']} {one['unit']}".strip()
            lines.append(f"  {one['what']:{WIDTH - 2}} {measured:>14} {predicted:>10} {one['reach']:>9}".rstrip())
    return "\n".join(lines)


def main() -> int:
    """Run the parts that are asked for; a part that fails does not keep the others from running."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--part", choices=list(PARTS), action="append", help="default: all")
    arguments.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    arguments.add_argument("--minutes", type=float, default=float("inf"), help="for all; what does not fit is left")
    arguments.add_argument("--again", action="store_true", help="also what is done")
    arguments.add_argument("--child", choices=list(PARTS), help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        child(given.child, given.device, given.folder)
        return 0
    if given.device == "cuda" and not torch.cuda.is_available():
        print("make gpu: torch finds no GPU here; `python benchmarks/gpu.py --device cpu` is the dry run")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a part's processes end with this one
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    hardware = torch.cuda.get_device_name().replace(" ", "-") if given.device == "cuda" else "cpu"
    results = Results(given.out, hardware)
    names = [name for name in PARTS if name in (given.part or PARTS)]
    became = run_parts(
        sorted(names, key=results.tried),  # what fails each time must not take the others' time in each call
        PARTS,
        lambda name: not given.again and results.done(name),
        lambda name, seconds: in_a_process(name, given.device, results, seconds),
        given.minutes * 60,
    )
    print(table({name: became[name] for name in names}, results), flush=True)
    documents = [results.last(name) for name in names]
    return 0 if all(one is not None and one["result"]["ok"] for one in documents) else 1


if __name__ == "__main__":
    sys.exit(main())
