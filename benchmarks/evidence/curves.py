"""What curves come to: labels that a quality takes, as numbers, as a table, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

Curve = Mapping[str, Sequence[float]]  # labels, quality: one value a round
Curves = Mapping[str, Mapping[str, Curve]]  # method → seed → curve


def labels_to(curve: Curve, quality: float) -> float:
    """Labels of the first model that is at least as good; infinite: none is."""
    reached = (n for n, q in zip(curve["labels"], curve["quality"], strict=True) if q >= quality)
    return next(reached, math.inf)


def quartiles(values: Sequence[float]) -> list[float]:
    """Three of the values: those nearest to the quartiles. Up to three values: these, in their order."""
    if len(values) <= 3:
        return sorted(values)
    return [float(q) for q in np.quantile(np.array(values), [0.25, 0.5, 0.75], method="nearest")]


def quartiles_to(quality: float, seeds: Mapping[str, Curve]) -> list[float | None]:
    """Quartiles over the seeds of the labels to a quality; None: not reached."""
    return [None if math.isinf(n) else n for n in quartiles([labels_to(curve, quality) for curve in seeds.values()])]


def in_words(three: Sequence[float | None]) -> str:
    """Such as 120 / 130 / not reached."""
    return " / ".join("not reached" if n is None else f"{n:.0f}" for n in three)


def table(curves: Curves, goals: Sequence[float], theirs: Mapping[str, Mapping[str, Sequence[float | None]]]) -> str:
    """Markdown: labels to each goal, ours beside theirs, and how much of what was labelled was there already.

    Args:
        theirs: method → goal as text → quartiles.
    """
    head = [f"{goal:.0%}, {who}" for goal in goals for who in ("here", "authors")]
    lines = [f"| | {' | '.join(head)} | copies among the picked |", f"|---{'|---' * (len(head) + 1)}|"]
    for method, seeds in curves.items():
        cells = []
        for goal in goals:
            known = theirs.get(method, {}).get(str(goal))
            cells += [in_words(quartiles_to(goal, seeds)), in_words(known) if known else ""]
        copies = np.mean([np.sum(curve["repeats"]) / np.ptp(curve["labels"]) for curve in seeds.values()])
        lines.append(f"| {method} | {' | '.join(cells)} | {copies:.0%} |")
    return "\n".join(lines)
