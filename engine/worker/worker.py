"""A worker: builds the model once, then scores and commits shard after shard. In-process or inside a Ray actor."""

from __future__ import annotations

import json
import re
import resource
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import BrokenDevice, ConfigError, OutOfMemory, PoolAway, PoolscoreError, UnreadableShard
from poolscore.engine.machine.openmp import end_own_pool
from poolscore.engine.model.compiled import Artefact, programs_compiled
from poolscore.engine.pool.plan import Shard
from poolscore.engine.pool.read import ShardReader, is_away
from poolscore.engine.reasons import by_kind
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.run.mixed import Profile, profile_name
from poolscore.engine.run.sweep import keep_unless_sealed
from poolscore.engine.run.task import LookAgain, LookAtLabelled
from poolscore.engine.scores import scores_of
from poolscore.engine.shortlist.look import look_again, reader_of, require_rows
from poolscore.engine.shortlist.read import FEATURES, Looked, WidePart, matrix, new_name
from poolscore.engine.storage.base import Storage, publish_new
from poolscore.engine.storage.open import open_storage
from poolscore.engine.storage.patient import PatientStorage
from poolscore.engine.worker.feed import NO_ROWS, Blank, Feed
from poolscore.engine.worker.job import Job, build_scorer
from poolscore.engine.worker.preview import Preview, preview
from poolscore.engine.worker.profile import numeric_profile, numeric_settings
from poolscore.engine.worker.shard import ScoredShard, Scorer

A = TypeVar("A")
B = TypeVar("B")

REASONS = 5  # commonest reasons of rejection that a report carries
REASON_LENGTH = 200  # characters
# What torch, Triton, cuBLAS, cuDNN and ONNX Runtime say; room that is missing is another matter.
_OF_GPU = re.compile("(CUDA error|CUDA failure|Triton Error|CUBLAS_STATUS|CUDNN_STATUS)(?!.*out of memory)", re.DOTALL)


class ShardWorker:
    """Scores shards of one job.

    Two shards may be scored at a time, each by a call of `score` on a thread of its own: the second is read and decoded
    ahead while the first is in the model, and the first is written while the second is. The model is built and run on
    one thread, shard after shard.

    Raises:
        ConfigError: the model, the exclude list or the run directory here is not the driver's.
    """

    def __init__(self, job: Job, name: str = "in-process") -> None:
        self.name = f"{name}@{socket.gethostname()}"
        self._threads = job.config.run.threads
        self._threaded = bool(job.config.run.decode_threads)
        self._score_names = scores_of(job.config.model.task, job.config.passes.count)
        self._closed = Event()
        self._storage = open_storage(job.config.run.dir, job.config.run.storage_patience, self._closed)
        self._epoch = job.epoch
        self._ended = 0.0  # when the last shard was
        if job.run_id is not None:
            _require_same_directory(self._storage, job.run_id)
        end_own_pool()  # of whoever prepared the job in this process
        self._device = ThreadPoolExecutor(1, thread_name_prefix="poolscore-device")
        try:
            self._scorer, compiled = self._on_device(self._build, job)
        except BaseException:
            self.close()
            raise
        of_model = {**self._scorer.model.profile, "compiled": compiled}
        self.profile: Profile = numeric_profile(job.config, self._scorer.decoder.device, of_model)

    def score(self, shard: Shard, blank: Blank = NO_ROWS) -> ShardReport:
        """Score a shard and write its part; the part counts once the driver has journalled the report. Blank rows are
        rejected without being decoded; the others keep their bits.

        Raises:
            UnreadableShard: a file of the pool cannot be read.
            OutOfMemory: the device has no room for a batch and its passes.
            StoppedError: storage is away for too long, the run has ended, or the worker was closed.
        """
        started = time.monotonic()
        feed, scored = self._scored(shard, blank)
        scores, errors = scored.scores, scored.errors
        filtered = feed.filtered
        attempt = f"part-{shard.index:05d}-{secrets.token_hex(4)}.parquet"
        with feed.stages.time("write"):
            scores_name = self._write(f"scores/{attempt}", scores)
            errors_name = self._write(f"errors/{attempt}", errors) if errors.num_rows else None
            keep_unless_sealed(self._storage, self._epoch, filter(None, [scores_name, errors_name]))
        # The time of a shard begins where the one before ends: the sum over shards is the time of the worker.
        began, self._ended = max(started, self._ended), time.monotonic()
        return ShardReport(
            shard=shard.index,
            scores=scores_name,
            errors=errors_name,
            scored=scores.num_rows,
            rejected=errors.num_rows,
            excluded=shard.rows - scores.num_rows - errors.num_rows - filtered,
            filtered=filtered,
            best=self._best(scores),
            rejected_by=dict(Counter(errors["stage"].to_pylist())),
            reasons=dict(by_kind((e[:REASON_LENGTH], 1) for e in errors["error"].to_pylist()).most_common(REASONS)),
            seconds=self._ended - began,
            at=round(time.time(), 3),
            worker=self.name,
            profile=profile_name(self.profile),
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            stages={stage: round(seconds, 4) for stage, seconds in feed.stages.seconds.items()},
        )

    def attempt(self, shard: Shard, blank: Blank = NO_ROWS) -> None:
        """Score a shard and write nothing: can it be done? Raises what `score` raises."""
        self._scored(shard, blank)

    def preview(self, sample: Shard) -> Preview:
        """Score a sample of the pool; nothing is written.

        Raises:
            ConfigError: no row of it can be scored.
            UnreadableShard: a file of the pool cannot be read.
        """
        return self._on_device(lambda drawn: preview(self._scorer, drawn, str(self.profile["device"])), sample)

    def look_again(self, task: LookAgain) -> Looked:
        """Infer rows once more and write what their scores were made of. Rows that cannot be decoded any more are left
        out.

        Raises:
            UnreadableShard: a file of the pool cannot be read, or holds other rows by now.
            OutOfMemory, StoppedError: see `score`.
        """
        found, bad = self._looked(task.shard, self._scorer.reader.only(task.row_ids), task.whole)
        require_rows(found, bad, task.row_ids, task.keys)
        return Looked(self._written(task.shard, found), bad)

    def look_at_labelled(self, task: LookAtLabelled) -> Looked:
        """Write the features of labelled rows, of those that have finite ones.

        Raises: see `look_again`.
        """
        found, bad = self._looked(task.shard, reader_of(task, self._scorer.config), whole=False)
        finite = np.isfinite(matrix(found[FEATURES])).all(axis=1)
        bad |= dict.fromkeys(found["row_id"].filter(pa.array(~finite)).to_pylist(), "its features are not finite")
        return Looked(self._written(task.shard, found.filter(pa.array(finite))), bad)

    def _looked(self, shard: Shard, reader: ShardReader, whole: bool) -> tuple[pa.Table, dict[int, str]]:
        def look() -> tuple[pa.Table, dict[int, str]]:
            with _broken_devices(shard), self._scorer.feed(shard, self._threaded, reader=reader) as feed:
                return self._on_device(lambda given: look_again(self._scorer, given, whole), feed)

        return self._patiently(look)

    def _written(self, shard: Shard, found: pa.Table) -> WidePart:
        name = new_name(f"part-{shard.index:05d}", ".parquet")
        publish_new(
            self._storage, name, lambda file: pq.write_table(found, file, compression="none", use_dictionary=False)
        )
        keep_unless_sealed(self._storage, self._epoch, [name])
        row_ids = found["row_id"].to_pylist() or [0]
        return WidePart(name, row_ids[0], row_ids[-1], found.num_rows)

    def close(self) -> None:
        """End the thread of the model; a shard that is in it is given up, and nobody waits for storage any more."""
        self._closed.set()
        if hasattr(self, "_scorer"):
            self._scorer.stop()
        self._device.shutdown(wait=True, cancel_futures=True)
        if hasattr(self, "_scorer"):
            self._scorer.decoder.close()

    def _scored(self, shard: Shard, blank: Blank) -> tuple[Feed, ScoredShard]:
        def score() -> tuple[Feed, ScoredShard]:
            with _broken_devices(shard), self._scorer.feed(shard, self._threaded, blank) as feed:
                return feed, self._scorer.collect(self._on_device(self._scorer.infer, feed))

        return self._patiently(score)

    def _patiently(self, read: Callable[[], A]) -> A:
        """No shard is to blame where the pool's storage fails in a way that may pass: it is read again, with growing
        pauses, and then the job stops. Of one shard after another all would be set aside."""

        def attempt() -> A:
            try:
                return read()
            except UnreadableShard as error:
                if not is_away(error):
                    raise
                raise PoolAway(f"{error}; mend the storage, then run the same command again") from error.__cause__

        if not isinstance(self._storage, PatientStorage):
            return read()
        return self._storage.patiently(attempt, PoolAway)

    def _on_device(self, call: Callable[[A], B], given: A) -> B:
        def run() -> B:
            try:
                with numeric_settings(self._threads):
                    return call(given)
            except torch.OutOfMemoryError as error:
                why = one_line(error)
            raise OutOfMemory(why)  # out here: the frames of that error hold the memory that the next try needs

        return self._device.submit(run).result()

    def _build(self, job: Job) -> tuple[Scorer, str]:
        self._scorer = build_scorer(job)
        return self._scorer, self._compile(job.compiled) if job.compiled else "no"

    def _compile(self, artefact: Artefact) -> str:
        """Compile the model from what the driver left, by scoring a blank batch. Returns which programs it runs."""
        with suppress(FileNotFoundError):  # there is none yet for a preview, whose worker compiles by itself
            artefact.load(self._storage.read(artefact.name))
        before = programs_compiled()
        rows = self._scorer.config.run.batch_size
        inputs = self._scorer.decoder.blank(rows)
        keys = torch.zeros(rows, dtype=torch.int64, device=self._scorer.decoder.device)
        self._scorer.model.compile_for(inputs, keys)
        return artefact.programs if programs_compiled() == before else f"by {self.name} itself"

    def _best(self, scores: pa.Table) -> dict[str, float]:
        """The largest value of each score, by which a selection can pass over whole shards."""
        names = self._score_names if scores.num_rows else ()
        return {name: float(pc.max(scores[name]).as_py()) for name in names}

    def _write(self, name: str, table: pa.Table) -> str:
        # Numbers lie plain, because selections read these columns again and again; text is compressed.
        plain = [f.name for f in table.schema if pa.types.is_primitive(f.type)]
        compression = {f.name: "none" if f.name in plain else "zstd" for f in table.schema}
        dictionary = [f.name for f in table.schema if f.name not in plain]
        publish_new(
            self._storage,
            name,
            lambda file: pq.write_table(table, file, compression=compression, use_dictionary=dictionary),
        )
        return name


@contextmanager
def _broken_devices(shard: Shard) -> Iterator[None]:
    """Tells of a GPU that fails, by which every other shard would fail too."""
    try:
        yield
    except PoolscoreError:
        raise
    except Exception as error:
        if not _OF_GPU.search(str(error)):
            raise
        raise BrokenDevice(f"shard {shard.index}: {one_line(f'{type(error).__name__}: {error}')}") from error


def _require_same_directory(storage: Storage, run_id: str) -> None:
    try:
        found = json.loads(storage.read("run.json")).get("id")
    except (OSError, ValueError):
        found = None
    if found != run_id:
        raise ConfigError(
            f"run.dir: {storage.root} is not the run's directory on {socket.gethostname()}; it must lie on storage "
            "that all machines share"
        )
