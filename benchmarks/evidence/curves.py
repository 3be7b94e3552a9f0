"""What curves come to, as numbers and as tables: labels that a quality takes, and the quality at some labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Curve = Mapping[str, Sequence[float]]  # labels, quality: one value a round
Seeds = Mapping[str, Curve]  # seed → curve
Curves = Mapping[str, Seeds]  # by method
Column = tuple[str, Callable[[str, Seeds], str]]  # head, and the cell of a method and its curves


def labels_to(curve: Curve, quality: float) -> float:
    """Labels of the first model that is at least as good; infinite: none is."""
    reached = (n for n, q in zip(curve["labels"], curve["quality"], strict=True) if q >= quality)
    return next(reached, math.inf)


def reached(quality: float, seeds: Seeds) -> str:
    """Labels to a quality, such as 120 / 130 / > 360, where the last curve ended without it: quartiles over the seeds,
    those of a seed each; up to three seeds are these, in their order."""
    found = sorted((labels_to(curve, quality), curve["labels"][-1]) for curve in seeds.values())
    if len(found) > 3:
        found = [found[round(q * (len(found) - 1))] for q in (0.25, 0.5, 0.75)]
    return " / ".join(f"> {end}" if math.isinf(n) else f"{n:.0f}" for n, end in found)


def reached_by_mean(quality: float, seeds: Seeds) -> str:
    """Labels to a quality of the mean curve, as far as all seeds have come. Noise of a seed makes its first crossing
    early; the mean has less of it."""
    n = min(len(curve["labels"]) for curve in seeds.values())
    mean = np.mean([curve["quality"][:n] for curve in seeds.values()], 0)
    labels = next(iter(seeds.values()))["labels"][:n]
    return reached(quality, {"mean": {"labels": labels, "quality": mean}})


def in_words(three: Sequence[float | None]) -> str:
    """Such as 120 / 130 / not reached."""
    return " / ".join("not reached" if n is None else f"{n:.0f}" for n in three)


def goals_table(
    curves: Curves, goals: Sequence[float], theirs: Mapping[str, Mapping[str, Sequence[float | None]]], *more: Column
) -> str:
    """Markdown: labels to each goal, ours (of each seed, and of the mean curve) beside theirs.

    Args:
        theirs: method → goal as text → quartiles, or the one number that is known.
        more: further columns.
    """

    def ours(goal: float) -> Column:
        return f"{goal:.0%}, each seed", lambda method, seeds: reached(goal, seeds)

    def mean(goal: float) -> Column:
        return f"{goal:.0%}, mean curve", lambda method, seeds: reached_by_mean(goal, seeds)

    def known(goal: float) -> Column:
        return f"{goal:.0%}, authors", lambda method, seeds: in_words(theirs.get(method, {}).get(str(goal), ()))

    return columns_table(curves, *(of(goal) for goal in goals for of in (ours, mean, known)), *more)


def columns_table(curves: Curves, *columns: Column) -> str:
    """Markdown: a row for each method."""
    rows = [[method, *(of(method, seeds) for _, of in columns)] for method, seeds in curves.items()]
    return markdown(["", *(name for name, _ in columns)], rows)


def quality_at(labels: int, form: str = ".3f") -> Column:
    """Mean and range over the seeds of the models with so many labels."""

    def cell(method: str, seeds: Seeds) -> str:
        return spread(at(seeds, labels, "quality"), form)

    return f"{labels} labels", cell


def at(seeds: Seeds, labels: int, measure: str) -> list[float]:
    """A measure of the models with so many labels, of the seeds that have come so far."""
    pairs = [pair for curve in seeds.values() for pair in zip(curve["labels"], curve[measure], strict=True)]
    return [value for n, value in pairs if n == labels]


def mean_quality(form: str = ".3f") -> Column:
    """The mean of a curve from its first to its last model (the normalised area under it)."""

    def cell(method: str, seeds: Seeds) -> str:
        return spread([float(np.mean(curve["quality"])) for curve in seeds.values()], form)

    return "mean over the curve", cell


def minus_random(curves: Curves, form: str = ".3f") -> Column:
    """How far the mean of a curve lies above that of random with the same seed, which began with the same labels and
    weights. A method PANEL/method has a control of its own. Curves of other lengths are no pairs."""

    def cell(method: str, seeds: Seeds) -> str:
        control = curves.get(f"{''.join(method.rpartition('/')[:2])}random", {})
        pairs = [(seeds[seed], control[seed]) for seed in seeds if seed in control]
        above = [
            float(np.mean(ours["quality"]) - np.mean(other["quality"]))
            for ours, other in pairs
            if list(ours["labels"]) == list(other["labels"])
        ]
        if seeds is control or not above:
            return ""
        return f"{np.mean(above):+{form}} ({min(above):+{form}} to {max(above):+{form}})"

    return "minus random, per seed", cell


def spread(values: Sequence[float], form: str) -> str:
    """Such as 0.512 (0.498-0.530): mean, and the least and the most of the seeds."""
    if not values:
        return ""
    return f"{np.mean(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(head)} |".replace("|  |", "| |"), f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
