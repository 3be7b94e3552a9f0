"""Predicted classes: how the batch differs from the pool."""

from __future__ import annotations

from collections.abc import Mapping

from poolscore.engine.config import Config
from poolscore.engine.scores import Task
from poolscore.jobs.report.distribution import Distribution
from poolscore.jobs.report.facts import Facts
from poolscore.jobs.report.text import count, esc, key, percent

CLASSES = 24  # lines of the table
NAME = 40  # characters
THIN = 0.5  # percent of the widest bar, so that a single row can be seen


def class_name(index: int, config: Config) -> str:
    """The class as the configuration names it, else its number; not escaped."""
    names = config.model.class_names or ()
    if config.model.task is Task.BINARY and len(names) != 2:
        names = ()  # one name for the one logit does not say which side it names
    return names[index] if 0 <= index < len(names) else f"class {index}"


def section(facts: Facts, distribution: Distribution) -> str:
    """Pool and batch side by side; nothing for regression."""
    pool = distribution.classes
    if not pool:
        return ""
    batch = facts.selection.classes if facts.selection else {}
    classes = sorted({*pool, *_known(facts.config)})
    shown = _shown(classes, pool, batch)
    widest = max(_shares(pool, shown) + _shares(batch, shown))
    lines = "".join(_line(class_name(index, facts.config), index, pool, batch, widest) for index in shown)
    left = len(classes) - len(shown)
    more = f'<p class="muted">and {count(left)} more.</p>' if left > 0 else ""
    return f"""
<section aria-labelledby="classes">
<h2 id="classes">Predicted classes</h2>
<p class="lead">Share of each predicted class {key("pool", "in the pool")} and {key("batch", "in the batch")}.</p>
<div class="card scroll" tabindex="0" role="region" aria-label="Predicted classes">
<table class="balance"><thead><tr><th scope="col">class</th><td></td><th scope="col" class="num">pool</th>
<th scope="col" class="num">batch</th></tr></thead><tbody>{lines}</tbody></table></div>
{more}</section>"""


def _known(config: Config) -> range:
    """Classes that exist, predicted or not: one that is never predicted is worth seeing."""
    return range(2 if config.model.task is Task.BINARY else config.model.outputs or 0)


def _shown(classes: list[int], pool: Mapping[int, int], batch: Mapping[int, int]) -> list[int]:
    """All classes in their order; of many, those that the batch has most of."""
    if len(classes) <= CLASSES:
        return classes
    return sorted(classes, key=lambda index: (-batch.get(index, 0), -pool.get(index, 0), index))[:CLASSES]


def _shares(counts: Mapping[int, int], shown: list[int]) -> list[float]:
    whole = sum(counts.values()) or 1
    return [counts.get(index, 0) / whole for index in shown]


def _line(name: str, index: int, pool: Mapping[int, int], batch: Mapping[int, int], widest: float) -> str:
    bars, numbers = "", ""
    for kind, counts in (("pool", pool), ("batch", batch)):
        here, whole = counts.get(index, 0), sum(counts.values())
        width = max(100 * here / whole / widest, THIN) if here else 0.0
        bars += f'<span class="bar {kind}" style="width:{width:.2f}%"></span>'
        numbers += f'<td class="num">{percent(here, whole)} <small>{count(here)}</small></td>'
    return f'<tr><th scope="row"><bdi>{esc(name, NAME)}</bdi></th><td class="bars">{bars}</td>{numbers}</tr>'
