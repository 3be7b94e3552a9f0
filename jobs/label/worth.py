"""Was it worth it? What labels of a batch tell, against those of the control rows that were hidden in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from poolscore.engine.errors import ConfigError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.selection.control import CONTROL
from poolscore.engine.storage.filesystem import open_parquet
from poolscore.jobs.label.intervals import Contrast, Estimate, contrast, mean, wilson
from poolscore.jobs.label.ledger import Ledger, beside, ledger_name, read_ledger
from poolscore.jobs.label.rules import labels_of
from poolscore.jobs.tasks.question import Answer, Question
from poolscore.jobs.tasks.selection import Selected, find_selection

RARE = 0.5  # of an even share: classes that are predicted less often in the pool are rare
BLOCK = 65_536  # rows


@dataclass(frozen=True)
class Row:
    """A labelled row of the batch."""

    control: bool
    predicted: Answer
    label: Answer


@dataclass(frozen=True)
class Measured:
    """A figure of the batch, and of its control where that has labels."""

    batch: Estimate | None
    control: Estimate | None

    @property
    def contrast(self) -> Contrast | None:
        """None: one of the two is missing."""
        return contrast(self.batch, self.control) if self.batch and self.control else None


@dataclass(frozen=True)
class Worth:
    """What the labels of a batch say of its choice."""

    selection: str
    rows: int
    control_rows: int  # of them
    labelled: int  # of the chosen ones
    control_labelled: int
    errors: Measured  # share of rows that the model predicts wrong; of a regression its mean absolute error
    rare: tuple[str, ...]  # classes
    rare_yield: Measured | None  # share of rows of a rare class
    classes: dict[str, Measured]  # share of rows of each class
    is_mean: bool  # errors is no share


def was_it_worth_it(run: str, labels: str, *, name: str | None = None, rare: Sequence[str] | None = None) -> Worth:
    """Compare the labels of a batch with the predictions that it was chosen by, chosen rows against control rows; all
    intervals are 95 %. Several people's answers count by majority.

    Args:
        run: the run directory, or the file of a selection.
        labels: what `import_labels` wrote.
        name: of a further selection.
        rare: classes that are rare; default: those predicted for less than half an even share of the pool's rows.

    Raises:
        ConfigError: the batch has no labels there, or a class is none.
    """
    selected = find_selection(run, name)
    storage, file = beside(labels)
    ledger = read_ledger(storage, ledger_name(file))
    if ledger is None:
        raise ConfigError(f"--labels: there are no labels {labels}; `poolscore label import` makes them")
    question = ledger.question
    rows = _rows(selected, ledger)
    if not rows:
        raise ConfigError(f"--labels: {labels} has no label of a row of {selected.name}; import them first")
    control = sum(method == CONTROL for method in selected.table["method"].to_pylist())
    chosen = _rare(selected.runs[0], question, rare)
    is_mean = question.kind == "number"
    return Worth(
        selection=selected.name,
        rows=len(selected.table),
        control_rows=control,
        labelled=sum(not row.control for row in rows),
        control_labelled=sum(row.control for row in rows),
        errors=_means(rows) if is_mean else _shares(rows, _wrong),
        rare=chosen,
        rare_yield=_shares(rows, lambda row: any(_has(c, row) for c in chosen)) if chosen else None,
        classes={c: _shares(rows, partial(_has, c)) for c in _classes(question, rows)},
        is_mean=is_mean,
    )


def _rows(selected: Selected, ledger: Ledger) -> list[Row]:
    table, answers, question = selected.table, ledger.of_rows(), ledger.question
    of_ids = zip(*(table[name].to_pylist() for name in ("id", "method", "prediction")), strict=True)
    return [
        Row(method == CONTROL, question.predicted(prediction), found[0].answer)
        for i, method, prediction in of_ids
        if (found := labels_of(answers.get(i, ()), question, "majority"))
    ]


def _wrong(row: Row) -> bool:
    """Several labels: the likeliest one, which is what the scores hold, is none of them."""
    if isinstance(row.predicted, tuple) and isinstance(row.label, tuple):
        return not set(row.predicted) & set(row.label)
    return row.predicted != row.label


def _has(name: str, row: Row) -> bool:
    return name in row.label if isinstance(row.label, tuple) else row.label == name


def _shares(rows: Sequence[Row], hit: Callable[[Row], bool]) -> Measured:
    def share(some: list[Row]) -> Estimate | None:
        return wilson(sum(map(hit, some)), len(some)) if some else None

    return Measured(share([r for r in rows if not r.control]), share([r for r in rows if r.control]))


def _means(rows: Sequence[Row]) -> Measured:
    def error(control: bool) -> Estimate | None:
        some = [r for r in rows if r.control == control]
        values = [
            abs(r.predicted - r.label) for r in some if isinstance(r.predicted, float) and isinstance(r.label, float)
        ]
        return mean(values) if len(values) > 1 else None

    return Measured(error(False), error(True))


def _classes(question: Question, rows: Sequence[Row]) -> tuple[str, ...]:
    seen = dict.fromkeys(row.label for row in rows if isinstance(row.label, str))
    return question.classes or tuple(sorted(seen, key=int))


def _rare(run: RunDirectory, question: Question, rare: Sequence[str] | None) -> tuple[str, ...]:
    """By predictions over the pool: to choose them by the labels of the control would find a gain where there is none,
    for a class that few of its rows happen to be of looks rare."""
    if rare is not None:
        if unknown := [name for name in rare if question.classes and name not in question.classes]:
            raise ConfigError(f"--rare {unknown[0]}: is no class; the classes are: {', '.join(question.classes)}")
        return tuple(rare)
    if question.kind == "number":
        return ()
    counts = _predicted(run)
    numbers = range(len(question.classes)) if question.classes else sorted(counts)
    most = RARE * sum(counts.values()) / max(1, len(numbers))
    names = question.classes or tuple(map(str, numbers))
    return tuple(name for name, number in zip(names, numbers, strict=True) if counts[number] < most)


def _predicted(run: RunDirectory) -> Counter[int]:
    """Predicted class → rows of the pool."""
    counts: Counter[int] = Counter()
    for report in run.reports().values():
        if report.scored:
            with open_parquet(run.storage.path(report.scores)) as file:
                for batch in file.iter_batches(BLOCK, columns=["prediction"]):
                    found = batch.column("prediction").value_counts()
                    values, times = found.field("values").to_pylist(), found.field("counts").to_pylist()
                    counts.update(dict(zip(values, times, strict=True)))
    return counts
