"""Where the recipes for a cluster lie, and what the Dockerfile says."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "jobs" / "cluster"


def dockerfile() -> list[tuple[str, str]]:
    """Instructions with their arguments."""
    text = re.sub(r"^#.*\n", "", (RECIPES / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in text.splitlines() if line]
