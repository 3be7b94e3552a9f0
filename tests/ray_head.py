"""A real Ray cluster that takes jobs, in processes of its own: ports, folder, HOME and token are nobody else's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests
from chaos.job import descendants, send
from s3_server import free_port

START_SECONDS, ATTEMPTS = 120.0, 3
STORE = "80000000"  # bytes
TOKEN = "f" * 32 + "0123456789abcdef" * 2  # as long as Ray wants one


@dataclass(frozen=True)
class Head:
    """Where it is."""

    url: str
    folder: Path
    gcs: str

    @property
    def token_file(self) -> Path:
        """Where its owner has the token, if it wants one."""
        return self.folder / "home" / ".ray" / "auth_token"


@contextmanager
def ray_head(token: bool = False, cpus: int = 2) -> Iterator[Head]:
    """Start a head node with a dashboard on loopback; kill it with all that runs on it."""
    folder = Path(tempfile.mkdtemp(prefix="ps", dir="/tmp"))  # sockets lie in it, whose paths must be short
    (folder / "home" / ".ray").mkdir(parents=True)
    try:
        for _ in range(ATTEMPTS):  # somebody may take a port before it does
            with _started(folder, token, cpus) as head:
                if head is not None:
                    yield head
                    return
        raise AssertionError((folder / "log.txt").read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(folder: Path, token: bool, cpus: int) -> Iterator[Head | None]:
    """None: it did not come up."""
    gcs, dashboard, agent, metrics, client = (free_port() for _ in range(5))
    head = Head(f"http://127.0.0.1:{dashboard}", folder, f"127.0.0.1:{gcs}")
    if token:
        head.token_file.write_text(TOKEN)
    words = [
        *("start", "--head", "--block", "--disable-usage-stats", "--include-dashboard", "true"),
        *("--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1", "--temp-dir", str(folder / "t")),
        *("--num-cpus", str(cpus), "--num-gpus", "0", "--object-store-memory", STORE, "--port", str(gcs)),
        *("--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", str(agent)),
        *("--metrics-export-port", str(metrics), "--ray-client-server-port", str(client)),
    ]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *words],
            env=_environment(head, token),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        up = all(_answers(url, process) for url in (f"{head.url}/api/version", f"http://127.0.0.1:{agent}/api/version"))
        yield head if up else None
        assert not up or process.poll() is None, f"the cluster died by itself:\n{(folder / 'log.txt').read_text()}"
    finally:
        for pid in [process.pid, *descendants(process.pid)]:
            send(pid, signal.SIGKILL)
        process.wait()


def _environment(head: Head, token: bool) -> dict[str, str]:
    """What the cluster's machine has, which is not what this process has: no way to poolscore's source, no token."""
    left_out = ("PYTHONPATH", "RAY_ADDRESS", "RAY_AUTH_TOKEN")
    given = {name: value for name, value in os.environ.items() if name not in left_out}
    return given | {"HOME": str(head.folder / "home"), "RAY_AUTH_MODE": "token" if token else "disabled"}


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether it does, whatever, as long as the process lives."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with suppress(requests.RequestException):
            requests.get(url, timeout=5)
            return True
        time.sleep(0.2)
    return False
