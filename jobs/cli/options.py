"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML configuration; `poolscore init` writes one.")]
RunDir = Annotated[str, typer.Argument(metavar="RUN", help="Run directory.")]
Pool = Annotated[str, typer.Argument(metavar="POOL", help="A Parquet file, a folder of them, or a glob.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a configuration value.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster; default: RAY_ADDRESS or an embedded one.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


def changes(overrides: Sequence[str] | None, address: str | None) -> list[str]:
    """Overrides of a configuration, with the cluster's address among them if one is given."""
    return [*(overrides or ()), *([f"run.address={address}"] if address else [])]
