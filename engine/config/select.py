"""Sections `score`, `select` and `shortlist`: what is made of the outputs, and which rows are to be labelled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from poolscore.engine.config.model import ModelConfig
from poolscore.engine.config.pool import PoolConfig
from poolscore.engine.config.section import Number, Positive, PositiveNumber, Section, Whole
from poolscore.engine.selection.caps import Caps, caps_of


class ScoreConfig(Section):
    """How scores are formed where the task leaves a choice."""

    reduce: Literal["sum", "max"] = "sum"  # multilabel: over the labels
    accurate_bald: bool = False  # bald as mean_t KL(p_t || mean p): right far below 1e-6 nats, and slower


class SelectConfig(Section):
    """The batch to label."""

    k: Annotated[Whole, Field(ge=0)]
    score: str | None = None  # default: bald; regression: predictive_variance; one pass: entropy
    # power, softmax, softrank: by chance (Kirsch et al. 2023); batchbald, kcenter, badge: batch-aware, on the shortlist
    method: Literal["topk", "power", "softmax", "softrank", "batchbald", "kcenter", "badge"] = "topk"
    samples: Positive = 10_000  # outcomes that batchbald draws, once all of them take too much memory
    beta: PositiveNumber = 1.0  # of what goes by chance: larger follows the scores more closely
    seed: Annotated[Whole, Field(ge=0, lt=2**64)] | None = None  # of their noise and the control; default: passes.seed
    max_per_group: dict[str, Positive] = {}  # column of pool.keep, 'prediction' or 'near_duplicates' → rows at most
    quotas: dict[Annotated[str, BeforeValidator(str)], Positive] = {}  # predicted class, name or number → rows at most
    control: Annotated[Number, Field(ge=0, lt=1)] = 0.0  # share of k that is drawn at random from all scored rows

    def caps(self, pool: PoolConfig, model: ModelConfig) -> Caps:
        """See `caps_of`."""
        return caps_of(self.max_per_group, self.quotas, pool.keep, model.task, model.class_names, model.outputs)


class ShortlistConfig(Section):
    """The best rows, inferred once more at the end of a run: what is made of more than scores needs no model then."""

    rows: Annotated[Whole, Field(ge=0)] = 20_000  # at most; of a small pool fewer, see `rows_of`; 0: no shortlist
    max_bytes: Positive = 1 << 30  # of log-probabilities, features and thumbnails; fewer rows where they take more
    thumbnail: Annotated[Whole, Field(ge=0, le=1024)] = 128  # pixels of the longer edge; 0: none
    labelled: str | None = None  # Parquet of rows that have labels already, with the pool's input columns

    def rows_of(self, scored: int, k: int) -> int:
        """Rows of the shortlist of so many scored rows: of a small pool the best tenth, twice the batch, or 1,000."""
        return min(self.rows, max(2 * k, scored // 10, 1000), scored)
