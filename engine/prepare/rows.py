"""The first rows of a job: a batch to try the model on, and whether there are as many as are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError, TooFewRows, UnreadableShard
from poolscore.engine.imports import add_to_path
from poolscore.engine.inputs import build_decoders
from poolscore.engine.inputs.base import Decoder, RowSpec
from poolscore.engine.inputs.batch import BatchDecoder, find_row_specs
from poolscore.engine.keys import IdSet
from poolscore.engine.model.probe import PROBE_ROWS, Inputs
from poolscore.engine.pool.plan import Plan
from poolscore.engine.pool.read import Rows, ShardReader, of_user
from poolscore.engine.prepare.pool import look_at_pool
from poolscore.engine.worker.job import input_columns

COUNTED_PIECES = 2_000  # of row groups: in a larger pool rows are not counted in advance
LOOKED_AT = 64  # rows at a time, until the batch size is measured


@dataclass(frozen=True)
class Batch:
    """A batch as the model takes it."""

    inputs: Inputs
    keys: Tensor
    good: list[int]  # rows that could be decoded

    def sample(self) -> Inputs:
        """What the model sees of PROBE_ROWS of them; few are repeated."""
        return {name: _at_least(x[self.good], PROBE_ROWS)[:PROBE_ROWS] for name, x in self.inputs.items()}


def read_sample(config: Config) -> Inputs:
    """What the model sees of a few rows of the pool (PROBE_ROWS), on the CPU.

    Raises:
        ConfigError: the pool cannot be read, or none of its first rows can be decoded.
    """
    add_to_path(config.model.path)
    found = look_at_pool(config, None)
    plan, choice = found.plan, found.choice
    rows = config.run.batch_size or LOOKED_AT
    reader = ShardReader(plan.root, input_columns(config), config.pool.id, IdSet(), choice)
    decoders = build_decoders(config)
    try:
        narrow = ShardReader(plan.root, [], config.pool.id, IdSet(), choice)
        every, device = range(len(plan.shards)), torch.device("cpu")
        *_, batch = first_rows(config, plan, reader, narrow, decoders, rows, device, every)
        return batch.sample()
    except UnreadableShard as error:
        raise of_user(error, "pool.uri", "write the file again or take it out") from error


def first_rows(
    config: Config,
    plan: Plan,
    reader: ShardReader,
    narrow: ShardReader,
    decoders: Mapping[str, Decoder],
    rows: int,
    device: torch.device,
    shards: Sequence[int],
) -> tuple[Sequence[int], dict[str, RowSpec], BatchDecoder, Batch]:
    """The first of these shards that have a row that can be decoded, and what their first batch is like. Where they
    have none, and are the rest of a run, it is looked for in the whole pool."""
    try:
        found = _from_first_row(config, plan, narrow, shards)
        specs = find_row_specs(decoders, blocks_of(reader, plan, rows, found))
        decoder = BatchDecoder(decoders, specs, rows, device)
        return found, specs, decoder, first_good_batch(decoder, blocks_of(reader, plan, rows, found))
    except (ConfigError, UnreadableShard):
        if len(shards) == len(plan.shards):
            raise
        every = range(len(plan.shards))
        return first_rows(config, plan, reader, narrow, decoders, rows, device, every)


def _from_first_row(config: Config, plan: Plan, narrow: ShardReader, shards: Sequence[int]) -> Sequence[int]:
    """The shards from the first on of which a row is left, found by a reader of no more than ids and the filter's
    columns."""
    for place, index in enumerate(shards):
        if any(len(rows) for rows in narrow.blocks(plan.shards[index], config.run.shard_rows)):
            return shards[place:]
    raise TooFewRows(
        f"{_leaving_out(config)}: all {plan.rows + plan.passed_over} rows of the pool are excluded; there is nothing "
        "to score",
        left=0,
    )


def first_good_batch(decoder: BatchDecoder, blocks: Iterator[Rows]) -> Batch:
    """The first block with a row that can be decoded."""
    for rows in blocks:
        inputs, bad = decoder.decode(rows)
        if good := [i for i in range(len(rows)) if i not in bad]:
            return Batch(inputs, decoder.padded_keys(rows), good)
    raise ConfigError("pool.input: no row of the pool can be decoded; look at its columns and at decode")


def require_rows(config: Config, plan: Plan, narrow: ShardReader, listed: int) -> None:
    """Refuse a pool of which fewer than k rows are left. They are counted only where it matters, up to k, and not in a
    large pool, of which a whole column would be read: if they turn out to be fewer, the selection is shorter."""
    k = config.select.k
    if k > plan.rows:
        of = f"{plan.rows} are left after {_leaving_out(config)}" if plan.passed_over else f"the pool has {plan.rows}"
        raise TooFewRows(f"select.k: {k} rows are asked for, {of}", plan.rows)
    whole = config.pool.filter is None and config.pool.sample is None
    if (whole and plan.rows - listed >= k) or plan.pieces.num_rows > COUNTED_PIECES:
        return
    left = 0
    for rows in blocks_of(narrow, plan, config.run.shard_rows, range(len(plan.shards))):
        left += len(rows)
        if left >= k:
            return
    raise TooFewRows(f"select.k: {k} rows are asked for, {left} are left after {_leaving_out(config)}", left)


def _leaving_out(config: Config) -> str:
    """The settings by which rows are left out."""
    return " and ".join(f"pool.{n}" for n in ("filter", "sample", "exclude") if getattr(config.pool, n) is not None)


def blocks_of(reader: ShardReader, plan: Plan, rows: int, shards: Sequence[int]) -> Iterator[Rows]:
    """Blocks with rows of these shards."""
    for index in shards:
        yield from filter(len, reader.blocks(plan.shards[index], rows))


def _at_least(x: Tensor, rows: int) -> Tensor:
    return x if len(x) >= rows else x.repeat(-(-rows // len(x)), *[1] * (x.ndim - 1))
