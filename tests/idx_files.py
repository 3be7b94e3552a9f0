"""Files like those of MNIST, for tests."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np


def write_idx(file: Path, array: np.ndarray) -> None:
    """Bytes, whatever the array's dtype."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    file.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))
