"""How many workers a cluster has places for, and when to start another one. Pure: told of machines and the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poolscore.engine.config import RunConfig
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.machine.cores import Node, cores_per_worker

MAX_DEATHS_AT_START = 3  # workers that die before they are ready, in a row and while no other works
LONGEST_PAUSE = 60.0  # seconds before another worker is started where they die at start again and again


@dataclass(frozen=True)
class Ask:
    """What a worker asks of a machine."""

    cpus: int
    gpus: int


class Elastic:
    """Decides on the number of workers as machines come and go.

    Args:
        config: `workers` is a fixed number; else what the cluster has places for, at most `max_workers`.
        nodes: the machines of the cluster now. Whether the workers use GPUs is decided by them, once.
        attached: to a cluster that may grow. Then all of `max_workers` are asked for: those without a place are what
            makes an autoscaler add machines.
        clock: seconds that never run backwards.

    Raises:
        ConfigError: no machine can hold a worker, and none is asked to come.
    """

    def __init__(
        self, config: RunConfig, nodes: Sequence[Node], attached: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._clock = config, clock
        self._grows = attached and config.max_workers is not None
        self._least = config.threads + (config.decode_threads or 0)
        gpus = sum(node.gpus for node in nodes)
        self.on_gpu = config.device == "cuda" or (config.device == "auto" and gpus > 0)
        self._deaths = 0
        self._not_before = 0.0
        self._present = clock()
        if self._grows:
            return
        if self.on_gpu and not gpus:
            raise ConfigError("run.device: 'cuda' is asked for, but the Ray cluster has no GPU")
        if self._least > max((node.cpus for node in nodes), default=0):
            asked = "run.threads and run.decode_threads" if config.decode_threads else "run.threads"
            raise ConfigError(f"{asked}: {self._least} are asked for, no node of the Ray cluster has that many CPUs")

    def wanted(self, nodes: Sequence[Node]) -> int:
        """Workers there should be. At least one, which brings a machine back where an autoscaler watches."""
        if self._config.workers:
            return self._config.workers
        most = self._config.max_workers
        if self._grows and most is not None:
            return most
        places = self._places(nodes)
        return max(1, places if most is None else min(places, most))

    def ask(self, nodes: Sequence[Node]) -> Ask:
        """What the next worker asks for: as many cores as each can have if all are to find a place."""
        gpus = 1 if self.on_gpu else 0
        if self._config.decode_threads is not None:
            return Ask(self._least, gpus)
        return Ask(cores_per_worker(nodes, self.at_once(nodes), self._least, self.on_gpu), gpus)

    def at_once(self, nodes: Sequence[Node]) -> int:
        """Workers there should be that these machines have places for. At least one."""
        return min(self.wanted(nodes), max(1, self._places(nodes)))

    def may_come(self, nodes: Sequence[Node]) -> bool:
        """Whether there is a place for a worker, or may be one once machines join."""
        return self._grows or self._places(nodes) > 0

    def may_start(self) -> bool:
        """Whether it is time to start another worker."""
        return self._clock() >= self._not_before

    def started(self) -> None:
        """A worker is ready."""
        self._deaths = 0

    def died_at_start(self, reason: str, others: bool) -> None:
        """A worker died before it was ready, on a machine that lives on.

        Raises:
            StoppedError: it looks hopeless.
        """
        self._deaths += 1
        if self._deaths >= MAX_DEATHS_AT_START and not others:
            raise StoppedError(f"{self._deaths} workers in a row died while they started: {reason}")
        if self._deaths > 1:
            self._not_before = self._clock() + min(LONGEST_PAUSE, 2.0**self._deaths)

    def require_workers(self, present: int, nodes: Sequence[Node]) -> None:
        """To be called again and again with the number of workers that have a place.

        Raises:
            StoppedError: there has been none for too long.
        """
        if present:
            self._present = self._clock()
        elif self._clock() - self._present > self._config.wait_for_workers:
            ask = self.ask(nodes)
            needs = f"{ask.cpus} CPUs" + (" and 1 GPU" if ask.gpus else "")
            raise StoppedError(
                f"the Ray cluster had no free place for a worker ({needs}) for {self._config.wait_for_workers:g} s "
                "(run.wait_for_workers); the same command goes on once it has"
            )

    def _places(self, nodes: Sequence[Node]) -> int:
        if self.on_gpu:
            return sum(node.gpus for node in nodes)
        return sum(node.cpus // self._least for node in nodes)
