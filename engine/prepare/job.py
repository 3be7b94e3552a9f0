"""A job from its configuration, known to work on its first batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

import torch

from poolscore.engine.config import AUTO, Config
from poolscore.engine.errors import ConfigError, UnreadableShard
from poolscore.engine.exclude import digest_of, read_ids
from poolscore.engine.extend import Extension
from poolscore.engine.identity import BASE, CODE, EXCLUDED, POOL, TOKENIZERS, settings_of
from poolscore.engine.imports import add_to_path
from poolscore.engine.inputs import build_decoders
from poolscore.engine.inputs.base import RowSpec
from poolscore.engine.inputs.batch import BatchDecoder
from poolscore.engine.keys import IdSet
from poolscore.engine.machine.cores import expected_workers
from poolscore.engine.model.load import load_network
from poolscore.engine.model.network import Network
from poolscore.engine.model.passes import Cost
from poolscore.engine.pool.files import PoolFiles
from poolscore.engine.pool.findings import findings_of
from poolscore.engine.pool.health import Finding
from poolscore.engine.pool.plan import Plan, Shard
from poolscore.engine.pool.read import ShardReader, of_user
from poolscore.engine.prepare.batch_size import as_begun, require_measurable, with_batch_size
from poolscore.engine.prepare.begun import asked_as_before, begun_run, unfinished
from poolscore.engine.prepare.model import (
    Compiled,
    compile_model,
    compiles_elsewhere,
    first_scorer,
    score_first_batch,
    seconds_of,
)
from poolscore.engine.prepare.pool import look_at_pool
from poolscore.engine.prepare.rows import LOOKED_AT, blocks_of, first_good_batch, first_rows, require_rows
from poolscore.engine.run.footers import RunFooters
from poolscore.engine.storage.open import open_storage
from poolscore.engine.storage.uri import lies_in
from poolscore.engine.worker.job import Job, input_columns
from poolscore.engine.worker.profile import device_of_driver, numeric_settings, tokenizer_digests
from poolscore.engine.worker.shard import Scorer

TRIED = 4  # shards, of which one has a row that can be decoded


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
    came: Sequence[str] = ()  # files that the pool has gained since the run was begun, which goes on without them
    compile_on: Sequence[Shard] = ()  # on whose rows a worker's machine is to compile the model, which this one cannot

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
    begun = None if fresh else begun_run(config)
    found = look_at_pool(config, RunFooters(open_storage(config.run.dir)), extends, begun)
    pool, plan, choice, extension = found.pool, found.plan, found.choice, found.extension
    exclude = read_ids(config.pool.exclude, config.pool.id)
    reader = ShardReader(plan.root, input_columns(config), config.pool.id, exclude, choice)
    device = device_of_driver(config)
    if begun is not None and config.run.batch_size == AUTO:
        config = as_begun(config, begun)
    require_measurable(config, device)
    rows = config.run.batch_size or LOOKED_AT
    try:
        narrow = ShardReader(plan.root, [], config.pool.id, exclude, choice)
        with numeric_settings(config.run.threads):
            decoders = build_decoders(config)
            look = partial(first_rows, config, plan, reader, narrow, decoders, rows, device)
            shards, specs, decoder, batch = look(unfinished(plan, begun))
            if extension is None and not asked_as_before(config, plan, begun):
                require_rows(config, plan, narrow, len(exclude))
            network = load_network(config.model)
            scorer, probe, cost = first_scorer(config, reader, decoder, network, batch)
            if config.run.batch_size == AUTO:
                config = with_batch_size(scorer, batch, int(plan.shards.rows.max()))
                decoder = BatchDecoder(decoders, specs, config.run.batch_size, device)
                batch = first_good_batch(decoder, blocks_of(reader, plan, config.run.batch_size, shards))
                scorer = replace(scorer, config=config, decoder=decoder)
            identity = _identity(config, plan, exclude, specs, network)
            if extension is not None:
                extension.require_same_rule(identity, config)
                identity[BASE] = extension.id
            score_first_batch(scorer, batch)
            elsewhere = compiles_elsewhere(scorer)
            compiled = Compiled() if elsewhere else compile_model(scorer, batch)
            seconds = seconds_of(scorer, batch)
    except UnreadableShard as error:
        raise of_user(error, "pool.uri", "write the file again or take it out") from error
    because = scorer.model.repeated_because
    job = Job(config, plan.root, choice, specs, probe, network.weights, digest_of(exclude), because, compiled.artefact)
    listed = len(exclude)
    workers = expected_workers(config.run, torch.cuda.device_count() if device.type == "cuda" else 0)
    findings = findings_of(pool, plan, config.pool.uri, workers)
    return Prepared(
        *(
            config,
            pool,
            plan,
            job,
            scorer,
            listed,
            identity,
            seconds,
            cost,
            compiled.programs,
            compiled.because,
            findings,
        ),
        extension,
        found.came,
        tuple(plan.shards[index] for index in shards[:TRIED]) if elsewhere else (),
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
