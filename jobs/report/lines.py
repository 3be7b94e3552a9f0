"""The selected rows in words: what the gallery and the table show of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from poolscore.engine.config import Config
from poolscore.engine.explain.shortlisted import Passes
from poolscore.jobs.report.balance import class_name
from poolscore.jobs.report.pictures import Values
from poolscore.jobs.report.text import column_texts, number, percent

COLUMNS = 8  # of `pool.keep` on the page, and numbers of a prediction


@dataclass(frozen=True)
class Votes:
    """What the passes voted for; of a multilabel task, how many say yes to each label."""

    of: int  # passes
    each: tuple[tuple[str, int], ...]  # name of the class and its votes: those with the largest probability
    rest: int  # votes for other classes


@dataclass(frozen=True)
class Entropies:
    """Of a row, in nats."""

    entropy: float
    expected: float

    @property
    def bald(self) -> float:
        """What the passes disagree about."""
        return max(self.entropy - self.expected, 0.0)


@dataclass(frozen=True)
class Line:
    """One selected row; text not yet escaped."""

    row_id: int
    rank: int
    id: str
    score: str
    prediction: str
    confidence: str  # "" where there is none
    votes: Votes | None  # None: not on the shortlist, or a regression
    entropies: Entropies | None  # None: a task or a run that does not have both
    seen: dict[str, str]  # inputs that people can read
    kept: dict[str, str]  # columns of `pool.keep`


def lines_of(
    best: pa.Table,
    config: Config,
    scores: Mapping[int, Mapping[str, float]] | None = None,
    passes: Mapping[int, Passes] | None = None,
    values: Values | None = None,
) -> list[Line]:
    """Rows of a selection, best first.

    Args:
        best: rank, row_id, id, score, prediction, confidence and kept columns.
        scores, passes, values: row_id → all its scores, what its passes said, and what people see of it.
    """
    scores, passes, values = scores or {}, passes or {}, values or {}
    keep = [name for name in config.pool.keep if name in best.column_names][:COLUMNS]
    kept = {name: column_texts(best[name]) for name in keep}
    seen = list(dict.fromkeys(name for row in values.values() for name in row))  # the same for each row of a table
    predictions = _predictions(best["prediction"], config)
    rank, row_id, score, confidence = (best[name].to_pylist() for name in ("rank", "row_id", "score", "confidence"))
    return [
        Line(
            row_id=row_id[i],
            rank=rank[i],
            id=id_,
            score=number(score[i]),
            prediction=predictions[i],
            confidence="" if confidence[i] is None else percent(confidence[i], 1),
            votes=_votes(passes.get(row_id[i]), config),
            entropies=_entropies(scores.get(row_id[i], {})),
            seen={name: values.get(row_id[i], {}).get(name, "–") for name in seen},
            kept={name: kept[name][i] for name in keep},
        )
        for i, id_ in enumerate(column_texts(best["id"]))
    ]


def _predictions(column: pa.ChunkedArray[Any], config: Config) -> list[str]:
    values: list[Any] = column.to_pylist()
    if pa.types.is_integer(column.type):
        return [class_name(value, config) for value in values]
    return [", ".join(map(number, v[:COLUMNS])) if isinstance(v, list) else number(v) for v in values]


def _votes(passes: Passes | None, config: Config) -> Votes | None:
    if passes is None or passes.count < 2:
        return None
    most_first = sorted(passes.columns, key=lambda column: -(column.votes or 0))
    each = tuple((class_name(c.number, config), c.votes) for c in most_first if c.votes)
    if not each and passes.says is None:  # of a regression; or no pass says yes to a label
        return None
    return Votes(passes.count, each, passes.count - sum(n for _, n in each) if passes.says is not None else 0)


def _entropies(scores: Mapping[str, float]) -> Entropies | None:
    if "entropy" not in scores or "expected_entropy" not in scores:
        return None
    return Entropies(scores["entropy"], scores["expected_entropy"])
