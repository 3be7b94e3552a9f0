"""Is what a run wrote what the definitions say? Drawn rows are scored once more, by the plain way (`reference.py`).

What precision explains is measured on the same rows: the plain way in the run's own precision, against float64. A score
of the run may differ FACTOR times as much as the worst of these rows (two ways of the same precision round in other
places), and by a few roundings of float32, in which it is stored. A vote of `variation_ratio` may tip besides where the
two largest logits of a pass lie closer together than logits may differ. Where there is nothing more precise to measure
against (fp32 by fp32, ONNX files), logits are allowed LOGIT_ROUNDINGS roundings of the largest, and a score ten times
that: an entropy of C classes changes by at most about ln C + 1 for each unit of a logit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from poolscore.engine.config import Config
from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.machine.cores import usable_cores
from poolscore.engine.pool.draw import draw_pieces
from poolscore.engine.pool.plan import Piece, Shard
from poolscore.engine.pool.read import Rows
from poolscore.engine.prepare import Prepared
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.scores import SCORES, Task, scores_of
from poolscore.engine.storage.filesystem import open_parquet
from poolscore.engine.verify.reference import Both, Precision, Reference
from poolscore.engine.words import amount
from poolscore.engine.worker.profile import numeric_settings
from poolscore.engine.worker.shard import Scorer

Array = NDArray[Any]

FACTOR = 8.0
ROUND = 2.0**-24  # of float32, relative
STORED_ROUNDINGS, LOGIT_ROUNDINGS = 32, 256
LEAST = 16  # rows that say how large the errors of a precision are
STEP = 64  # rows at a time, at most
PATIENCE = 0.25  # of the time that is allowed: more rows at a time only while they take less


@dataclass(frozen=True)
class Difference:
    """Between a score of the run and the same score again; the row where least is left of what is allowed."""

    largest: float  # over all rows
    allowed: float  # of this row
    row_id: int
    stored: float
    again: float

    @property
    def explained(self) -> bool:
        """Whether precision explains it."""
        return abs(self.stored - self.again) <= self.allowed


@dataclass(frozen=True)
class Verified:
    """What scoring rows again came to."""

    rows: int
    precision: str
    seconds: float
    scores: Mapping[str, Difference] = field(default_factory=dict)
    strange: int = 0  # rows of the pool that are in no table of the run, or with another key
    note: str | None = None  # why there are fewer rows, or another precision, than was asked for

    @property
    def judged(self) -> bool:
        """Whether there are rows enough to know what precision explains."""
        return self.rows >= LEAST

    @property
    def wrong(self) -> list[str]:
        """What precision does not explain, in words."""
        found = [
            f"{name} of row {d.row_id} is {d.stored:.6g} in the run and {d.again:.6g} again; precision explains "
            f"{d.allowed:.1e}"
            for name, d in self.scores.items()
            if not d.explained and (self.judged or not SCORES[name].from_logits)
        ]
        return found + [f"{amount(self.strange, 'row')} missing in the run, or with another key"] * bool(self.strange)

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return {**asdict(self), "judged": self.judged, "wrong": self.wrong}


def verify_run(
    run: RunDirectory, prepared: Prepared, rows: int, precision: Precision = "float64", seconds: float = math.inf
) -> Verified:
    """Score rows of a run again, drawn by its seed.

    Rows are drawn from the first REACH bytes of row groups, so little is read of a large pool.

    Args:
        prepared: the same job.
        rows: at most.
        precision: of the model; fp32 is quicker, and tells less.
        seconds: after which no further rows are begun, once the model is loaded.

    Raises:
        ConfigError: nothing is scored yet.
        UnreadableShard: a file of the pool cannot be read.
    """
    started = time.monotonic()
    reports = {shard: report for shard, report in run.reports().items() if report.scored}
    if not reports:
        raise ConfigError(f"{run.storage.root}: no shard is scored yet, so there is nothing to verify")
    with numeric_settings(usable_cores()):
        reference = Reference(prepared, precision)
        pairs = _Pairs(prepared.scorer, reference, time.monotonic() + seconds, seconds * PATIENCE)
        stored = _Stored(run, prepared.config)
        for piece, shard, some in draw_pieces(prepared.plan, prepared.pool, reports, rows, prepared.config.passes.seed):
            if pairs.late or pairs.rows >= rows:
                break
            pairs.add(piece, *stored.of(reports[shard], piece), min(some, rows - pairs.rows))
    note = reference.note or (f"as many rows as {seconds:.0f} s allow" if pairs.late else None)
    took = round(time.monotonic() - started, 3)
    scores = pairs.differences(prepared.config, reference) if pairs.rows else {}
    return Verified(pairs.rows, reference.precision, took, scores, pairs.strange, note)


def try_to_verify(run: RunDirectory, prepared: Prepared, rows: int, seconds: float) -> Verified:
    """The same at the end of a run, which it must not spoil: whatever fails is a note. So is Ctrl-C, since the run is
    over."""
    try:
        return verify_run(run, prepared, rows, seconds=seconds)
    except KeyboardInterrupt:
        return Verified(0, "float64", 0.0, note="interrupted")
    except Exception as error:  # the model is the user's code, and the pool may be gone
        return Verified(0, "float64", 0.0, note=one_line(f"{type(error).__name__}: {error}")[:300])


class _Stored:
    """What the run wrote of a piece's rows."""

    def __init__(self, run: RunDirectory, config: Config) -> None:
        self._run = run
        self._columns = ("row_id", "key", *scores_of(config.model.task, config.passes.count))
        self._read = lru_cache(maxsize=4)(self._read_part)

    def of(self, report: ShardReport, piece: Piece) -> tuple[pa.Table, Array]:
        """The scored rows, and the row_ids of those that were set aside."""
        scores = self._read(report.scores, self._columns)
        ids = scores["row_id"].to_numpy()
        inside = scores.filter(pa.array((ids >= piece.row_id) & (ids < piece.row_id + piece.rows)))
        errors = self._read(report.errors, ("row_id",))["row_id"].to_numpy() if report.errors else np.empty(0, np.int64)
        return inside, errors

    def _read_part(self, name: str, columns: Sequence[str]) -> pa.Table:
        with open_parquet(self._run.storage.path(name)) as file:
            return file.read(list(columns))


class _Pairs:
    """Rows as the run has them, and scored again.

    Args:
        until: by the monotonic clock; no further rows are begun later.
        patience: seconds; more rows at a time are tried while they take less.
    """

    def __init__(self, scorer: Scorer, reference: Reference, until: float, patience: float) -> None:
        self._scorer = scorer
        self._reference = reference
        self._until, self._patience = until, patience
        self._rng = np.random.default_rng(scorer.config.passes.seed)
        self._step = 1
        self._stored: list[pa.Table] = []
        self._again: list[Both] = []
        self.rows = 0
        self.strange = 0

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._until

    def add(self, piece: Piece, scores: pa.Table, errors: Array, count: int) -> None:
        """Draw `count` rows of a piece, and score them again.

        Args:
            scores: what the run has of the piece's rows.
            errors: row_ids that it has set aside.
        """
        (block,) = self._scorer.reader.blocks(Shard(0, piece.row_id, piece.rows, (piece,)), piece.rows)
        row_ids = scores["row_id"].to_numpy()
        known = np.isin(block.row_ids, row_ids)
        self.strange += int((~known & ~np.isin(block.row_ids, errors)).sum())
        drawn = np.zeros(len(block), dtype=bool)
        drawn[self._rng.permutation(np.flatnonzero(known))[:count]] = True
        picked = block.pick(drawn)
        stored = scores.take(pa.array(np.searchsorted(row_ids, picked.row_ids)))
        self.strange += int((stored["key"].to_numpy() != picked.keys).sum())
        start = 0
        while start < len(picked) and not self.late:
            stop = min(len(picked), start + self._step, start + self._scorer.config.run.batch_size)
            self._score(picked.slice(start, stop), stored.slice(start, stop - start))
            start = stop

    def _score(self, rows: Rows, stored: pa.Table) -> None:
        began, n = time.monotonic(), len(rows)
        inputs, bad = self._scorer.decoder.decode(rows)
        if bad:
            raise ConfigError(f"row {rows.row_ids[min(bad)]} was scored, and cannot be decoded now: {bad[min(bad)][1]}")
        keys = self._scorer.decoder.padded_keys(rows)[:n]
        self._again.append(self._reference.score({name: x[:n] for name, x in inputs.items()}, keys, rows.keys))
        self._stored.append(stored)
        self.rows += n
        if time.monotonic() - began < self._patience:
            self._step = min(STEP, 2 * self._step)

    def differences(self, config: Config, reference: Reference) -> dict[str, Difference]:
        """Of each score, over all rows so far."""
        stored = pa.concat_tables(self._stored)
        return {
            name: self._difference(name, stored, config.model.task is Task.REGRESSION, reference.is_higher)
            for name in scores_of(config.model.task, config.passes.count)
        }

    def _difference(self, name: str, stored: pa.Table, regression: bool, measured: bool) -> Difference:
        run_N, exact_N = (np.concatenate([getattr(both, of)[name] for both in self._again]) for of in ("run", "exact"))
        stored_N = stored[name].to_numpy().astype(np.float64)
        allowed_N = np.zeros(len(stored_N))
        if SCORES[name].from_logits:
            size = float(np.abs(exact_N).max()) if regression else max(1.0, float(np.abs(exact_N).max()))
            allowed_N += STORED_ROUNDINGS * ROUND * size
            logit = max(1.0, max(both.size for both in self._again))
            if measured:
                logit_error = FACTOR * max(both.error for both in self._again)
                allowed_N += FACTOR * np.abs(run_N - exact_N).max()
            else:
                logit_error = LOGIT_ROUNDINGS * ROUND * logit
                allowed_N += 10 * logit_error * (logit if regression else size)
            if name == "variation_ratio":
                gap_NT = np.concatenate([both.gaps for both in self._again])
                allowed_N += (gap_NT <= 2 * logit_error).mean(axis=1)
        differ_N = np.abs(stored_N - exact_N)
        worst = int(np.argmax(differ_N - allowed_N))
        return Difference(
            largest=float(differ_N.max()),
            allowed=float(allowed_N[worst]),
            row_id=int(stored["row_id"][worst].as_py()),
            stored=float(stored_N[worst]),
            again=float(exact_N[worst]),
        )
