"""Step 7: the batch to label, as a pure function of the committed scores. Needs no GPU, no model, no pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import read_ids
from poolscore.engine.machine.cores import usable_cores
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.selection.caps import NEAR_DUPLICATES
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.clusters import Listed, candidates, ranked_otherwise
from poolscore.engine.selection.columns import Columns
from poolscore.engine.selection.control import control_rows
from poolscore.engine.selection.methods import AWARE
from poolscore.engine.selection.order import Rows
from poolscore.engine.selection.others import find_others
from poolscore.engine.selection.parts import parts_of
from poolscore.engine.selection.ranking import ranking_of
from poolscore.engine.selection.result import Batch
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.several import ages_of, require_alike
from poolscore.engine.selection.thin import UnderCaps, fill_thinned
from poolscore.engine.selection.threshold import Question, Threads, Workers
from poolscore.engine.selection.top import Scored, count_excluded, fill, fill_by_rank
from poolscore.engine.selection.walk import Walk
from poolscore.engine.shortlist.read import Shortlist, read_shortlist


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
        compare with); these are null for control rows. The schema's metadata say under ABOUT what was asked for (see
        `Choice.manifest`) and whether every shard of the run was scored.

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
    asked = choice.manifest()
    if shortlist is not None:
        listed_keys = candidates(shortlist)
        question = replace(question, ranking=Listed(question.ranking, listed_keys))
        if otherwise := ranked_otherwise(runs[0], choice):
            asked["candidates"] = {"rows": len(listed_keys), **otherwise}
    control = control_rows(scored, question, choice.control, choice.k, choice.seed)
    groups = Columns(parts, choice.score, choice.caps.columns, at_once)
    thinned = _thinned_by(choice, scored, question, control)
    walk = Walk(_fill_by(choice, scored, question), groups, choice.caps, control, shortlist, thinned)
    wanted = choice.k - len(control)
    if exclude is not None:
        asked["excluded"] = {"listed": len(left_out), "rows": count_excluded(scored, left_out)}
    with SortedRuns(wanted) as best:
        others = find_others(best, walk, choice, config.model.task, wanted)
        asked |= {**({"control_rows": len(control)} if choice.control else {}), **others.about}
        columns = Columns(parts, choice.score, names, at_once)
        run_names = [run.storage.root for run in runs] if len(runs) > 1 else []
        if shortlist is not None:
            asked["shortlist_complete"] = lacking is None
        about = {**_about(runs, reports), **asked}
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
    return lambda best, k: fill_thinned(best, scored, UnderCaps(question, choice.caps, control, k))


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
