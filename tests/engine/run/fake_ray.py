"""What the fleet uses of Ray, in memory: actors find a place, answer and die when a test says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.exceptions import ActorDiedError, RayError

from poolscore.engine.machine.cores import Node


class Reference:
    """Of an answer that comes by and by."""

    def __init__(self, *given: Any) -> None:
        self.given = given
        self.answer: Any = None
        self.is_ready = False

    def put(self, answer: Any) -> None:
        """The answer, or what is raised in its place."""
        self.answer, self.is_ready = answer, True


class Method:
    """Of an actor."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def remote(self, *given: Any) -> Reference:
        """A call."""
        reference = Reference(*given)
        self._actor.calls.append(reference)
        if self._actor.dead is not None:
            reference.put(self._actor.dead)
        return reference


class Actor:
    """A worker, as Ray sees it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.calls: list[Reference] = []
        self.dead: RayError | None = None
        self.killed = False
        self.start, self.node, self.do = Method(self), Method(self), Method(self)

    def place(self, node: str) -> None:
        """It has a place."""
        self.calls[1].put(node)

    def ready(self, profile: Any) -> None:
        """Its model is built."""
        self.calls[0].put(profile)

    @property
    def tasks(self) -> list[Reference]:
        """What it was sent, and has not answered."""
        return [call for call in self.calls[2:] if not call.is_ready]

    def die(self, error: RayError | None = None) -> None:
        """Its process ends."""
        self.dead = error or ActorDiedError()
        for call in self.calls:
            if not call.is_ready:
                call.put(self.dead)


class FakeRay:
    """In place of the module, and of the cluster's machines."""

    def __init__(self, **machines: Node) -> None:
        self.machines: dict[str, Node] = machines
        self.draining: set[str] = set()
        self.actors: list[Actor] = []
        self.waited = 0.0

    def is_initialized(self) -> bool:
        """As ray's: a cluster is attached."""
        return True

    def remote(self, **options: Any) -> Any:
        """As ray's."""

        class Factory:
            @staticmethod
            def remote() -> Actor:
                self.actors.append(Actor(options))
                return self.actors[-1]

        return lambda cls: Factory

    def wait(self, references: Sequence[Reference], num_returns: int, timeout: float) -> tuple[list[Reference], None]:
        """As ray's, but time does not go by."""
        ready = [reference for reference in references if reference.is_ready]
        self.waited += 0 if ready else timeout
        return ready[:num_returns], None

    def get(self, reference: Reference) -> Any:
        """As ray's."""
        assert reference.is_ready, "it would wait for ever"
        if isinstance(reference.answer, Exception):
            raise reference.answer
        return reference.answer

    def kill(self, actor: Actor) -> None:
        """As ray's."""
        actor.killed = True
        if actor.dead is not None:
            raise actor.dead
        actor.die()
