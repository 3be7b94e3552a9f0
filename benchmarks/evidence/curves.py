"""What curves come to, as numbers and as tables: labels that a quality takes, and the quality at some labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Curve = Mapping[str, Sequence[float]]  # labels, quality: one value a round
Seeds = Mapping[str, Curve]  # seed → curve
Curves = Mapping[str, Seeds]  # by method
Column = tuple[str, Callable[[Seeds], str]]  # head, and the cell of a method


def labels_to(curve: Curve, quality: float) -> float:
    """Labels of the first model that is at least as good; infinite: none is."""
    reached = (n for n, q in zip(curve["labels"], curve["quality"], strict=True) if q >= quality)
    return next(reached, math.inf)


def quartiles(values: Sequence[float]) -> list[float]:
    """Three of the values: those nearest to the quartiles. Up to three values: these, in their order."""
    if len(values) <= 3:
        return sorted(values)
    return [float(q) for q in np.quantile(np.array(values), [0.25, 0.5, 0.75], method="nearest")]


def quartiles_to(quality: float, seeds: Seeds) -> list[float | None]:
    """Quartiles over the seeds of the labels to a quality; None: not reached."""
    return [None if math.isinf(n) else n for n in quartiles([labels_to(curve, quality) for curve in seeds.values()])]


def in_words(three: Sequence[float | None]) -> str:
    """Such as 120 / 130 / not reached."""
    return " / ".join("not reached" if n is None else f"{n:.0f}" for n in three)


def goals_table(
    curves: Curves, goals: Sequence[float], theirs: Mapping[str, Mapping[str, Sequence[float | None]]], *more: Column
) -> str:
    """Markdown: labels to each goal, ours beside theirs.

    Args:
        theirs: method → goal as text → quartiles, or the one number that is known.
        more: further columns.
    """

    def ours(goal: float) -> Column:
        return f"{goal:.0%}, here", lambda seeds: in_words(quartiles_to(goal, seeds))

    columns = [(ours(goal), goal) for goal in goals]
    head = [name for (name, _), goal in columns for name in (name, f"{goal:.0%}, authors")]
    rows = {
        method: [
            cell
            for (_, of), goal in columns
            for cell in (of(seeds), in_words(theirs.get(method, {}).get(str(goal), [])))
        ]
        + [of(seeds) for _, of in more]
        for method, seeds in curves.items()
    }
    return markdown(["", *head, *(name for name, _ in more)], [[method, *cells] for method, cells in rows.items()])


def columns_table(curves: Curves, *columns: Column) -> str:
    """Markdown: a row for each method."""
    rows = [[method, *(of(seeds) for _, of in columns)] for method, seeds in curves.items()]
    return markdown(["", *(name for name, _ in columns)], rows)


def quality_at(labels: int, form: str = ".3f") -> Column:
    """Mean and range over the seeds of the models with so many labels."""

    def cell(seeds: Seeds) -> str:
        return spread(at(seeds, labels, "quality"), form)

    return f"{labels} labels", cell


def at(seeds: Seeds, labels: int, measure: str) -> list[float]:
    """A measure of the models with so many labels, of the seeds that have come so far."""
    pairs = [pair for curve in seeds.values() for pair in zip(curve["labels"], curve[measure], strict=True)]
    return [value for n, value in pairs if n == labels]


def mean_quality(form: str = ".3f") -> Column:
    """The mean of a curve from its first to its last model (the normalised area under it)."""

    def cell(seeds: Seeds) -> str:
        return spread([float(np.mean(curve["quality"])) for curve in seeds.values()], form)

    return "mean over the curve", cell


def spread(values: Sequence[float], form: str) -> str:
    """Such as 0.512 (0.498-0.530): mean, and the least and the most of the seeds."""
    if not values:
        return ""
    return f"{np.mean(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(head)} |".replace("|  |", "| |"), f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
