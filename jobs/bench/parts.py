"""The model of a job by itself: what is computed once, the passes behind it, the scores; each on a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from poolscore.engine.errors import StoppedError, UnreadableShard
from poolscore.engine.pool.plan import Shard
from poolscore.engine.prepare import Prepared
from poolscore.jobs.bench.timing import interleaved_ms, medians

REPEATS = 10  # of each part, at most
SECONDS = 10.0  # for all of them, about
COPY_BYTES = {"cuda": 1 << 31, "cpu": 1 << 26}


def parts_of_model(prepared: Prepared, shard: Shard) -> tuple[dict[str, float], int]:
    """Milliseconds of a batch: what is computed once, all passes behind it, the scores; and bytes of the logits.

    Raises:
        StoppedError: the shard cannot be read.
    """
    scorer = prepared.scorer
    try:
        rows = next(scorer.reader.blocks(shard, scorer.config.run.batch_size))
    except UnreadableShard as error:
        raise StoppedError(f"bench: {error}") from error
    inputs, _ = scorer.decoder.decode(rows)
    keys = scorer.decoder.padded_keys(rows)
    logits_NTC = scorer.model.logits(inputs, keys)

    def scores() -> Tensor:
        return scorer.statistics(logits_NTC).finite

    ways = {
        "prefix": lambda: scorer.model.once(inputs),
        "all": lambda: scorer.model.logits(inputs, keys),
        "reduce": scores,
    }
    device = scorer.decoder.device.type
    repeats = max(2, min(REPEATS, int(SECONDS / 2 / prepared.batch_seconds)))
    ms = medians(interleaved_ms(ways, repeats, warm_up=1, device=device))
    suffix = max(0.0, ms["all"] - ms["prefix"])
    return {"prefix": ms["prefix"], "suffix": suffix, "reduce": ms["reduce"]}, logits_NTC.nbytes


def copy_bytes_per_s(device: torch.device) -> float:
    """Of a large copy on the device, bytes read and bytes written: the roofline of whatever moves memory."""
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = medians(interleaved_ms({"copy": lambda: target.copy_(source)}, 10, device=device.type))["copy"]
    return 2 * source.nbytes / ms * 1e3
