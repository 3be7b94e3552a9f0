"""Step 3b: decoders turn columns of the pool into the model's input tensors.

A new kind of input is one module here, one section in `engine/config/decode.py` and one line in `DECODERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poolscore.engine.config import Config
from poolscore.engine.inputs.base import Decoder
from poolscore.engine.inputs.features import FeaturesDecoder
from poolscore.engine.inputs.function import FunctionDecoder
from poolscore.engine.inputs.image import ImageDecoder
from poolscore.engine.inputs.tensor import TensorDecoder
from poolscore.engine.inputs.text import TextDecoder

DECODERS: dict[str, Callable[[Any], Decoder]] = {
    "image": ImageDecoder,
    "tensor": TensorDecoder,
    "text": TextDecoder,
    "features": FeaturesDecoder,
    "function": FunctionDecoder,
}


def build_decoders(config: Config) -> dict[str, Decoder]:
    """Decoders by input name; the one unnamed input is called ''."""
    return {name: DECODERS[decode.kind](decode) for name, decode in config.pool.named_inputs().items()}
