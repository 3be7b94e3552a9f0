"""A real job that can be broken: `python -m poolscore.jobs score`, in a session of its own with all that it starts."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pyarrow as pa
import torch
import yaml
from chaos.paced import FOLDER, started
from conftest import TESTS, write_pool
from PIL import Image

from poolscore.engine.run.directory import exists
from poolscore.engine.run.journal import read_reports
from poolscore.engine.storage.open import open_storage

PATIENCE = 120.0  # seconds until something that must happen counts as missing: the machine may be busy
RUN_PATIENCE = 600.0  # until a run must have ended
BROKEN = (7, 333, 334)  # pictures that are cut short, and end in errors/


@dataclass(frozen=True)
class Workshop:
    """A pool of real JPEGs, a model's weights, and how fast rows are decoded."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, rows: int) -> Workshop:
        """Set it up: handwritten digits in four files."""
        from poolscore.jobs.demo import read_digits

        pictures, _ = read_digits()
        jpegs = [_jpeg(pixels) for pixels in pictures[:rows]]
        for i in BROKEN:
            jpegs[i] = jpegs[i][: len(jpegs[i]) // 2]
        table = pa.table({"id": [f"digit-{i:04d}" for i in range(rows)], "image": pa.array(jpegs, pa.binary())})
        write_pool(folder / "pool", table, files=4, rows_per_group=25)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.save(nets.cnn().state_dict(), folder / "weights.pt")
        (folder / "home").mkdir()
        os.environ[FOLDER] = str(folder)
        workshop = cls(folder)
        workshop.pace(0)
        return workshop

    def config(self, run_dir: str, **run: Any) -> dict[str, Any]:
        """The job, with changes to `run`."""
        return {
            "pool": {"uri": str(self.folder / "pool"), "input": "image", "id": "id"}
            | {"decode": {"kind": "function", "function": "chaos.paced:digit"}},
            "model": {"source": "nets:cnn", "path": str(TESTS), "weights": str(self.folder / "weights.pt")}
            | {"task": "multiclass", "classes": 10},
            "passes": {"count": 3},
            "select": {"k": 40},
            "run": {"dir": run_dir, "workers": 2, "batch_size": 16, "shard_rows": 50, "device": "cpu"}
            | {"decode_threads": 1, **run},
        }

    def pace(self, seconds: float) -> None:
        """Let every row take so long."""
        self.say(str(seconds))

    def hold(self, held: int = 1, but: int = 0) -> list[int]:
        """Let every process wait at its next row, and wait until so many do, `but` one. Returns their numbers."""
        number = time.monotonic_ns()
        self.say(f"hold {number}")
        marks = self.folder / f"hold-{number}"
        return until(f"{held} processes at a row", lambda: enough(_alive(marks, but), held), self.marks)

    def at_work(self, but: int) -> list[int]:
        """Processes that have decoded a row and live, but one: the driver tries a batch before it starts workers."""
        return _alive(self.folder / "at-work", but)

    def marks(self) -> str:
        """Who decoded and who was held, ever."""
        return " ".join(str(mark.relative_to(self.folder)) for mark in sorted(self.folder.glob("*/*-*")))

    def say(self, pace: str) -> None:
        """What `paced` reads: seconds, or "hold N"."""
        new = self.folder / "pace.new"
        new.write_text(pace)
        new.replace(self.folder / "pace")


class Job:
    """A run, started as often as it takes."""

    def __init__(self, folder: Path, config: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.run_dir: str = config["run"]["dir"]
        self.file = folder / "job.yaml"
        self.file.write_text(yaml.safe_dump(dict(config)))
        self._environment = environment or {}

    def start(self, *words: str, program: tuple[str, ...] = ("-m", "poolscore.jobs")) -> Driver:
        """Start the command `poolscore score` with further words, or another program that takes the same."""
        path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "HOME": str(self.folder), "PYTHONPATH": path, **self._environment}
        environment.pop("RAY_ADDRESS", None)
        log = (self.folder / "log.txt").open("ab")
        process = subprocess.Popen(
            [sys.executable, *program, "score", str(self.file), *words],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        return Driver(process, self)

    @contextlib.contextmanager
    def running(self, *words: str, program: tuple[str, ...] = ("-m", "poolscore.jobs")) -> Iterator[Driver]:
        """Start it, and leave nothing of it behind, however the block ends."""
        driver = self.start(*words, program=program)
        try:
            yield driver
        finally:
            driver.end()

    def finish(self, *words: str) -> None:
        """Start it and require that it ends well."""
        with self.running(*words) as driver:
            driver.wait()

    def journalled(self) -> int:
        """Shards whose result counts by now."""
        return len(read_reports(open_storage(self.run_dir))) if exists(self.run_dir) else 0

    def log(self) -> str:
        """The last of what its drivers said."""
        return (self.folder / "log.txt").read_text(errors="replace")[-3000:]


class Driver:
    """The process of a command, and all that it started."""

    def __init__(self, process: subprocess.Popen[bytes], job: Job) -> None:
        self.process = process
        self.pid = process.pid
        self._job = job

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        """Wait for something while the command runs; returns what the condition gave."""

        def happened() -> Any:
            found = condition()
            assert found or self.process.poll() is None, (
                f"it ended ({self.process.poll()}) before {what}:\n{self._job.log()}"
            )
            return found

        return until(what, happened, self._job.log)

    def until_journalled(self, shards: int) -> None:
        """Wait until so many shards count."""
        self.until(f"{shards} shards in the journal", lambda: self._job.journalled() >= shards)

    def wait(self, code: int = 0) -> None:
        """Wait for its end, and require an exit code."""
        try:
            self.process.wait(RUN_PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self._job.log()}") from None
        assert self.process.returncode == code, f"exit code {self.process.returncode}, not {code}:\n{self._job.log()}"

    def send(self, number: signal.Signals) -> None:
        """Send the driver alone a signal."""
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(PATIENCE)

    def end(self) -> None:
        """Kill what is left of its session, and wait until nothing is."""
        while self.process.poll() is None or session(self.pid):
            for pid in session(self.pid):
                send(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.01)


def until(what: str, condition: Callable[[], Any], tell: Callable[[], str] = lambda: "") -> Any:
    """Wait for a condition; returns what it gave."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE:.0f} seconds\n{tell()}"
        time.sleep(0.002)
    return found


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def session(leader: int) -> list[int]:
    """The living processes of a session."""
    return [pid for pid, of in _processes(3) if of == leader]


def descendants(ancestor: int) -> list[int]:
    """The living processes below one."""
    children: dict[int, list[int]] = {}
    for pid, parent in _processes(1):
        children.setdefault(parent, []).append(pid)
    found, look_at = [], [ancestor]
    while look_at:
        below = children.get(look_at.pop(), [])
        found += below
        look_at += below
    return found


def _processes(number: int) -> Iterator[tuple[int, int]]:
    """Living processes with a field of their /proc/PID/stat, counted from the state."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    yield int(folder.name), int(fields[number])


def _alive(marks: Path, but: int) -> list[int]:
    if not marks.is_dir():
        return []
    spared = {but, os.getpid()}  # a test may have decoded rows in this very process
    pairs = [mark.name.split("-") for mark in marks.iterdir()]
    return sorted(int(pid) for pid, start in pairs if int(pid) not in spared and started(int(pid)) == start)


def enough(pids: list[int], count: int) -> list[int]:
    """The processes, if they are so many."""
    return pids if len(pids) >= count else []


def _jpeg(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
