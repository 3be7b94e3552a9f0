"""A run that has just begun: of two shards, and nobody looks into its pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from poolscore.engine.config import Config, parse_config
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.files import PoolFiles, table_of
from poolscore.engine.pool.footer import PoolFile
from poolscore.engine.pool.plan import Plan
from poolscore.engine.run.create import create_run
from poolscore.engine.run.directory import RunDirectory


def config_of(root: Path, **args: Any) -> Config:
    return parse_config(
        {
            "pool": {"uri": "/p", "input": "x"},
            "model": {"source": "m:f", "task": "multiclass", "args": args},
            "select": {"k": 1},
            "run": {"dir": str(root)},
        }
    )


def plan(fingerprint: str = "f") -> Plan:
    file = PoolFile("a", 9, 0, fingerprint, pa.schema([]), (10, 10), (90, 90), (True, True))
    return make_plan(PoolFiles("/p", table_of([file])), 10)


def new_run(root: Path, **args: Any) -> RunDirectory:
    return create_run(str(root), config_of(root, **args), "0.1", plan(), {"model.args": args, "the pool": "d"})
