"""Everything that can be known before hours are spent: the pool's shape, the model's dropout, one batch scored."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from poolscore.engine.batch_size import measure_batch_size
from poolscore.engine.config import AUTO, Config, RunConfig
from poolscore.engine.config_text import one_line
from poolscore.engine.cores import expected_workers
from poolscore.engine.errors import ConfigError, PoolscoreError, UnreadableShard
from poolscore.engine.exclude import digest_of, read_ids
from poolscore.engine.extend import Extension, extend
from poolscore.engine.identity import BASE, CODE, EXCLUDED, POOL, TOKENIZERS, settings_of
from poolscore.engine.imports import add_to_path
from poolscore.engine.inputs import build_decoders
from poolscore.engine.inputs.base import Decoder, RowSpec
from poolscore.engine.inputs.batch import BatchDecoder, find_row_specs
from poolscore.engine.keys import IdSet
from poolscore.engine.model.compiled import Artefact, only_these_programs, save_artefact
from poolscore.engine.model.layers import choose_layers
from poolscore.engine.model.load import load_network
from poolscore.engine.model.network import Network
from poolscore.engine.model.passes import Cost, McDropout
from poolscore.engine.model.probe import PROBE_ROWS, Inputs, Probe
from poolscore.engine.pool.choice import RowChoice
from poolscore.engine.pool.files import FooterCache, PoolFiles, StartWorkers, Workers, find_files
from poolscore.engine.pool.findings import findings_of
from poolscore.engine.pool.health import Finding
from poolscore.engine.pool.plan import Plan, make_plan
from poolscore.engine.pool.read import Rows, ShardReader
from poolscore.engine.profile import choose_device, numeric_settings, tokenizer_digests
from poolscore.engine.run.directory import RUN, RunDirectory, redacted
from poolscore.engine.run.footers import RunFooters
from poolscore.engine.scores import SCORES, Task
from poolscore.engine.selection.groups import require_groups
from poolscore.engine.shard import Scorer
from poolscore.engine.storage import open_storage
from poolscore.engine.uri import lies_in
from poolscore.engine.worker import Job, input_columns

OWN_COLUMNS = {
    "row_id",
    "key",
    "id",
    "prediction",
    "confidence",
    "rank",
    "score",
    "method",
    "score_name",
    "perturbed_score",
    "step",
    "gain",
    *SCORES,
}
COUNTED_PIECES = 2_000  # of row groups: in a larger pool rows are not counted in advance
LOOKED_AT = 64  # rows at a time, until the batch size is measured


@dataclass(frozen=True)
class Prepared:
    """A job that is known to work on its first batch."""

    config: Config
    pool: PoolFiles
    plan: Plan
    job: Job
    scorer: Scorer
    listed: int  # ids in the exclude list
    identity: dict[str, Any]  # what a resumed run must have in common
    batch_seconds: float  # one batch of T passes, scored
    cost: Cost
    programs: bytes  # what was compiled, to be written where the job's artefact says
    uncompiled_because: str | None  # why the model is not compiled, if it was tried
    findings: list[Finding]  # about the pool: what costs time or memory
    extension: Extension | None = None  # the run that this one extends

    @property
    def mask_bytes(self) -> int:
        """Memory that the masks take on a worker."""
        return self.scorer.model.mask_bytes


def prepare_job(config: Config, *, fresh: bool = False, extends: str | None = None) -> Prepared:
    """Look at pool, exclude list and model, and score one batch.

    Args:
        fresh: a run that is in the run directory has no say. Otherwise a batch size 'auto' is the one that it has, and
            what is looked at are rows that it has not scored yet.
        extends: a run directory: only files of the pool count that it has not.

    Raises:
        ConfigError: whatever is wrong with them; nothing was started, and nothing written but the footers of a large
            pool, into the run directory.
    """
    add_to_path(config.model.path)
    if lies_in(config.run.dir, config.pool.uri):
        raise ConfigError(
            f"run.dir: {config.run.dir} lies in the pool's folder, and its files would count as rows; move it"
        )
    pool, plan, choice, extension = _look_at_pool(config, RunFooters(open_storage(config.run.dir)), extends)
    exclude = read_ids(config.pool.exclude, config.pool.id)
    reader = ShardReader(plan.root, input_columns(config), config.pool.id, exclude, choice)
    device = choose_device(config)
    begun = None if fresh else _begun(config)
    if begun is not None and config.run.batch_size == AUTO:
        config = _as_begun(config, begun)
    _require_measurable(config, device)
    rows = config.run.batch_size or LOOKED_AT
    try:
        narrow = ShardReader(plan.root, [], config.pool.id, exclude, choice)
        with numeric_settings(config.run.threads):
            decoders = build_decoders(config)
            look = partial(_first_rows, config, plan, reader, narrow, decoders, rows, device)
            shards, specs, decoder, batch = look(_unfinished(plan, begun))
            if extension is None and not _asked_as_before(config, plan, begun):
                _check_rows(config, plan, narrow, len(exclude))
            network = load_network(config.model)
            scorer, probe, cost = _build(config, reader, decoder, network, batch)
            if config.run.batch_size == AUTO:
                config = _with_batch_size(scorer, batch, int(plan.shards.rows.max()))
                decoder = BatchDecoder(decoders, specs, config.run.batch_size, device)
                batch = _first_good_batch(decoder, _blocks(reader, plan, config.run.batch_size, shards))
                scorer = replace(scorer, config=config, decoder=decoder)
            identity = _identity(config, plan, exclude, specs, network)
            if extension is not None:
                extension.require_same_rule(identity, config)
                identity[BASE] = extension.id
            _score_first_batch(scorer, batch)
            compiled, programs, uncompiled_because = _compile(scorer, batch)
            seconds = _seconds(scorer, batch)
    except UnreadableShard as error:
        raise ConfigError(f"pool.uri: {error}; write the file again or take it out") from error
    because = scorer.model.repeated_because
    job = Job(config, plan.root, choice, specs, probe, network.weights, digest_of(exclude), because, compiled)
    listed = len(exclude)
    workers = expected_workers(config.run, torch.cuda.device_count() if device.type == "cuda" else 0)
    findings = findings_of(pool, plan, config.pool.uri, workers)
    return Prepared(
        *(config, pool, plan, job, scorer, listed, identity, seconds, cost, programs, uncompiled_because, findings),
        extension,
    )


def _begun(config: Config) -> RunDirectory | None:
    """The run that is in the run directory."""
    return RunDirectory(config.run.dir) if RUN in open_storage(config.run.dir).names("") else None


def _as_begun(config: Config, begun: RunDirectory) -> Config:
    """A batch size 'auto' as the run has it."""
    there = begun.info["config"]
    return _with_sizes(config, there["run"]["batch_size"], there["passes"]["rows_per_call"])


def _unfinished(plan: Plan, begun: RunDirectory | None) -> Sequence[int]:
    """Shards that the run has not scored yet, or all if there are none: rows that are scored are not read again."""
    every = range(len(plan.shards))
    if begun is None or begun.info["pool"].get("digest") != plan.digest:
        return every
    done = begun.reports().keys()
    return [index for index in every if index not in done] or every


def _asked_as_before(config: Config, plan: Plan, begun: RunDirectory | None) -> bool:
    """Whether the run asks for as many rows of the same pool: then they were counted when it was begun."""
    if begun is None or begun.info["pool"].get("digest") != plan.digest:
        return False
    there = begun.info["config"]
    return (there["select"]["k"], there["pool"]) == (config.select.k, redacted(config.pool.model_dump(mode="json")))


def _require_measurable(config: Config, device: torch.device) -> None:
    cluster = config.run.executor == "ray" and (config.run.address or os.environ.get("RAY_ADDRESS"))
    if config.run.batch_size == AUTO and cluster and device.type == "cpu" and config.run.device != "cpu":
        raise ConfigError(
            "run.batch_size: 'auto' is measured where this command runs, and there is no GPU here as the cluster may "
            "have; give a number of rows, or set run.device: cpu"
        )


def _with_batch_size(scorer: Scorer, batch: _Batch, most: int) -> Config:
    before = scorer.model.rows_per_call
    with _failures_in_one_line("batches of several sizes"):
        size = measure_batch_size(scorer, batch.inputs, batch.good, most)
    smaller = size.rows_per_call if size.rows_per_call < before else scorer.config.passes.rows_per_call
    return _with_sizes(scorer.config, size.rows, smaller)


def _with_sizes(config: Config, batch_size: int, rows_per_call: int | None) -> Config:
    run = config.run.model_copy(update={"batch_size": batch_size})
    passes = config.passes.model_copy(update={"rows_per_call": rows_per_call})
    return config.model_copy(update={"run": run, "passes": passes})


@dataclass(frozen=True)
class _Batch:
    inputs: Inputs
    keys: Tensor
    good: list[int]  # rows that could be decoded


def read_sample(config: Config) -> Inputs:
    """What the model sees of a few rows of the pool (PROBE_ROWS), on the CPU.

    Raises:
        ConfigError: the pool cannot be read, or none of its first rows can be decoded.
    """
    add_to_path(config.model.path)
    _, plan, choice, _ = _look_at_pool(config, None)
    rows = config.run.batch_size or LOOKED_AT
    reader = ShardReader(plan.root, input_columns(config), config.pool.id, IdSet(), choice)
    decoders = build_decoders(config)
    try:
        narrow = ShardReader(plan.root, [], config.pool.id, IdSet(), choice)
        every, device = range(len(plan.shards)), torch.device("cpu")
        *_, batch = _first_rows(config, plan, reader, narrow, decoders, rows, device, every)
        return _sample(batch)
    except UnreadableShard as error:
        raise ConfigError(f"pool.uri: {error}; write the file again or take it out") from error


def _footer_workers(run: RunConfig) -> StartWorkers | None:
    """The machines of an attached cluster; a Ray on this machine is no faster than threads."""
    address = run.address or os.environ.get("RAY_ADDRESS")
    if run.executor != "ray" or not address:
        return None

    def start() -> AbstractContextManager[Workers]:
        from poolscore.engine.selection.on_ray import ray_workers  # Ray is not needed for a pool of few files

        return ray_workers(address, "run.address")

    return start


def _look_at_pool(
    config: Config, cache: FooterCache | None, extends: str | None = None
) -> tuple[PoolFiles, Plan, RowChoice, Extension | None]:
    wanted = config.pool
    workers = _footer_workers(config.run)
    pool = find_files(wanted.uri, keep=wanted.filter, bad_files=wanted.bad_files, cache=cache, workers=workers)
    _check_columns(config, pool)
    extension = None
    if extends is not None:
        pool, extension = extend(pool, config, extends)
    plan = make_plan(pool, config.run.shard_rows, sample=wanted.sample, seed=config.passes.seed)
    if not plan.rows and extension is not None:
        raise ConfigError(f"--extend: no row of the files that came since {extends} counts; there is nothing to score")
    if not plan.rows:
        raise ConfigError(
            f"pool.filter: by their statistics none of the {pool.rows} rows can match; look at names and values"
        )
    return pool, plan, replace(pool.choice, share=plan.share, seed=config.passes.seed), extension


def _sample(batch: _Batch) -> Inputs:
    return {name: _at_least(x[batch.good], PROBE_ROWS)[:PROBE_ROWS] for name, x in batch.inputs.items()}


def _first_good_batch(decoder: BatchDecoder, blocks: Iterator[Rows]) -> _Batch:
    """The first block with a row that can be decoded."""
    for rows in blocks:
        inputs, bad = decoder.decode(rows)
        if good := [i for i in range(len(rows)) if i not in bad]:
            return _Batch(inputs, decoder.padded_keys(rows), good)
    raise ConfigError("pool.input: no row of the pool can be decoded; look at its columns and at decode")


def _build(
    config: Config, reader: ShardReader, decoder: BatchDecoder, network: Network, batch: _Batch
) -> tuple[Scorer, Probe, Cost]:
    sample = _sample(batch)
    probe = choose_layers(network.probe(sample), config.passes.layers)
    _check_outputs(config, probe)
    because = None if config.passes.split else "passes.split is false"
    with _failures_in_one_line(f"its first rows with passes.precision={config.passes.precision}"):
        mc = McDropout(network, probe, config.passes, decoder.device, sample, repeat_because=because, verify=True)
        if config.passes.count > 1 and not mc.dropout_matters(sample):
            raise ConfigError(
                "model: its output is the same with everything dropped; its dropout does not reach the output"
            )
        return Scorer(config, reader, decoder, mc), probe, mc.cost(sample)


def _score_first_batch(scorer: Scorer, batch: _Batch) -> None:
    """Refuse a model that fails on a whole batch, or gives nothing that can be scored."""
    with _failures_in_one_line("the first batch"):
        logits_NTC = scorer.model.logits(batch.inputs, batch.keys)[batch.good]
        finite = scorer.statistics(logits_NTC).finite
    if scorer.config.model.task is Task.MULTICLASS and _are_probabilities(logits_NTC):
        raise ConfigError(
            "model: each row of its output is positive and sums to 1, so it ends in a softmax; task 'multiclass' takes "
            "logits: take the softmax out"
        )
    if not finite.any():
        raise ConfigError(
            "model: its output is not finite for any row of the first batch; check weights and normalisation (decode)"
        )


@contextmanager
def _failures_in_one_line(on: str) -> Iterator[None]:
    """The model is the user's code, and may fail in any way."""
    try:
        yield
    except PoolscoreError:
        raise
    except Exception as error:
        text = one_line(f"{type(error).__name__}: {error}")
        raise ConfigError(f"model.source: the model fails on {on}: {text}") from error


def _compile(scorer: Scorer, batch: _Batch) -> tuple[Artefact | None, bytes, str | None]:
    """Compile the model where that is asked for or usual: the artefact, its bytes, and why there is none."""
    if scorer.model.cut is None or not _wants_compiled(scorer):
        return None, b"", None
    with only_these_programs():
        because = scorer.model.try_compiled(batch.inputs, batch.keys)
        if because is None and (saved := save_artefact()) is not None:
            return *saved, None
    if because is None:
        scorer.model.leave_uncompiled()
        because = "torch's compiler caches are switched off, and workers would have to compile by themselves"
    if scorer.config.passes.compile:
        raise ConfigError(f"passes.compile: the model cannot be compiled here ({because}); leave it out")
    return None, b"", because


def _wants_compiled(scorer: Scorer) -> bool:
    wanted = scorer.config.passes.compile
    return scorer.decoder.device.type == "cuda" if wanted is None else wanted


def _seconds(scorer: Scorer, batch: _Batch) -> float:
    """For one batch, after one that warmed up."""
    started = time.monotonic()
    scorer.statistics(scorer.model.logits(batch.inputs, batch.keys)).finite.cpu()
    return time.monotonic() - started


def _are_probabilities(outputs_NTC: Tensor) -> bool:
    return bool((outputs_NTC >= 0).all() and ((outputs_NTC.sum(-1) - 1).abs() < 1e-3).all())


def _check_columns(config: Config, pool: PoolFiles) -> None:
    asked = dict.fromkeys(config.pool.keep, "pool.keep")
    if config.pool.id is not None:
        asked[config.pool.id] = "pool.id"
    for name, decoder in build_decoders(config).items():
        key = f"pool.inputs.{name}" if name else "pool.input"
        asked |= dict.fromkeys(decoder.columns, key)
        pool.require_columns(dict.fromkeys(decoder.columns, key))
        decoder.check(pool.schema)
    pool.choice.check(pool.schema)
    pool.require_columns(asked | dict.fromkeys(pool.choice.columns, "pool.filter"))
    for name in set(config.select.max_per_group) & set(config.pool.keep):
        require_groups(name, pool.schema.field(name).type)
    if taken := sorted(set(config.pool.keep) & OWN_COLUMNS):
        raise ConfigError(f"pool.keep: '{taken[0]}' is a column that poolscore writes itself; rename it in the pool")


def _first_rows(
    config: Config,
    plan: Plan,
    reader: ShardReader,
    narrow: ShardReader,
    decoders: Mapping[str, Decoder],
    rows: int,
    device: torch.device,
    shards: Sequence[int],
) -> tuple[Sequence[int], dict[str, RowSpec], BatchDecoder, _Batch]:
    """The first of these shards that have a row that can be decoded, and what their first batch is like. Where they
    have none, and are the rest of a run, it is looked for in the whole pool."""
    try:
        found = _from_first_row(config, plan, narrow, shards)
        specs = find_row_specs(decoders, _blocks(reader, plan, rows, found))
        decoder = BatchDecoder(decoders, specs, rows, device)
        return found, specs, decoder, _first_good_batch(decoder, _blocks(reader, plan, rows, found))
    except (ConfigError, UnreadableShard):
        if len(shards) == len(plan.shards):
            raise
        every = range(len(plan.shards))
        return _first_rows(config, plan, reader, narrow, decoders, rows, device, every)


def _from_first_row(config: Config, plan: Plan, narrow: ShardReader, shards: Sequence[int]) -> Sequence[int]:
    """The shards from the first on of which a row is left, found by a reader of no more than ids and the filter's
    columns."""
    for place, index in enumerate(shards):
        if any(len(rows) for rows in narrow.blocks(plan.shards[index], config.run.shard_rows)):
            return shards[place:]
    raise ConfigError(
        f"{_leaving_out(config)}: all {plan.rows + plan.passed_over} rows of the pool are excluded; there is nothing "
        "to score"
    )


def _check_rows(config: Config, plan: Plan, narrow: ShardReader, listed: int) -> None:
    """Refuse a pool of which fewer than k rows are left. They are counted only where it matters, up to k, and not in a
    large pool, of which a whole column would be read: if they turn out to be fewer, the selection is shorter."""
    k = config.select.k
    if k > plan.rows:
        of = f"{plan.rows} are left after {_leaving_out(config)}" if plan.passed_over else f"the pool has {plan.rows}"
        raise ConfigError(f"select.k: {k} rows are asked for, {of}")
    whole = config.pool.filter is None and config.pool.sample is None
    if (whole and plan.rows - listed >= k) or plan.pieces.num_rows > COUNTED_PIECES:
        return
    left = 0
    for rows in _blocks(narrow, plan, config.run.shard_rows, range(len(plan.shards))):
        left += len(rows)
        if left >= k:
            return
    raise ConfigError(f"select.k: {k} rows are asked for, {left} are left after {_leaving_out(config)}")


def _leaving_out(config: Config) -> str:
    """The settings by which rows are left out."""
    return " and ".join(f"pool.{n}" for n in ("filter", "sample", "exclude") if getattr(config.pool, n) is not None)


def _check_outputs(config: Config, probe: Probe) -> None:
    model, expected = config.model, config.model.outputs
    if expected is not None and probe.outputs != expected:
        named = "task 'binary' has one logit" if model.task is Task.BINARY else f"model.classes says {expected}"
        raise ConfigError(f"model.classes: the model gives {probe.outputs} outputs per row, {named}")
    if model.task is Task.MULTICLASS and probe.outputs < 2:
        raise ConfigError("model.task: 'multiclass' needs at least two logits, the model gives one; is it 'binary'?")
    if model.predicts_noise and (model.task is not Task.REGRESSION or probe.outputs % 2):
        raise ConfigError("model.predicts_noise: needs task 'regression' and as many log-variances as means")
    if config.passes.count > 1 and not probe.live and model.source.endswith(".onnx"):
        raise ConfigError(
            f"model.source: {model.source} has no Dropout node (exporters take them out in eval mode), so its "
            f"{config.passes.count} passes would be the same; write it with `poolscore export`, or with "
            "torch.onnx.export(dynamo=True, optimize=False) and only the dropout in training mode; or set "
            "passes.count: 1"
        )
    if config.passes.count > 1 and not probe.live:
        names = ", ".join(probe.stays_off)
        off = f" ({names} cannot be answered with masks and stay off)" if names else ""
        raise ConfigError(
            f"model: it has no live dropout{off}, so its {config.passes.count} passes would be the same; add dropout "
            "and train with it, or set passes.count: 1"
        )


def _identity(
    config: Config, plan: Plan, exclude: IdSet, specs: Mapping[str, RowSpec], network: Network
) -> dict[str, Any]:
    return {
        **settings_of(config),
        POOL: plan.digest,
        EXCLUDED: digest_of(exclude),
        TOKENIZERS: tokenizer_digests(config),
        "the shape of an input": {name: [list(spec.shape), spec.dtype] for name, spec in specs.items()},
        "the model": _digest(network.description),
        CODE: network.code,
        "the weights": network.weights,
    }


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _blocks(reader: ShardReader, plan: Plan, rows: int, shards: Sequence[int]) -> Iterator[Rows]:
    """Blocks with rows of these shards."""
    for index in shards:
        yield from filter(len, reader.blocks(plan.shards[index], rows))


def _at_least(x: Tensor, rows: int) -> Tensor:
    return x if len(x) >= rows else x.repeat(-(-rows // len(x)), *[1] * (x.ndim - 1))
