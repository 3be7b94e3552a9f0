"""What the comparison of a batch with its control comes to, in words."""

from __future__ import annotations

from poolscore.engine.words import amount
from poolscore.jobs.label.intervals import Estimate
from poolscore.jobs.label.worth import Measured, Worth

FEW = 30  # labelled rows of a group, below which an interval is too wide to decide much by


def verdict(worth: Worth) -> list[str]:
    """Sentences: what can be said with 95 % confidence, after why little or nothing can, where that is so."""
    what = "the model's mean absolute error" if worth.is_mean else "rows that the model gets wrong"
    found = [*_limits(worth), _finding(what, worth.errors, share=not worth.is_mean)]
    if worth.rare_yield is not None:
        found.append(_finding(f"rows of a rare class ({', '.join(worth.rare)})", worth.rare_yield, share=True))
    return [line for line in found if line]


def _limits(worth: Worth) -> list[str]:
    if not worth.control_rows:
        return [
            "there is no control in this batch, so nobody can say what rows drawn at random would have given; select "
            "the next one with --control 0.05 (select.control)"
        ]
    if not worth.control_labelled:
        waiting = amount(worth.control_rows, "control row")
        return [f"none of the {waiting} is labelled yet, so there is nothing to compare with"]
    if min(worth.labelled, worth.control_labelled) < FEW:
        chosen, control = amount(worth.labelled, "chosen row"), amount(worth.control_labelled, "control row")
        return [f"too few to decide much by: {chosen} and {control} have labels, and {FEW} of each are little already"]
    return []


def _finding(what: str, of: Measured, share: bool) -> str:
    if of.batch is None or of.control is None or of.contrast is None:
        one = of.batch or of.control
        return f"{what}: {_estimated(one, share)} of the {'chosen' if of.batch else 'control'} rows" if one else ""
    between = of.contrast
    by = f"{_written(between.difference, share)} ({_written(between.low, share)} to {_written(between.high, share)})"
    if between.low <= 0 <= between.high:
        told = f"a difference of {by}, which chance alone may have made"
    else:
        told = f"{'more' if between.low > 0 else 'less'}, by {by}"
    chosen, control = _estimated(of.batch, share), _estimated(of.control, share)
    return f"{what}: {chosen} of the chosen rows, {control} of the control: {told}"


def _estimated(of: Estimate, share: bool) -> str:
    return f"{_written(of.value, share)} ({_written(of.low, share)} to {_written(of.high, share)})"


def _written(x: float, share: bool) -> str:
    return f"{100 * x:.1f} %" if share else f"{x:.4g}"
