"""A decode function that tests slow down, hold and watch, in whatever process it runs.

The folder that the environment names (FOLDER) holds a file `pace`: seconds a row, or `hold N`. Whoever decodes leaves a
mark there: `at-work/PID-START` at its first row, `held-N/PID-START` while it waits.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from poolscore.engine.config import ImageDecode
from poolscore.engine.inputs.picture import decode_picture

FOLDER = "CHAOS_FOLDER"
GREY = ImageDecode(mode="L")


def digit(value: bytes) -> NDArray[np.float32]:
    """A grey picture as [1, 8, 8] in 0..1."""
    _keep_pace(Path(os.environ[FOLDER]))
    return decode_picture(value, GREY).transpose(2, 0, 1).astype(np.float32) / 255


def _keep_pace(folder: Path) -> None:
    _mark(folder / "at-work", os.getpid())
    while (pace := (folder / "pace").read_text()).startswith("hold"):
        _mark(folder / pace.replace(" ", "-"), os.getpid())
        time.sleep(0.005)
    time.sleep(float(pace))


@cache
def _mark(folder: Path, pid: int) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{pid}-{started(pid)}").touch()


def started(pid: int) -> str | None:
    """When a process was started, by which it is told from a later one of the same number; None: it is gone."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else fields[18]
