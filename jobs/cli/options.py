"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from poolscore.jobs.show.terminal import console

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML configuration; `poolscore init` writes one.")]
RunDir = Annotated[str, typer.Argument(metavar="RUN", help="Run directory.")]
Pool = Annotated[str, typer.Argument(metavar="POOL", help="A Parquet file, a folder of them, or a glob.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a configuration value.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster; default: RAY_ADDRESS or an embedded one.")]


def _for_scripts(context: typer.Context, as_json: bool) -> bool:
    """The result alone goes to standard output; what people read to standard error, till the command's end."""
    if as_json:
        console.stderr = True
        context.call_on_close(lambda: setattr(console, "stderr", False))
    return as_json


AsJson = Annotated[
    bool, typer.Option("--json", callback=_for_scripts, help="The result as JSON; all else on standard error.")
]


def changes(overrides: Sequence[str] | None, address: str | None) -> list[str]:
    """Overrides of a configuration, with the cluster's address among them if one is given."""
    return [*(overrides or ()), *([f"run.address={address}"] if address else [])]
