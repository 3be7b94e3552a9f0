"""The process that Ray Jobs starts on the cluster: check within seconds, then the job of `poolscore score`.

The imports are inside: a machine may lack what poolscore needs, and that is to be told in one line.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

WRONG_INPUT = 2  # engine/errors.py


def submitted() -> None:
    """The order of this job, done (a command that `poolscore --help` does not show)."""
    from pathlib import Path

    import typer

    from poolscore.jobs import show
    from poolscore.jobs.cli.score import run_score
    from poolscore.jobs.submit.check import check_here, prepare_path, require_inputs
    from poolscore.jobs.submit.order import config_of, read_order

    order = read_order()
    config = config_of(order, Path.cwd())
    prepare_path(config)
    require_inputs(config)
    with machine_must_have_all():
        import_module("poolscore.engine.score")  # with torch, which takes longer than all before
    show.done(check_here(config))
    raise typer.Exit(run_score(config, **order["how"]))


@contextmanager
def machine_must_have_all() -> Iterator[None]:
    """One line, and exit code 2, for what cannot be imported."""
    try:
        yield
    except ImportError as error:
        what = ", ".join(lacking()) or error.name or str(error)
        print(
            f"poolscore: {sys.executable} on the cluster's machine {socket.gethostname()} lacks {what}: name another "
            "Python there in submit.python, put it into the image, or small packages into submit.pip",
            file=sys.stderr,
        )
        sys.exit(WRONG_INPUT)


def lacking() -> list[str]:
    """Distributions that poolscore requires, extras and other systems apart, and this machine does not have."""
    missing = []
    for requirement in requires("poolscore") or ():
        name, platform = (
            re.match(r"[A-Za-z0-9._-]+", requirement),
            re.search("sys_platform == .([a-z0-9]+)", requirement),
        )
        elsewhere = platform is not None and platform[1] != sys.platform
        if name is None or elsewhere or "extra ==" in requirement:
            continue
        try:
            version(name[0])
        except PackageNotFoundError:
            missing.append(name[0])
    return missing


def main() -> None:
    """Entry point of the process."""
    with machine_must_have_all():
        from poolscore.jobs.cli import process
    sys.argv = ["poolscore", "submitted"]
    process()


if __name__ == "__main__":
    main()
