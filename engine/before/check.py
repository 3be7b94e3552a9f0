"""Is it wired right? Labelled rows are scored before the job: a wrong normalisation must not cost a night."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError, UnreadableShard
from poolscore.engine.keys import IdSet
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.read import ShardReader, of_user
from poolscore.engine.prepare import look_at_labelled
from poolscore.engine.scores import SCORES, Task, scores_of
from poolscore.engine.worker.job import decoded_columns
from poolscore.engine.worker.profile import numeric_settings
from poolscore.engine.worker.shard import Scorer

Array = NDArray[Any]


@dataclass(frozen=True)
class CheckResult:
    """How well the model does on labelled rows.

    `quality` is accuracy (multilabel: of single labels); for regression it is the root mean square error.
    """

    rows: int
    rejected: int
    quality_without_dropout: float
    quality: float  # of the mean over the T passes
    auroc: dict[str, float]  # score → how well it ranks the rows that are predicted wrong; 0.5 is chance, nan: one kind
    is_accuracy: bool

    def require(self, min_accuracy: float | None) -> None:
        """Raise ConfigError if the accuracy is below the limit."""
        if min_accuracy is not None and self.quality < min_accuracy:
            raise ConfigError(
                f"check: accuracy {self.quality:.3f} on {self.rows} labelled rows is below check.min_accuracy="
                f"{min_accuracy:g}; check decode (mode, mean, std, resize), weights and the order of the classes"
            )


def check_labelled(config: Config, scorer: Scorer) -> CheckResult:
    """Score the labelled rows of `config.check` with dropout off and on.

    Raises:
        ConfigError: the file does not fit, or no row of it can be scored.
    """
    try:
        return _check_labelled(config, scorer)
    except UnreadableShard as error:
        raise of_user(error, "check.labelled", "write the file again") from error


def _check_labelled(config: Config, scorer: Scorer) -> CheckResult:
    assert config.check is not None
    labelled, label = config.check.labelled, config.check.label
    if config.model.task is Task.REGRESSION and config.check.min_accuracy is not None:
        raise ConfigError("check.min_accuracy: task 'regression' has no accuracy; leave it out")
    read_labels = _label_reader(config)
    files = look_at_labelled(config)
    assert files is not None
    plan = make_plan(files, config.run.shard_rows)
    reader = ShardReader(plan.root, [*decoded_columns(config), label], None, IdSet(), files.choice)
    scores: dict[str, list[Array]] = {}
    errors: list[Array] = []
    errors_without: list[Array] = []
    rejected = 0
    chosen = _sample(plan.rows, config.check.rows, config.passes.seed)
    blocks = (block for shard in plan.shards for block in reader.blocks(shard, config.run.batch_size))
    with numeric_settings(config.run.threads):
        for rows in (block.pick(np.isin(block.row_ids, chosen)) for block in blocks):
            if not len(rows):
                continue
            inputs, bad = scorer.decoder.decode(rows)
            with_passes = scorer.model.logits(inputs, scorer.decoder.padded_keys(rows))
            finite = scorer.statistics(with_passes, ()).finite.cpu().tolist()
            good = [i for i in range(len(rows)) if i not in bad and finite[i]]
            rejected += len(rows) - len(good)
            truth = read_labels(rows.table[label].take(pa.array(good, pa.int64())))
            with_passes = with_passes[good]
            for name, values in scorer.statistics(with_passes).scores.items():
                scores.setdefault(name, []).append(values.float().cpu().numpy())
            errors.append(_errors(config, with_passes, truth))
            errors_without.append(_errors(config, scorer.model.without_dropout(inputs)[good], truth))
    if not sum(map(len, errors)):
        raise ConfigError(f"check.labelled: no row of {labelled} can be decoded")
    return _result(config, scores, np.concatenate(errors), np.concatenate(errors_without), rejected)


def _sample(rows: int, wanted: int, seed: int) -> Array:
    """row_ids of the labelled rows to score: at random, since such files are often sorted by class."""
    return np.random.default_rng(seed).permutation(rows)[:wanted]


def _result(
    config: Config, scores: dict[str, list[Array]], errors: Array, errors_without: Array, rejected: int
) -> CheckResult:
    regression = config.model.task is Task.REGRESSION
    wrong = errors > np.median(errors) if regression else errors > 0
    names = [n for n in scores_of(config.model.task, config.passes.count) if SCORES[n].from_logits]

    def quality(of: Array) -> float:
        return float(np.sqrt(np.mean(of**2))) if regression else float(1 - np.mean(of))

    return CheckResult(
        rows=len(errors),
        rejected=rejected,
        quality_without_dropout=quality(errors_without),
        quality=quality(errors),
        auroc={name: auroc(np.concatenate(scores[name]), wrong) for name in names},
        is_accuracy=not regression,
    )


def auroc(scores: Array, positive: Array) -> float:
    """Area under the ROC curve: the chance that a positive row scores higher than a negative one, ties counting half
    (Mann & Whitney 1947). nan if there are no rows of one kind.

    Args:
        scores: [N].
        positive: bool [N].
    """
    _, place, ties = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]  # ties share their mean rank
    p, n = int(positive.sum()), int((~positive).sum())
    if not p or not n:
        return float("nan")
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n))


def _errors(config: Config, logits_NTC: torch.Tensor, truth: Array) -> Array:
    """[N]: 1 for a wrong prediction, multilabel: the share of wrong labels, regression: the distance."""
    match config.model.task:
        case Task.MULTICLASS:
            _require_classes(config, truth, logits_NTC.shape[-1])
            predicted = logits_NTC.softmax(-1).mean(1).argmax(-1)
        case Task.BINARY:
            _require_classes(config, truth, 2)
            predicted = logits_NTC[..., 0].sigmoid().mean(1) > 0.5
        case Task.MULTILABEL:
            _require_shape(config, truth, (len(truth), logits_NTC.shape[-1]))
            labels = (logits_NTC.sigmoid().mean(1) > 0.5).cpu().numpy()
            shares: Array = (labels != truth).mean(axis=1)
            return shares
        case Task.REGRESSION:
            means = logits_NTC.mean(1).cpu().double().numpy()
            outputs = means[:, : means.shape[1] // 2] if config.model.predicts_noise else means
            truth = truth[:, None] if truth.ndim == 1 else truth
            _require_shape(config, truth, outputs.shape)
            distance: Array = np.sqrt(((outputs - truth) ** 2).sum(axis=1))
            return distance
    different: Array = (predicted.long().cpu().numpy() != truth).astype(np.float64)
    return different


def _require_classes(config: Config, truth: Array, classes: int) -> None:
    assert config.check is not None
    if len(truth) and not (truth.min() >= 0 and truth.max() < classes):
        raise ConfigError(
            f"check.label column '{config.check.label}' holds classes {truth.min()} to {truth.max()}; the model has 0 "
            f"to {classes - 1}"
        )


def _require_shape(config: Config, truth: Array, shape: tuple[int, ...]) -> None:
    assert config.check is not None
    if len(truth) and truth.shape != shape:
        per_row = "1 value" if truth.ndim == 1 else f"{truth.shape[1]} values"
        raise ConfigError(
            f"check.label column '{config.check.label}' has {per_row} a row; the model has {shape[1]} outputs"
        )


def _label_reader(config: Config) -> Callable[[pa.ChunkedArray], Array]:
    """A function from the label column to class numbers, label vectors or targets."""
    assert config.check is not None
    where = f"check.label column '{config.check.label}'"
    names, task = config.model.class_names, config.model.task

    def read(column: pa.ChunkedArray) -> Array:
        if column.null_count:
            raise ConfigError(f"{where} holds nulls; every labelled row needs its label")
        values = column.to_pylist()
        if task in (Task.REGRESSION, Task.MULTILABEL):
            try:
                vectors: Array = np.array(values, dtype=np.float64)
            except (ValueError, TypeError) as error:
                raise ConfigError(f"{where} must hold numbers, or lists of them of one length") from error
            if not np.isfinite(vectors).all():
                raise ConfigError(f"{where} holds NaN or infinity; every labelled row needs its label")
            return vectors if task is Task.REGRESSION else vectors > 0.5
        if values and isinstance(values[0], str):
            if names is None:
                raise ConfigError(f"{where} holds text; give the names of the classes, in order, as model.classes")
            if unknown := sorted(set(values) - set(names)):
                raise ConfigError(f"{where} holds '{unknown[0]}', which is not in model.classes")
            return np.array([names.index(value) for value in values], dtype=np.int64)
        if not (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
            raise ConfigError(f"{where} has type {column.type}; a label is a class number or, as text, a class name")
        return np.array(values, dtype=np.int64)

    return read
