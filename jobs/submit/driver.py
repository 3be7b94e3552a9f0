"""The process that Ray Jobs starts on the cluster: check within seconds, then the job of `poolscore score`.

The imports are inside: a machine may lack what poolscore needs, and that is to be told in one line.
"""

from __future__ import annotations

import re
import socket
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

WRONG_INPUT = 2  # engine/errors.py


def submitted() -> None:
    """The order of this job, done (a command that `poolscore --help` does not show)."""
    from pathlib import Path

    import typer

    from poolscore.jobs import show
    from poolscore.jobs.cli.score import run_score
    from poolscore.jobs.submit.check import check_here, leave_path
    from poolscore.jobs.submit.order import config_of, read_order

    order = read_order()
    config = config_of(order, Path.cwd())
    leave_path(config)
    show.done(check_here(config))
    raise typer.Exit(run_score(config, fresh=order["fresh"], must_resume=order["must_resume"]))


def lacking() -> list[str]:
    """Distributions that poolscore requires, extras apart, and this machine does not have."""
    missing = []
    for requirement in requires("poolscore") or ():
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name is None or "extra ==" in requirement:
            continue
        try:
            version(name[0])
        except PackageNotFoundError:
            missing.append(name[0])
    return missing


def main() -> None:
    """Entry point of the process."""
    try:
        import_module("poolscore.engine.score")
        from poolscore.jobs.cli import process
    except ImportError as error:
        what = ", ".join(lacking()) or error.name or str(error)
        print(
            f"poolscore: the cluster's machine {socket.gethostname()} lacks {what}: put it into its image, or small "
            "packages into submit.pip",
            file=sys.stderr,
        )
        sys.exit(WRONG_INPUT)
    sys.argv = ["poolscore", "submitted"]
    process()


if __name__ == "__main__":
    main()
