"""On which machine of a cluster a job's driver runs: one that is not taken away, and whose GPU it does not block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolscore.engine.config import RunConfig, SubmitConfig
from poolscore.engine.errors import ConfigError

NODE_ID, MARKET = "ray.io/node-id", "ray.io/market-type"  # labels that Ray gives by itself
SPOT = "spot"
MOST_NAMED = 50  # machines in a selector


@dataclass(frozen=True)
class Place:
    """What is asked for the driver, as Ray's `submit_job` takes it; nothing: it runs on the head node."""

    asked: dict[str, Any]
    in_words: str


def place_of_driver(config: SubmitConfig, nodes: Sequence[dict[str, Any]]) -> Place:
    """As configured; else, where machines with GPUs are to be kept free, one CPU of a machine without; else the head.

    Args:
        nodes: the machines that live, as `Cluster.nodes` tells them.
    """
    if asked := _configured(config):
        return Place(asked, "where submit.entrypoint_* says")
    quiet = [node for node in nodes if _is_quiet(node)]
    if _gpus(nodes) and quiet:
        names = ",".join(sorted(str(node["node_id"]) for node in quiet)[:MOST_NAMED])
        asked = {"entrypoint_num_cpus": 1, "entrypoint_label_selector": {NODE_ID: f"in({names})"}}
        return Place(asked, "on a machine without GPUs, where it takes one CPU")
    return Place({}, "on the head node")


def require_room(config: RunConfig, nodes: Sequence[dict[str, Any]]) -> None:
    """Refuse a job whose workers find no machine in a cluster that is not asked to grow.

    Raises:
        ConfigError: so it is.
    """
    if config.max_workers or not nodes:
        return
    needed, most = config.threads + (config.decode_threads or 0), max(map(_cpus, nodes))
    if needed > most:
        raise ConfigError(
            f"run.threads, run.decode_threads: a worker asks for {needed} CPUs, the largest machine of the cluster has "
            f"{most:g}; give it fewer, or run.max_workers if its autoscaler is to bring a larger one"
        )
    if config.device == "cuda" and not _gpus(nodes):
        raise ConfigError(
            "run.device: 'cuda' is asked for, but the Ray cluster has no GPU; if its autoscaler is to bring some, give "
            "run.max_workers"
        )


def _configured(config: SubmitConfig) -> dict[str, Any]:
    given = {
        "entrypoint_num_cpus": config.entrypoint_num_cpus,
        "entrypoint_memory": config.entrypoint_memory,
        "entrypoint_resources": config.entrypoint_resources or None,
        "entrypoint_label_selector": config.entrypoint_label_selector or None,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    return {"entrypoint_num_cpus": 1, **asked} if asked else {}


def _cpus(node: dict[str, Any]) -> float:
    return float((node.get("resources_total") or {}).get("CPU", 0))


def _is_quiet(node: dict[str, Any]) -> bool:
    has = node.get("resources_total") or {}
    return not has.get("GPU") and _cpus(node) >= 1 and (node.get("labels") or {}).get(MARKET) != SPOT


def _gpus(nodes: Sequence[dict[str, Any]]) -> float:
    return sum(float((node.get("resources_total") or {}).get("GPU", 0)) for node in nodes)
