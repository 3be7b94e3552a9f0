"""What a part of `make gpu` is, and what it gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
COPY_BYTES_PER_S = 4.3e12  # of an H200: what predictions are made with (KINDS.md of the device tool, 2026-10-28)
BF16_FLOP_PER_S = 790e12  # the same, a matrix product on random data

SO_FAR = "so_far.json"

Result = dict[str, Any]  # ok, figures (each of `figure`), and whatever else was measured


@dataclass(frozen=True)
class Part:
    """One thing that only a machine with a GPU can show.

    Args:
        about: what it shows.
        seconds: that it takes on an H200: a guess, until a run with a GPU says better.
        run: device ("cuda", or "cpu" for a dry run with small sizes) and an empty folder → its result.
    """

    about: str
    seconds: int
    run: Callable[[str, Path], Result]


def tell(folder: Path, so_far: Result) -> None:
    """Leave what a part has measured so far in its folder: it counts if the part fails or is killed."""
    new = folder / "so_far.new"
    new.write_text(json.dumps(so_far))
    new.replace(folder / SO_FAR)


def told(folder: Path) -> Result:
    """What a part told last."""
    file = folder / SO_FAR
    return json.loads(file.read_text()) if file.exists() else {"figures": []}


def figure(
    what: str, measured: float | str | None, unit: str = "", predicted: float | str | None = None, reach: str = ""
) -> Result:
    """A line of the table.

    Args:
        predicted: for an H200, before it was measured.
        reach: what it is to be.
    """
    return {"what": what, "measured": measured, "unit": unit, "predicted": predicted, "reach": reach}
