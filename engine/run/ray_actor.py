"""A worker in a process of Ray's, and what the driver knows of it."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from poolscore.engine import log
from poolscore.engine.errors import PoolscoreError
from poolscore.engine.machine.cores import bind_to_gpu
from poolscore.engine.run.task import Task
from poolscore.engine.worker.job import Job
from poolscore.engine.worker.worker import ShardWorker


class Actor:
    """Runs in the worker process. `start` is apart from the constructor so that its errors arrive as they are."""

    def node(self) -> str:
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def start(
        self, job: Job, name: str, not_on_path: Sequence[str], log_form: str | None, log_fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Build the model; the log is written as the driver writes its own."""
        log.set_up_worker(log_form, **log_fields, by=name)
        self.leave_path(not_on_path)
        bind_to_gpu(job.config.run)
        self._worker = ShardWorker(job, name)
        log.event(logging.INFO, f"{self._worker.name} is ready", device=self._worker.profile["device"])
        return self._worker.profile

    def do(self, task: Task) -> Any:
        try:
            return task.do(self._worker)
        except PoolscoreError:
            raise
        except Exception:  # of the model or a decoder, which is the user's code: the driver hears of it in one line
            log.LOG.exception("shard %d failed", task.shard.index)
            raise

    def leave_path(self, folders: Sequence[str]) -> None:
        # Ray puts the driver's working directory on the path of its workers. Code is imported from what is installed
        # and from model.path, nothing else: the same as in the driver.
        sys.path[:] = [folder for folder in sys.path if folder not in folders]


@dataclass(eq=False)
class RayWorker:
    """What the driver knows of an actor."""

    number: int
    actor: Any
    placing: Any  # reference, ready once Ray has found a place; None: it has
    starting: Any  # reference, ready once the model is built; None: it is
    node: str | None = None
    placed: float = 0.0  # when
    leaving: bool = False  # its machine is about to be taken away
    given: deque[tuple[Any, Task]] = field(default_factory=deque)  # reference (None: not sent yet) and task

    def references(self) -> Iterator[Any]:
        yield from (ref for ref in (self.placing, self.starting) if ref is not None)
        yield from (ref for ref, _ in self.given if ref is not None)
