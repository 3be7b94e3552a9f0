"""A process of its own for the user's code, so that its memory, threads and crashes are its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from poolscore.engine.errors import InterruptedRun


def run_logged(
    module: str,
    words: Sequence[str],
    log: Path,
    what: str,
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a module as a program till its end, and give its exit code; negative: the signal that killed it.

    Args:
        module: it ends itself when its standard input does, and so with this process, see `tied.py`.
        words: its arguments.
        log: what it prints goes there; an older log is replaced.
        what: it does, for the message of an interruption.
        env: to be added to this process's.

    Raises:
        InterruptedRun: Ctrl-C or SIGTERM; it was ended, with all processes of its own.
    """
    with (
        log.open("wb") as out,
        subprocess.Popen(
            # -P: not every file of the working directory is a module that may be imported
            [sys.executable, "-P", "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,  # Ctrl-C in a terminal is for this process alone
        ) as process,
    ):
        try:
            return process.wait()
        except KeyboardInterrupt as error:
            # Its standard input is closed here, of which it ends itself, and all that it has started.
            raise InterruptedRun(f"interrupted while {what}; the same command goes on") from error


def last_line(log: Path) -> str:
    """The last thing that it said."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it printed nothing")
