"""Which rows are on a shortlist, and everything of them but the wide columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from poolscore.engine.config import Config
from poolscore.engine.keys import IdSet
from poolscore.engine.machine.cores import usable_cores
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.scores import scores_of
from poolscore.engine.selection.batch import selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.columns import Columns
from poolscore.engine.selection.control import ByChance, control_rows
from poolscore.engine.selection.parts import parts_of
from poolscore.engine.selection.several import ages_of
from poolscore.engine.selection.threshold import Question, Threads
from poolscore.engine.selection.top import Scored
from poolscore.engine.shortlist.wanted import ranked_by


def find_rows(
    run: RunDirectory, config: Config, reports: Mapping[int, ShardReport], count: int, room: int
) -> tuple[pa.Table, list[str]]:
    """The `count` best rows, best first; then the batch's control rows that are not among them, in the order of their
    draws, so that the first of them are a fair sample too. No more than `room` in all.

    Returns:
        rank (of control rows null), row_id, key, id, prediction, confidence, the scores, and the columns of
        `pool.keep`; and what there was no room for, in words.
    """
    scores = scores_of(config.model.task, config.passes.count)
    names = list(dict.fromkeys(("id", "prediction", "confidence", *scores, *config.pool.keep)))
    columns = ["rank", "row_id", "key", *names]
    cut = [f"{room:,} rows instead of {count:,}, by shortlist.max_bytes"] if room < count else []
    with selected([run], config, ranked_by(config, min(count, room)), also=scores) as batch:
        tables = [table.select(columns).replace_schema_metadata() for table in batch.tables()]
    choice = Choice.of(config, method="topk", max_per_group={}, quotas={})
    at_once = max(usable_cores(), run.storage.at_once)
    parts = parts_of([(run.storage, reports.values())], choice.score)
    scored = Scored(parts, ages_of([run]), Threads(at_once))
    question = Question(choice.score, ByChance(choice.seed), IdSet())
    control = control_rows(scored, question, choice.control, choice.k, choice.seed)
    best = np.concatenate([table["row_id"].to_numpy() for table in tables])
    others = control[~np.isin(control["row_id"], best)]
    left = min(room - len(best), len(others))
    if left < len(others):
        cut.append(f"{left:,} instead of {len(others):,} control rows beside the best, by shortlist.max_bytes")
    if left:
        for table in Columns(parts, choice.score, names, at_once).tables(iter([others[:left]]), left):
            unranked = table.set_column(table.column_names.index("rank"), "rank", pa.nulls(len(table), pa.int64()))
            tables.append(unranked.select(columns))
    return pa.concat_tables(tables).combine_chunks(), cut
