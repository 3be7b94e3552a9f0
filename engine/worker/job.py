"""A job: all that a worker must know, and the scorer that it makes of it on its machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import digest_of, read_ids
from poolscore.engine.imports import add_to_path
from poolscore.engine.inputs import build_decoders
from poolscore.engine.inputs.base import RowSpec
from poolscore.engine.inputs.batch import BatchDecoder
from poolscore.engine.machine.cores import with_decode_threads
from poolscore.engine.model.compiled import Artefact
from poolscore.engine.model.load import load_network
from poolscore.engine.model.passes import McDropout
from poolscore.engine.model.probe import PROBE_ROWS, Probe
from poolscore.engine.pool.choice import RowChoice
from poolscore.engine.pool.read import ShardReader
from poolscore.engine.worker.profile import choose_device
from poolscore.engine.worker.shard import Scorer


@dataclass(frozen=True)
class Job:
    """All that a worker must know; small, because it travels."""

    config: Config
    pool_root: str
    choice: RowChoice  # which rows of the shards are scored
    row_specs: Mapping[str, RowSpec]
    probe: Probe
    weights: str  # digest
    exclude: str  # digest of the ids
    repeat_because: str | None  # why the model is not split at its stochastic frontier
    compiled: Artefact | None  # what the driver's compiler made; None: nothing is compiled
    run_id: str | None = None  # of the run directory, by which a worker knows that it sees the same one
    epoch: int | None = None  # of the journal that the driver writes; None: none

    def with_cores(self, cores: int, on_gpu: bool) -> Job:
        """For a worker with so many cores: what torch leaves of them decodes."""
        run = with_decode_threads(self.config.run, cores, on_gpu)
        return replace(self, config=self.config.model_copy(update={"run": run}))


def build_scorer(job: Job) -> Scorer:
    """The scorer of a job on this machine's device."""
    config = job.config
    add_to_path(config.model.path)
    device = choose_device(config)
    network = load_network(config.model)
    if network.weights != job.weights:
        hint = "is not the driver's file" if config.model.is_file else "builds other weights in each process"
        remedy = "leave it as it is till the end" if config.model.is_file else "give them as model.weights"
        raise ConfigError(f"model.source: {config.model.source} {hint}; {remedy}")
    exclude = read_ids(config.pool.exclude, config.pool.id)
    if digest_of(exclude) != job.exclude:
        raise ConfigError(
            f"pool.exclude: {', '.join(config.pool.exclude_lists)} changed since the job began; leave it as it is till "
            "the end"
        )
    threads = max(1, config.run.decode_threads or 0)
    decoder = BatchDecoder(build_decoders(config), job.row_specs, config.run.batch_size, device, threads)
    sample = decoder.blank(PROBE_ROWS)
    return Scorer(
        config=config,
        reader=ShardReader(job.pool_root, input_columns(config), config.pool.id, exclude, job.choice),
        decoder=decoder,
        model=McDropout(network, job.probe, config.passes, device, sample, repeat_because=job.repeat_because),
    )


def input_columns(config: Config) -> list[str]:
    """Columns of the pool that a run reads, the id apart."""
    return list(dict.fromkeys([*decoded_columns(config), *config.pool.keep]))


def decoded_columns(config: Config) -> list[str]:
    """Columns that the model's inputs are made of."""
    return [column for decoder in build_decoders(config).values() for column in decoder.columns]
