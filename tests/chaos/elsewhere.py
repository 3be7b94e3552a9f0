"""A driver that is told another place and another time than the rest: `python -m chaos.elsewhere score …`.

It takes itself for a process of another machine, so that only its heartbeat says whether it lives; and its clock, time
of day and not the monotonic one, is ahead by the seconds in the file that the environment names (CLOCK).
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from poolscore.engine.run import heartbeat

CLOCK = "CHAOS_CLOCK"


def leave() -> None:
    """Before anything else of poolscore is imported."""
    here, now = heartbeat.this_process, time.time
    heartbeat.this_process = lambda: replace(here(), host="elsewhere", boot="another machine's")
    if CLOCK in os.environ:
        time.time = lambda: now() + float(Path(os.environ[CLOCK]).read_text())


if __name__ == "__main__":
    leave()
    from poolscore.jobs.cli import process

    process()
