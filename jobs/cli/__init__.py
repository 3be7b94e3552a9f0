"""The command line. Exit codes: 0 done, 2 wrong configuration or input, 3 incomplete, 4 stopped, 130 interrupted; 1 is
for `verify`, where precision does not explain a difference.

One file a group of commands, and `COMMANDS` lists them: a new command is a function and its line there. It calls into
`poolscore.engine` or a module of `poolscore.jobs`. Torch and Ray are imported inside the commands that need them:
`select`, `report` and `status` run on a colleague's laptop.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import INTERRUPTED, STOPPED, PoolscoreError
from poolscore.engine.storage.threads import calls_left_behind
from poolscore.jobs import show
from poolscore.jobs.cli import before, bench, cluster, handoff, loop, pools, runs, score
from poolscore.jobs.submit.driver import submitted

COMMANDS: dict[str, Callable[..., None]] = {  # in the order of `poolscore --help`
    "init": before.init,
    "plan": before.plan,
    "export": before.export,
    "score": score.score,
    "retry": score.retry,
    "verify": score.verify,
    "select": runs.select,
    "compare": runs.compare,
    "explain": runs.explain,
    "export-tasks": handoff.export_tasks,
    "loop": loop.loop,
    "report": runs.report,
    "status": runs.status,
    "submit": cluster.submit,
    "logs": cluster.logs,
    "stop": cluster.stop,
    "list": cluster.list_jobs,
    "schema": before.schema,
    "pack": pools.pack,
    "doctor": pools.doctor,
    "bench": bench.bench,
    "demo": before.demo,
}

app = typer.Typer(
    help="Score a pool of unlabelled rows with Monte-Carlo dropout; select the batch most worth labelling.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"poolscore {version('poolscore')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(handoff.label, name="label")
app.command(hidden=True)(submitted)  # what `submit` starts on a cluster


def process() -> None:
    """Entry point of a process. It ends without C++'s destructors, once Python and Ray have cleaned up: one in thirty
    processes that end right after they read Parquet is aborted by those of Arrow's threads (pyarrow 26)."""
    code = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)  # before all others, and so called after them
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if calls_left_behind():  # nobody is to wait for storage that is silent
            leave()


def main() -> None:
    """The command: one clear line for what users can mend, no traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        show.set_up_log()
        app()
    except PoolscoreError as error:
        show.failure(str(error))
        sys.exit(error.exit_code)
    except OSError as error:  # of the system, where nobody knew better: a full disk, a folder without permission
        show.failure(one_line(error))
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        show.failure("interrupted")
        sys.exit(INTERRUPTED)


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt
