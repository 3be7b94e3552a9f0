"""`python loop_killed.py CONFIG STAGE…`: for each stage a process that runs the loop, and is killed there by SIGKILL.

The processes are forks of this one, which has imported all that is slow.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch._dynamo
import torch.export  # noqa: F401  # both are slow to import, which each of the forks would do

from poolscore.engine.config import parse_config
from poolscore.engine.storage.local import LocalStorage
from poolscore.jobs.loop import run_loop


def die_at(stage: str) -> None:
    """'before NAME' or 'after NAME': of the first object that is written whose name begins so."""
    when, name = stage.split()
    publish, create = LocalStorage.publish, LocalStorage.create

    def die(now: str, written: str) -> None:
        if now == when and written.startswith(name):
            print(stage, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    def publishing(self: LocalStorage, written: str, fill: Callable[[BinaryIO], object]) -> None:
        die("before", written)
        publish(self, written, fill)
        die("after", written)

    def creating(self: LocalStorage, written: str, data: bytes) -> bool:
        die("before", written)
        created = create(self, written, data)
        die("after", written)
        return created

    LocalStorage.publish, LocalStorage.create = publishing, creating  # type: ignore[method-assign]


def live(data: dict[str, Any], base: Path, stage: str) -> None:
    """One life; `stage` may also be 'training', which then kills it."""
    if stage == "training":
        print(stage, flush=True)
    else:
        die_at(stage)
    run_loop(parse_config(data, base=base))


def main() -> None:
    config = Path(sys.argv[1])
    for stage in sys.argv[2:]:
        if (pid := os.fork()) == 0:
            live(json.loads(config.read_text()), config.parent, stage)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"{stage}: was not reached ({status})")


if __name__ == "__main__":
    main()
