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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.job import descendants, send
from s3_server import free_port

START_SECONDS = 120.0
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
    gcs, dashboard = f"127.0.0.1:{free_port()}", free_port()
    head = Head(f"http://127.0.0.1:{dashboard}", folder, gcs)
    head.token_file.parent.mkdir(parents=True)
    if token:
        head.token_file.write_text(TOKEN)
    ports = {
        "--port": gcs.rpartition(":")[2],
        "--dashboard-port": dashboard,
        **{name: free_port() for name in ("--dashboard-agent-listen-port", "--metrics-export-port")},
        "--ray-client-server-port": free_port(),
    }
    words = [
        *("start", "--head", "--block", "--disable-usage-stats", "--include-dashboard", "true"),
        *("--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1", "--temp-dir", str(folder / "t")),
        *("--num-cpus", str(cpus), "--num-gpus", "0", "--object-store-memory", STORE),
        *(str(word) for pair in ports.items() for word in pair),
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
        _wait(head, process)
        yield head
        assert process.poll() is None, f"the cluster died by itself:\n{(folder / 'log.txt').read_text()}"
    finally:
        for pid in [process.pid, *descendants(process.pid)]:
            send(pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _environment(head: Head, token: bool) -> dict[str, str]:
    """What the cluster's machine has, which is not what this process has: no way to poolscore's source, no token."""
    left_out = ("PYTHONPATH", "RAY_ADDRESS", "RAY_AUTH_TOKEN")
    given = {name: value for name, value in os.environ.items() if name not in left_out}
    return given | {"HOME": str(head.folder / "home"), "RAY_AUTH_MODE": "token" if token else "disabled"}


def _wait(head: Head, process: subprocess.Popen[bytes]) -> None:
    """Until it takes jobs."""
    import requests

    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, (head.folder / "log.txt").read_text()
        try:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            if requests.get(f"{head.url}/api/version", headers=headers, timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise AssertionError(f"no dashboard within {START_SECONDS:g} s: {(head.folder / 'log.txt').read_text()}")
