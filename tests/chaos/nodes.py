"""A Ray cluster of several nodes on this machine: they come, are drained, and die with all that runs on them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from chaos.job import Workshop, descendants, send

CPUS = 2  # of a node: one worker, with its decoding thread
STORE = 80_000_000  # bytes


class Nodes:
    """A head that does no work, and nodes of one worker each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
        self._others = set(descendants(os.getpid()))  # such as the Ray of tests that run in this process
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: list[Any] = []
        self.address: str = self._cluster.address

    def add(self, **environment: str) -> Any:
        """A node joins."""
        node = self._cluster.add_node(num_cpus=CPUS, object_store_memory=STORE, env_vars=environment or None)
        self._nodes.append(node)
        return node

    def kill(self, node: Any) -> None:
        """As when the machine loses power: the raylet and all its children."""
        self._nodes.remove(node)
        for pid in [raylet(node), *descendants(raylet(node))]:
            send(pid, signal.SIGKILL)
        self._bury(node)

    def remove(self, node: Any) -> None:
        """As when it is taken out of the cluster in good order."""
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=True)

    def drain(self, node: Any) -> None:
        """Its end is announced, as a spot market does."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

        deadline = int((time.time() + 60) * 1000)
        accepted, why_not = GcsClient(address=self.address).drain_node(
            node.node_id, DRAIN_NODE_REASON_PREEMPTION, "the machine is wanted back", deadline
        )
        assert accepted, why_not

    def clear(self) -> None:
        """All but the head die."""
        while self._nodes:
            self.kill(self._nodes[-1])

    def close(self) -> None:
        """All of them go."""
        self.clear()
        head = self._cluster.head_node
        below = set(descendants(os.getpid())) - self._others
        self._cluster.shutdown()
        self._bury(head)
        for pid in below & set(descendants(os.getpid())):
            send(pid, signal.SIGKILL)

    @staticmethod
    def _bury(node: Any) -> None:
        for processes in node.all_processes.values():
            for one in processes:
                one.process.kill()
                one.process.wait()


def raylet(node: Any) -> int:
    """The process by which a node belongs to the cluster, and whose children its workers are."""
    return int(node.all_processes["raylet"][0].process.pid)


def at_work(workshop: Workshop, node: Any) -> list[int]:
    """Processes of a node that have decoded a row."""
    return sorted(set(descendants(raylet(node))) & set(workshop.at_work(but=0)))
