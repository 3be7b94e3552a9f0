"""A driver that the operating system fails, or that is killed, at a call of its own choosing.

Only calls by which something below the run directory comes to last, appears or goes are counted. Killed before and
after each of them, a driver has been killed at every stage that storage can tell apart. One process is forked for each
driver, from one that has imported everything: a run takes half a second.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from one_record import one_by_one

from poolscore.engine.run import compaction
from poolscore.engine.run.journal import Journal

CALLS = ("fsync", "link", "replace", "rename", "unlink")
APPEARS = "^(link|replace) "  # calls by which readers see something new
SLOW_IMPORTS = ("torch._dynamo",)  # of what a run imports when it comes to it


@dataclass(frozen=True)
class Strike:
    """What happens at which call."""

    nth: int = 1  # of the calls that match, from 1
    match: str = ""  # regular expression, somewhere in "call path"
    after: bool = False  # the call was made
    do: str = "kill"  # or the name of an error that it gives, from then on
    times: int = 1  # that the error is given


def in_child(words: list[str], run_dir: str, log: Path, strike: Strike | None = None) -> int:
    """Run a command of poolscore in a forked process; returns its exit code, negative for a signal. Its counted calls
    are written to `log`, one a line, and what it says to `log` with '.txt' behind."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["poolscore.jobs.cli", "poolscore.engine.score", "poolscore.jobs.report", *SLOW_IMPORTS]
    )
    child = context.Process(target=_run, args=(words, run_dir, log, strike))
    child.start()
    try:
        child.join(120)
        assert child.exitcode is not None, f"{words} does not end:\n{said(log)}"
        return child.exitcode
    finally:
        child.kill()
        child.join()


def said(log: Path) -> str:
    """The last of what the command said."""
    return log.with_suffix(".txt").read_text(errors="replace")[-3000:]


def _run(words: list[str], run_dir: str, log: Path, strike: Strike | None) -> None:
    out = os.open(log.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    watch(run_dir, log, strike)
    compaction.LEAST = compaction.STEP = 2  # records, so that a run of a few shards compacts its journal
    Journal.append = one_by_one(Journal.append)  # type: ignore[method-assign]
    sys.argv = ["poolscore", *words]
    from poolscore.jobs.cli import main

    main()


def watch(run_dir: str, log: Path, strike: Strike | None) -> None:
    """Count this process's calls from now on, and strike at one."""
    lock, seen = threading.Lock(), 0
    below = os.path.realpath(run_dir)

    def strikes(line: str) -> bool:
        nonlocal seen
        with lock, log.open("a") as file:
            file.write(line + "\n")
            seen += bool(strike and re.search(strike.match, line))
            return (
                strike is not None
                and bool(re.search(strike.match, line))
                and (strike.nth <= seen < strike.nth + strike.times)
            )

    def wrap(name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def watched(*given: Any, **named: Any) -> Any:
            path = _path(given)
            if not path.startswith(below) or not strikes(f"{name} {path[len(below) + 1 :]}"):
                return call(*given, **named)
            assert strike is not None
            if strike.do != "kill":
                raise OSError(getattr(errno, strike.do), os.strerror(getattr(errno, strike.do)))
            result = call(*given, **named) if strike.after else None
            os.kill(os.getpid(), signal.SIGKILL)
            return result

        return watched

    for name in CALLS:
        setattr(os, name, wrap(name))


def _path(given: tuple[Any, ...]) -> str:
    """What a call is about: an open file, or the last path."""
    last = given[-1]
    return str(Path(f"/proc/self/fd/{last}").readlink() if isinstance(last, int) else Path(last).absolute())
