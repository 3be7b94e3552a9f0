"""Step 7: the batch to label, as a pure function of the committed scores. Needs no GPU, no model, no pool."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolscore.engine.config import Config
from poolscore.engine.cores import usable_cores
from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import read_ids
from poolscore.engine.run.directory import SELECTION, RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.scores import require_score
from poolscore.engine.selection.columns import BLOCK, Columns
from poolscore.engine.selection.parts import parts_of
from poolscore.engine.selection.ranking import METHODS, ranking_of
from poolscore.engine.selection.runs import SortedRuns
from poolscore.engine.selection.several import ages_of, require_alike
from poolscore.engine.selection.threshold import Question, Threads, Workers
from poolscore.engine.selection.top import Scored, fill, fill_by_rank
from poolscore.engine.storage import Storage

ABOUT = b"poolscore"  # key of the schema metadata: JSON, what the rows were selected from
LARGE = 50_000_000  # rows; fewer are selected sooner than a cluster answers
NAME = "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}"
NAME_FORMAT = "up to 100 letters, digits, '-', '_' and '.' (not first)"


@dataclass(frozen=True)
class Choice:
    """What to select. `of` takes what is not given from a run's configuration."""

    score: str
    k: int
    method: str
    beta: float  # of the stochastic methods
    seed: int  # of their noise

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        score: str | None = None,
        k: int | None = None,
        method: str | None = None,
        beta: float | None = None,
        seed: int | None = None,
    ) -> Choice:
        """
        Raises:
            ConfigError: there is no such score or method, or a number is out of its range.
        """
        select = config.select
        seed = select.seed if seed is None else seed
        choice = cls(
            score or config.selected_by,
            select.k if k is None else k,
            method or select.method,
            select.beta if beta is None else beta,
            config.passes.seed if seed is None else seed,
        )
        require_score(choice.score, config.model.task, config.passes.count)
        if choice.k < 0:
            raise ConfigError(f"k must be 0 or more, got {choice.k}")
        if choice.method not in METHODS:
            raise ConfigError(f"--method {choice.method}: there are {', '.join(METHODS)}")
        if not 0 < choice.beta < float("inf"):
            raise ConfigError(f"--beta {choice.beta}: must be above 0; larger follows the scores more closely")
        if not 0 <= choice.seed < 1 << 64:
            raise ConfigError(f"--seed {choice.seed}: must be 0 or more, below 2^64")
        return choice

    def manifest(self) -> dict[str, Any]:
        """What a selection's manifest says of it."""
        chance = {"beta": self.beta, "seed": self.seed} if self.method != "topk" else {}
        return {"method": self.method, "score": self.score, "k": self.k, **chance}


@dataclass(frozen=True)
class Batch:
    """The batch to label, which need not fit into memory."""

    count: int  # rows
    about: Mapping[str, Any]  # what it is made from
    choice: Choice
    _columns: Columns
    _best: SortedRuns
    _run_names: Sequence[str]  # empty where there is one run

    def tables(self) -> Iterator[pa.Table]:
        """The batch, best first, in tables of up to BLOCK rows. Each call begins anew: a write that fails is
        repeated."""
        about = {ABOUT: json.dumps(self.about)}
        for table in self._columns.tables(self._best.merged(), self.count):
            yield self._with_names(table).replace_schema_metadata(about)

    def _with_names(self, table: pa.Table) -> pa.Table:
        names, count = self._columns.names, table.num_rows
        columns = {name: table[name] for name in ("rank", "row_id", "key", "id", "score")}
        columns["method"] = pa.repeat(self.choice.method, count)
        columns["score_name"] = pa.repeat(self.choice.score, count)
        if self.choice.method != "topk":
            columns["perturbed_score"] = table["value"]
        if self._run_names:
            run_of_part = [self._run_names[part.run] for part in self._columns.parts]
            columns["run"] = pa.array([run_of_part[i] for i in table["part"].to_pylist()], pa.string())
        return pa.table({**columns, **{name: table[name] for name in names if name != "id"}})


def select_batch(
    run: RunDirectory, config: Config, *, exclude: str | None = None, workers: Workers | None = None, **wanted: Any
) -> pa.Table:
    """The batch to label from a run's scores, in memory; `selected` is for batches that do not fit there.

    Args:
        run: the run directory; only its committed scores are read.
        config: the run's configuration.
        exclude: Parquet or CSV of further ids to leave out.
        workers: where the parts are read; default: threads of this process.
        wanted: score, k, method, beta and seed, where they are not to be the configuration's.

    Where rejected rows leave fewer than the configured k, fewer are selected.

    Returns:
        Table, best first: rank (int64, from 1), row_id, key, id, score, method, score_name, prediction, confidence, and
        the columns of `pool.keep`; for the stochastic methods also perturbed_score (float64), by which they rank. The
        schema's metadata say under ABOUT whether every shard of the run was scored.

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
    exclude: str | None = None,
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
    with SortedRuns(choice.k) as best:
        if choice.method == "softrank":
            count = fill_by_rank(best, scored, question, choice.k, choice.beta, choice.seed)
        else:
            count = fill(best, scored, question, choice.k)
        run_names = [run.storage.root for run in runs] if len(runs) > 1 else []
        columns = Columns(parts, choice.score, names, at_once)
        yield Batch(count, _about(runs, reports), choice, columns, best, run_names)


def write_batch(run: RunDirectory, config: Config, rows: int = 0, before: Callable[[], object] = lambda: None) -> None:
    """Select as configured and write `selection.parquet`; as many rows as there are where there are fewer than k.

    Args:
        rows: scored; LARGE or more of a run on a Ray cluster are read there.
        before: called when the file is complete, before it takes the place of an older one; it may raise.
    """
    cluster = config.run.address or os.environ.get("RAY_ADDRESS")
    on_cluster = config.run.executor == "ray" and rows >= LARGE
    with (
        workers_on(cluster if on_cluster else None) as workers,
        selected([run], config, Choice.of(config), workers=workers) as batch,
    ):
        write_selection(run.storage, batch, before=before)


def workers_on(address: str | None) -> AbstractContextManager[Workers | None]:
    """Workers of the Ray cluster at this address; None: none, where threads of this process do."""
    if address is None:
        return nullcontext()
    from poolscore.engine.selection.on_ray import ray_workers

    return ray_workers(address)


def write_selection(
    storage: Storage, batch: pa.Table | Batch, name: str = SELECTION, before: Callable[[], object] = lambda: None
) -> None:
    """Write a selection; the same rows give the same bytes. `before`: see `write_batch`."""

    def write(file: Any) -> None:
        tables = iter([batch] if isinstance(batch, pa.Table) else batch.tables())
        first = next(tables)
        with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
            for table in chain([first], tables):
                writer.write_table(table, row_group_size=BLOCK)
        before()

    storage.publish(name, write)


def write_named_selection(run: RunDirectory, name: str, batch: pa.Table | Batch, about: Mapping[str, Any]) -> str:
    """Write `selections/NAME.parquet` and its manifest; never over an older one. Returns its path.

    The manifest comes first and claims the name. Where the rows could not be written then, the same call goes on.

    Args:
        run: the run whose directory it is written to.
        name: NAME_FORMAT.
        batch: from `select_batch` or `selected`.
        about: further entries of the manifest.

    Raises:
        ConfigError: the name is taken, or no name (NAME_FORMAT).
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"--name {name}: a name has {NAME_FORMAT} only")
    storage = run.storage
    file, claim = f"selections/{name}.parquet", f"selections/{name}.json"
    if isinstance(batch, pa.Table):
        rows, source = batch.num_rows, json.loads(batch.schema.metadata[ABOUT])
    else:
        rows, source = batch.count, batch.about
    manifest = (json.dumps({"name": name, "rows": rows, **about, **source}, indent=2) + "\n").encode()
    free = f"{name}.parquet" not in storage.names("selections")
    if not free or not (storage.create(claim, manifest) or storage.read(claim) == manifest):
        raise ConfigError(f"--name {name}: exists in {storage.path('selections')}; choose another name")
    write_selection(storage, batch, file)
    return storage.path(file)


def require_enough(batch: Batch, k: int | None, exclude: str | None) -> None:
    """Refuse a batch that is smaller than what was asked for in so many words.

    Args:
        k: what was asked for; None: what the run was configured for, of which rejected rows may leave fewer.
        exclude: what was asked to be left out.
    """
    if batch.count < batch.choice.k and (k is not None or exclude is not None):
        raise ConfigError(f"k: {batch.choice.k} rows are asked for, {batch.count} scored rows are left to select from")


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
