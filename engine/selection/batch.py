"""Step 7: the batch to label, as a pure function of the committed scores. Needs no GPU, no model, no pool."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.config import Config
from poolscore.engine.cores import usable_cores
from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import read_ids
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.selection.caps import NEAR_DUPLICATES
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.clusters import Listed, candidates, ranked_otherwise
from poolscore.engine.selection.columns import Columns
from poolscore.engine.selection.control import CONTROL, control_ranks, control_rows, with_control
from poolscore.engine.selection.methods import AWARE, BY_CHANCE
from poolscore.engine.selection.order import NO_ROWS, Rows
from poolscore.engine.selection.others import Others, find_others
from poolscore.engine.selection.parts import Part, parts_of
from poolscore.engine.selection.ranking import ranking_of
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.several import ages_of, require_alike
from poolscore.engine.selection.thin import Wanted, fill_thinned
from poolscore.engine.selection.threshold import Question, Threads, Workers
from poolscore.engine.selection.top import Scored, count_excluded, fill, fill_by_rank
from poolscore.engine.selection.walk import Walk
from poolscore.engine.shortlist.read import Shortlist, read_shortlist
from poolscore.engine.words import amount

ABOUT = b"poolscore"  # key of the schema metadata: JSON, what the rows were selected from


@dataclass(frozen=True)
class Batch:
    """The batch to label, which need not fit into memory."""

    choice: Choice
    about: Mapping[str, Any]  # what it is made from
    _columns: Columns
    _others: Others
    _control: Rows = field(default_factory=lambda: NO_ROWS)
    _run_names: Sequence[str] = ()  # empty where there is one run
    _lacking: str | None = None  # what the shortlist that it is selected from lacks

    @property
    def count(self) -> int:
        """Rows."""
        return self._others.count + len(self._control)

    @property
    def notes(self) -> Sequence[str]:
        """What is to be said of it."""
        choice, notes = self.choice, list(self._others.notes)
        if self._lacking is not None:
            notes.append(
                f"it is selected from a shortlist that is not what it should be: {self._lacking}; `poolscore score` "
                "with shortlist.rows above 0 makes it anew"
            )
        if listed := self.about.get("candidates"):
            notes.append(
                f"the candidates are the {amount(listed['rows'], 'row')} of the shortlist, the best by "
                f"{listed['method']} of {listed['score']}; the best by {choice.method} of {choice.score} may not be "
                "among them"
            )
        if excluded := self.about.get("excluded"):
            left_out, listed = amount(excluded["rows"], "scored row"), amount(excluded["listed"], "id")
            notes.append(f"{left_out} left out: --exclude lists {listed}")
        if len(self._control):
            drawn = f"{amount(len(self._control), 'row')} of them drawn at random from all that are scored"
            notes.append(f"{drawn}: their method is '{CONTROL}'")
        elif choice.control and choice.k:
            notes.append(
                f"no control rows: {choice.control:g} of {amount(choice.k, 'row')} rounds to none; raise "
                "select.control or k"
            )
        if refused := self.about.get("refused_by_caps"):
            notes.append(
                f"{refused:,} of the best {choice.k:,} gave way, for groups of theirs were full ({choice.caps})"
            )
        if self.count < choice.k and choice.method not in AWARE:  # which say so themselves
            notes.append(f"{amount(self.count, 'row')} instead of {choice.k:,}: {self._candidates()} hold no more")
        return notes

    def _candidates(self) -> str:
        """What the rows are taken from, as words."""
        caps = f" under the caps ({self.choice.caps})" if self.choice.caps else ""
        return f"the {'shortlist' if self.choice.needs_shortlist else 'scores'}{caps}"

    @property
    def parts(self) -> Sequence[Part]:
        """What the rows of `ranked` lie in."""
        return self._columns.parts

    def ranked(self) -> Iterator[Rows]:
        """The rows, by rank. Each call begins anew."""
        return with_control(self._others.blocks(), self._control, self._control_ranks)

    def tables(self) -> Iterator[pa.Table]:
        """The batch, best first, in tables of up to BLOCK rows. Each call begins anew: a write that fails is
        repeated."""
        about = {ABOUT: json.dumps(self.about)}
        for table in self._columns.tables(self.ranked(), self.count):
            yield self._with_names(table).replace_schema_metadata(about)

    def _with_names(self, table: pa.Table) -> pa.Table:
        names, count = self._columns.names, table.num_rows
        columns = {name: table[name] for name in ("rank", "row_id", "key", "id", "score")}
        ranks_N = table["rank"].to_numpy()
        control_N = np.isin(ranks_N, self._control_ranks)
        of_control, picked = pa.array(control_N), None
        if self._others.columns is not None:
            places_N = ranks_N - 1 - np.searchsorted(self._control_ranks, ranks_N)
            picked = self._others.columns.take(pa.array(places_N, mask=control_N))
        columns["method"] = pc.if_else(of_control, CONTROL, picked["method"] if picked else self.choice.method)
        columns["score_name"] = pa.repeat(self.choice.score, count)
        if self.choice.method in BY_CHANCE:
            columns["perturbed_score"] = pc.if_else(of_control, None, table["value"])
        if picked is not None:
            columns |= {"step": picked["step"], "gain": picked["gain"]}
        if self._run_names:
            run_of_part = [self._run_names[part.run] for part in self._columns.parts]
            columns["run"] = pa.array([run_of_part[i] for i in table["part"].to_pylist()], pa.string())
        return pa.table({**columns, **{name: table[name] for name in names if name != "id"}})

    @cached_property
    def _control_ranks(self) -> NDArray[np.int64]:
        return control_ranks(self._control, self.count, self.choice.seed)


def select_batch(
    run: RunDirectory,
    config: Config,
    *,
    exclude: str | Sequence[str] | None = None,
    workers: Workers | None = None,
    **wanted: Any,
) -> pa.Table:
    """The batch to label from a run's scores, in memory; `selected` is for batches that do not fit there.

    Args:
        run: the run directory; only its committed scores are read.
        config: the run's configuration.
        exclude: files of further ids to leave out; see `read_ids`.
        workers: where the parts are read; default: threads of this process.
        wanted: score, k, method, beta, seed, max_per_group, quotas and control, where they are not to be the
            configuration's; see `Choice.of`.

    Where rejected rows or caps leave fewer than the configured k, fewer are selected.

    Returns:
        Table, best first: rank (int64, from 1), row_id, key, id, score, method (of control rows: CONTROL), score_name,
        prediction, confidence, and the columns of `pool.keep`; for the stochastic methods also perturbed_score
        (float64), by which they rank, for the batch-aware ones step (int64, from 1) and gain (float64; null: nothing to
        compare with); these are null for control rows. The schema's metadata say under ABOUT whether every shard of the
        run was scored, and what caps and control there were.

    Raises:
        ConfigError: the run has no such score or no scores yet, `exclude` cannot be read, or fewer rows are left than
            `k` or `exclude` ask for.
        StoppedError: a part cannot be read.
    """
    with selected([run], config, Choice.of(config, **wanted), exclude=exclude, workers=workers) as batch:
        require_enough(batch, wanted.get("k"), exclude)
        return pa.concat_tables(list(batch.tables())).combine_chunks()


@contextmanager
def selected(
    runs: Sequence[RunDirectory],
    config: Config,
    choice: Choice,
    *,
    exclude: str | Sequence[str] | None = None,
    workers: Workers | None = None,
    also: Sequence[str] = (),
) -> Iterator[Batch]:
    """The batch to label from the scores of one run, or of several with the same model, weights and passes.

    An id that several runs have counts once, with the score of the run that was created last. The columns are those of
    `select_batch`, and for several runs also run: its path or URI.

    Args:
        exclude, workers: see `select_batch`.
        also: further columns of the scores to be there.

    Raises:
        ConfigError: see `select_batch`; or the runs are not alike.
        StoppedError: a part cannot be read.
    """
    require_alike(runs)
    reports = [run.reports() for run in runs]
    for run, found in zip(runs, reports, strict=True):
        if not found:
            raise ConfigError(f"{run.storage.root}: no shard is scored yet, so there is nothing to select from")
    at_once = max(usable_cores(), *(run.storage.at_once for run in runs))
    parts = parts_of([(run.storage, found.values()) for run, found in zip(runs, reports, strict=True)], choice.score)
    scored = Scored(parts, ages_of(runs), workers or Threads(at_once))
    left_out = read_ids(exclude, config.pool.id, "--exclude")
    question = Question(choice.score, ranking_of(choice.method, choice.beta, choice.seed), left_out)
    names = list(dict.fromkeys(["id", "prediction", "confidence", *config.pool.keep, *also]))
    if len(runs) > 1 and "run" in names:
        raise ConfigError("pool.keep: 'run' is the column that tells the runs apart; select from each of them")
    shortlist = _shortlist_of(runs, choice) if choice.needs_shortlist else None
    lacking = shortlist.lacks(reports[0]) if shortlist is not None else None
    limits = choice.limits()
    if shortlist is not None:
        listed_keys = candidates(shortlist)
        question = replace(question, ranking=Listed(question.ranking, listed_keys))
        if otherwise := ranked_otherwise(runs[0], choice):
            limits["candidates"] = {"rows": len(listed_keys), **otherwise}
    control = control_rows(scored, question, choice.control, choice.k, choice.seed)
    groups = Columns(parts, choice.score, choice.caps.columns, at_once)
    thinned = _thinned_by(choice, scored, question, control)
    walk = Walk(_fill_by(choice, scored, question), groups, choice.caps, control, shortlist, thinned)
    wanted = choice.k - len(control)
    if exclude is not None:
        limits["excluded"] = {"listed": len(left_out), "rows": count_excluded(scored, left_out)}
    with SortedRuns(wanted) as best:
        others = find_others(best, walk, choice, config.model.task, wanted)
        limits |= {**({"control_rows": len(control)} if choice.control else {}), **others.about}
        columns = Columns(parts, choice.score, names, at_once)
        run_names = [run.storage.root for run in runs] if len(runs) > 1 else []
        if shortlist is not None:
            limits["shortlist_complete"] = lacking is None
        about = {**_about(runs, reports), **limits}
        yield Batch(choice, about, columns, others, control, run_names, lacking)


def require_enough(batch: Batch, k: int | None, exclude: str | Sequence[str] | None) -> None:
    """Refuse a batch that is smaller than what was asked for in so many words.

    Args:
        k: what was asked for; None: what the run was configured for, of which rejected rows may leave fewer.
        exclude: what was asked to be left out.
    """
    if batch.count < batch.choice.k and (k is not None or exclude is not None):
        choice = batch.choice
        taken_from = "rows of the shortlist" if choice.needs_shortlist else "scored rows"
        caps = f" under the caps ({choice.caps}); raise them" if choice.caps else ""
        larger = "; `poolscore score` with a larger shortlist.rows makes more" if choice.needs_shortlist else ""
        raise ConfigError(
            f"k: {choice.k} rows are asked for, {batch.count} {taken_from} are left to select from{caps}{larger}"
        )


def _fill_by(choice: Choice, scored: Scored, question: Question) -> Callable[[SortedRuns, int], int]:
    """Puts so many of the best rows by a method into a sink."""
    if choice.method == "softrank":
        return lambda best, k: fill_by_rank(best, scored, question, k, choice.beta, choice.seed)
    return lambda best, k: fill(best, scored, question, k)


def _thinned_by(
    choice: Choice, scored: Scored, question: Question, control: Rows
) -> Callable[[SortedRuns, int], int] | None:
    """Puts all rows into a sink of which so many can be taken under the caps; None: only the best can be had."""
    if choice.needs_shortlist or choice.method == "softrank" or len(scored.ages) > 1:
        return None  # what is left out of these cannot be told from parts of their rows
    return lambda best, k: fill_thinned(best, scored, Wanted(question, choice.caps, control, k))


def _shortlist_of(runs: Sequence[RunDirectory], choice: Choice) -> Shortlist:
    if len(runs) > 1:
        what = choice.method if choice.method in AWARE else NEAR_DUPLICATES
        raise ConfigError(f"{what}: a shortlist is of one run; select from each of the runs")
    return read_shortlist(runs[0])


def _about(runs: Sequence[RunDirectory], reports: Sequence[Mapping[int, ShardReport]]) -> dict[str, Any]:
    """What a selection is made from. No time and no path: the same rows give the same bytes."""
    shards = [len(run.plan.shards) for run in runs]
    scored = [sum(index in found for index in range(count)) for found, count in zip(reports, shards, strict=True)]
    pools = [run.info["identity"].get("the pool") for run in runs]
    return {
        "complete": scored == shards,
        "shards_scored": sum(scored),
        "shards": sum(shards),
        "pool_digest": pools[0] if len(runs) == 1 else pools,
        "weights_digest": runs[0].info["identity"].get("the weights"),
    }
