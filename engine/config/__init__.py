"""The configuration: YAML in, frozen and validated objects out. Every default is written here and nowhere else.

One file a section, or a few that belong together: `pool.py` (with `decode.py`), `model.py` (model, passes), `select.py`
(score, select, shortlist), `run.py`, `submit.py`, `loop.py`, `check.py` (check, prices). `section.py` is what each of
them is, `whole.py` puts them together, `load.py` reads a file. A new section is a class in one of these and a line in
`Config` (`whole.py`).
"""

from poolscore.engine.config.check import CheckConfig, PricesConfig
from poolscore.engine.config.decode import (
    Decode,
    FeaturesDecode,
    FunctionDecode,
    ImageDecode,
    TensorDecode,
    TextDecode,
    columns_of,
)
from poolscore.engine.config.load import load_config, parse_config, with_paths
from poolscore.engine.config.loop import LabelConfig, LoopConfig, StopConfig
from poolscore.engine.config.model import ModelConfig, PassesConfig
from poolscore.engine.config.pool import PoolConfig
from poolscore.engine.config.run import AUTO, RunConfig
from poolscore.engine.config.select import ScoreConfig, SelectConfig, ShortlistConfig
from poolscore.engine.config.submit import SubmitConfig
from poolscore.engine.config.whole import Config, flatten

__all__ = [
    "AUTO",
    "CheckConfig",
    "Config",
    "Decode",
    "FeaturesDecode",
    "FunctionDecode",
    "ImageDecode",
    "LabelConfig",
    "LoopConfig",
    "ModelConfig",
    "PassesConfig",
    "PoolConfig",
    "PricesConfig",
    "RunConfig",
    "ScoreConfig",
    "SelectConfig",
    "ShortlistConfig",
    "StopConfig",
    "SubmitConfig",
    "TensorDecode",
    "TextDecode",
    "columns_of",
    "flatten",
    "load_config",
    "parse_config",
    "with_paths",
]
