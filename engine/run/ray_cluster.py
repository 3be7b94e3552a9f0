"""What the driver asks of a Ray cluster: to be there, its machines, and which of them are about to be taken away."""

from __future__ import annotations

import logging
import os
import re
import socket
from typing import Any

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.machine.cores import Node
from poolscore.engine.run.signals import signals_after

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.util.metrics import Counter as Counter  # for engine/run/metrics.py, which knows no Ray
from ray.util.metrics import Gauge as Gauge

LOCAL = "local"
ANSWER_SECONDS = 5.0  # for an address that is given; Ray itself tries for minutes
LOCAL_OBJECT_STORE = 80_000_000  # bytes; Ray's minimum


def connect(address: str | None, slots: int | None = None, *, option: str = "run.address") -> None:
    """Attach to a cluster, or start a local Ray with so many CPUs.

    Args:
        address: of the cluster; 'local': a local Ray; None: RAY_ADDRESS's, or a local Ray.
        slots: workers of a local Ray, through which nothing large travels; None: whatever the machine has.
        option: where the user gave the address.

    Raises:
        ConfigError: it cannot be reached, or does not start.
    """
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    require_answer(address, option)
    local: dict[str, Any] = {"include_dashboard": False}
    if slots is not None:
        local |= {"num_cpus": slots, "object_store_memory": LOCAL_OBJECT_STORE}
    try:
        with signals_after():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.WARNING,
                configure_logging=True,
                **(local if address == LOCAL else {}),
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "a local Ray" if address == LOCAL else f"the Ray cluster at {address}"
        raise ConfigError(f"{option}: cannot start on {where}: {one_line(error)}") from error


def require_answer(address: str, option: str) -> None:
    """Refuse an address where nobody listens, within seconds. Others than of a host and a port are left to Ray.

    Raises:
        ConfigError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as there:
            web = _speaks_http(there)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{option}: no Ray cluster answers at {address} ({one_line(error)}); give its HOST:PORT, as `ray start "
            "--head` tells it"
        ) from error
    if web:
        raise ConfigError(
            f"{option}: {address} is a web page; is it the cluster's dashboard, which `poolscore submit` takes? Give "
            "the HOST:PORT that `ray start --head` tells, such as HOST:6379"
        )


def _speaks_http(there: socket.socket) -> bool:
    try:
        there.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return there.recv(5) == b"HTTP/"
    except OSError:  # who does not like the question is none
        return False


def machines() -> dict[str, Node]:
    """The machines of the cluster that live, and what they have."""
    return {
        node["NodeID"]: Node(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()
        if node["Alive"]
    }


def draining() -> set[str]:
    """Machines that are about to be taken away: an autoscaler, a spot market or `ray drain-node` said so. No public
    API tells; this is what Ray's own libraries ask (2.60)."""
    return set(ray._private.state.state.get_draining_nodes())


def how_it_died(error: RayError) -> str:
    """What Ray knows of it, without the numbers and addresses before and the guesses behind."""
    text = one_line(error)
    detail = re.search("Worker exit detail: (.+?) *(Some common causes|If the process was|$)", text)
    return detail[1] if detail else text


def was_told_to_go(error: RayError) -> bool:
    """Whether a worker ended because somebody wanted its machine or its process back: no shard is to blame. After a
    SIGTERM Ray lets a worker finish what it is at, and report it."""
    return (isinstance(error, RayActorError) and error.preempted) or "SIGTERM" in str(error)


def machine_died(error: RayError) -> bool:
    """Whether a worker ended with its machine: Ray says so, or can reach neither."""
    return isinstance(error, ActorUnavailableError) or "its node has died" in str(error)
