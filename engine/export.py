"""`poolscore export`: the model of a configuration as a `.pt2` or `.onnx` file, its dropout live."""

from __future__ import annotations

from pathlib import Path

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.model.export import SUFFIXES, Exported, write_model
from poolscore.engine.model.load import load_module
from poolscore.engine.model.probe import probe_model
from poolscore.engine.prepare import read_sample


def export_model(config: Config, out: Path) -> Exported:
    """Write the configuration's model, for inputs like those of its pool and for any number of rows.

    Args:
        out: where to; its suffix says what.

    Raises:
        ConfigError: the model or the pool is wrong, the model cannot be traced, or `out` is there or cannot be written.
    """
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"OUT: '{out.name}' must end in {' or '.join(SUFFIXES)}")
    if out.exists() or not out.parent.is_dir():
        raise ConfigError(f"OUT: {out} {'exists already' if out.exists() else 'is in no folder'}; choose another name")
    if config.model.source.endswith(".onnx"):
        raise ConfigError(f"model.source: {config.model.source} is ONNX already; `export` needs the torch model")
    sample = read_sample(config)
    model = load_module(config.model)
    return write_model(model, probe_model(model, sample), sample, out)
