"""Storage is slow, busy, cut off, full, or away for a while."""

from __future__ import annotations

import random
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos.job import Job, Workshop
from chaos.same import Outcome, same
from chaos.struck import Strike, in_child, said
from pyarrow import fs
from s3_server import Proxy, S3Server, proxy_before

from poolscore.engine.storage.filesystem import locate

SHARDS = 24
STORM = 240.0  # seconds


@pytest.fixture
def in_bucket(workshop: Workshop, tmp_path: Path, bucket: str) -> Callable[..., Job]:
    """A job whose pool and run directory lie in a bucket; it asks `endpoint` for them."""
    at = locate(f"{bucket}/")
    fs.copy_files(str(workshop.folder / "pool"), f"{at.path}/pool", fs.LocalFileSystem(), at.filesystem)

    def make(endpoint: str, **run: Any) -> Job:
        config = workshop.config(f"{bucket}/run", **run)
        config["pool"]["uri"] = f"{bucket}/pool"
        return Job(tmp_path, config, {"AWS_ENDPOINT_URL": endpoint, "AWS_MAX_ATTEMPTS": "7"})

    return make


class Weather:
    """What goes wrong between a client and its storage, at random: good at first, because what fails before any work is
    the user's to mend.

    Args:
        fault: share of requests after which the next two are refused, or the answer of one is lost.
        wait: seconds that a request takes longer, at most.
    """

    def __init__(self, rng: random.Random, fault: float, wait: float) -> None:
        self._rng, self._fault, self._wait = rng, fault, wait
        self._lock = threading.Lock()
        self.proxy: Proxy | None = None  # set: it is bad

    def __call__(self, request: str) -> None:
        proxy = self.proxy
        if proxy is None:
            return
        with self._lock:
            drawn, wait = self._rng.random(), self._rng.uniform(0, self._wait)
        if drawn < self._fault / 2:
            proxy.busy = 2
        elif drawn < self._fault:
            proxy.lost = 1
        time.sleep(wait)


def _weathers(
    workshop: Workshop,
    in_bucket: Callable[..., Job],
    server: S3Server,
    weather: Weather,
    executor: str,
    begin: int = 1,
    end: int | None = SHARDS,
) -> str:
    """Run a job through it, from its first shard to its last, or as said; returns its run directory."""
    workshop.pace(0.005)
    with proxy_before(server.endpoint, weather) as proxy:
        job = in_bucket(proxy.endpoint, executor=executor)
        with job.running() as driver:
            driver.until_journalled(begin)
            weather.proxy = proxy
            if end is not None:
                driver.until_journalled(end)
                weather.proxy = None
            driver.wait()
    assert len(proxy.seen) > 100
    return job.run_dir


def test_requests_are_refused_or_lose_their_answers(
    workshop: Workshop, in_bucket: Callable[..., Job], s3_server: S3Server, reference: Outcome, rng: random.Random
) -> None:
    same(_weathers(workshop, in_bucket, s3_server, Weather(rng, fault=0.05, wait=0.01), "local"), reference)


@pytest.mark.chaos
@pytest.mark.parametrize("executor", ["local", "ray"])
@pytest.mark.parametrize(("fault", "wait"), [(0.2, 0.02), (0.02, 0.5)])
def test_a_storm(
    workshop: Workshop,
    in_bucket: Callable[..., Job],
    s3_server: S3Server,
    reference: Outcome,
    rng: random.Random,
    executor: str,
    fault: float,
    wait: float,
) -> None:
    same(_weathers(workshop, in_bucket, s3_server, Weather(rng, fault, wait), executor), reference)


@pytest.mark.chaos
def test_half_of_all_requests_fail(
    workshop: Workshop, in_bucket: Callable[..., Job], s3_server: S3Server, reference: Outcome, rng: random.Random
) -> None:
    """For minutes on end. The job ends right, or stops with one line, and the same command goes on after it."""
    weather = Weather(rng, fault=0.5, wait=0.02)
    with proxy_before(s3_server.endpoint, weather) as proxy:
        job = in_bucket(proxy.endpoint, executor="local", storage_patience=60.0)
        with job.running() as driver:
            driver.until_journalled(1)
            weather.proxy = proxy
            end = time.monotonic() + STORM
            while driver.process.poll() is None and time.monotonic() < end:
                time.sleep(1.0)
            print(f"{job.journalled()} shards in {len(proxy.seen)} requests, exit code {driver.process.poll()}")
            weather.proxy = None
            driver.wait(driver.process.poll() or 0)
        if driver.process.returncode:
            assert driver.process.returncode == 4, job.log()
            assert job.log().count("poolscore: ") == 1, job.log()
            job.finish()
    same(job.run_dir, reference)


@pytest.mark.chaos
def test_a_storm_while_the_selection_is_made(
    workshop: Workshop, in_bucket: Callable[..., Job], s3_server: S3Server, reference: Outcome, rng: random.Random
) -> None:
    weather = Weather(rng, fault=0.2, wait=0.02)
    same(_weathers(workshop, in_bucket, s3_server, weather, "local", begin=SHARDS - 1, end=None), reference)


@pytest.mark.chaos
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_storage_is_away_for_a_while(
    in_bucket: Callable[..., Job], s3_server: S3Server, reference: Outcome, workshop: Workshop, executor: str
) -> None:
    with proxy_before(s3_server.endpoint) as proxy:
        port = proxy.server_address[1]
        job = in_bucket(proxy.endpoint, executor=executor)
        workshop.pace(0.01)
        driver = job.start()
        try:
            driver.until_journalled(3)
        except BaseException:
            driver.end()
            raise
    try:
        time.sleep(10)  # nobody listens there
        assert driver.process.poll() is None, job.log()
        workshop.pace(0)
        with proxy_before(s3_server.endpoint, port=port):
            driver.wait()
    finally:
        driver.end()
    same(job.run_dir, reference)


@pytest.fixture
def in_process(workshop: Workshop, tmp_path: Path) -> Callable[..., Job]:
    """A job in the driver's own process."""

    def make(**run: Any) -> Job:
        return Job(tmp_path, workshop.config(str(tmp_path / "run"), executor="local", **run))

    return make


@pytest.mark.parametrize("call", ["^fsync scores/", "^link _log/", "^replace selection", "^replace _SUCCESS"])
def test_the_disk_is_full_for_a_while(
    in_process: Callable[..., Job], tmp_path: Path, reference: Outcome, call: str
) -> None:
    there, log = in_process(), tmp_path / "calls"
    command = ["score", str(there.file)]
    assert in_child(command, there.run_dir, log, Strike(1, call, do="ENOSPC", times=3)) == 0, said(log)
    assert len([line for line in log.read_text().splitlines() if re.search(call, line)]) > 3
    same(there.run_dir, reference)


@pytest.mark.parametrize("error", ["ENOSPC", "EACCES", "EIO"])
def test_a_disk_that_stays_full_stops_the_run_which_is_resumed(
    in_process: Callable[..., Job], tmp_path: Path, reference: Outcome, error: str
) -> None:
    there, log = in_process(storage_patience=0.5), tmp_path / "calls"
    command = ["score", str(there.file)]
    full = Strike(5, "^(fsync|link|replace) (scores|_log)/", do=error, times=10**6)
    assert in_child(command, there.run_dir, log, full) == 4, said(log)
    assert "run the same command again" in " ".join(said(log).split())
    assert in_child(command, there.run_dir, log) == 0, said(log)
    same(there.run_dir, reference)


@pytest.mark.chaos
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_small_disk_is_filled_and_emptied(
    workshop: Workshop, tmp_path: Path, reference: Outcome, executor: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        there = Job(tmp_path, workshop.config(str(disk / "run"), executor=executor))
        workshop.pace(0.01)
        with there.running() as driver:
            driver.until_journalled(3)
            before = there.journalled()
            with (disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(4096))
            time.sleep(3)
            assert there.journalled() <= before + 2
            (disk / "ballast").unlink()
            workshop.pace(0)
            driver.wait()
        same(there.run_dir, reference)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
