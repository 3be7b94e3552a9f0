"""How many passes, which layers, what precision? A sample of the pool is scored in each way.

Every way is compared with the fullest. A user of a model with dropout everywhere can then choose: hours for the pool
against the stability of the selection. Masks are functions of the pass: the first 20 of 100 passes are the 20 of T=20.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from poolscore.engine.config import PassesConfig
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.batch import BatchDecoder
from poolscore.engine.model.layers import choose_layers
from poolscore.engine.model.load import load_network
from poolscore.engine.model.passes import McDropout
from poolscore.engine.model.probe import PROBE_ROWS, Inputs
from poolscore.engine.prepare import Prepared
from poolscore.engine.scores import SCORES
from poolscore.engine.worker.profile import numeric_settings
from poolscore.engine.worker.shard import Scorer

PASSES = (5, 10, 20, 50, 100)
LEAST_TOP = 10  # rows; fewer say nothing about a selection

Layers = Literal["all", "head"] | tuple[str, ...]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Advice:
    """One setting, seen on the sample."""

    passes: int
    layers: Layers
    precision: str
    seconds: float  # for the pool, on the workers of the configuration, without reading and decoding
    correlation: float  # of its ranks with those of the fullest setting (Spearman)
    overlap: float  # share of the fullest setting's top rows that are in its top
    stability: float  # share of top rows that every other pass alone and the rest alone have in common


@dataclass(frozen=True)
class Advised:
    """All settings, the fullest last."""

    score: str
    rows: int  # in the sample
    top: int  # rows that stand for the selection
    settings: tuple[Advice, ...]


@dataclass(frozen=True)
class _Batch:
    inputs: Inputs
    keys: torch.Tensor
    good: list[int]


def advise(prepared: Prepared, rows: int = 512) -> Advised:
    """Score about `rows` rows of the pool in each setting.

    Raises:
        ConfigError: there is nothing to choose: one pass only, or too few rows.
    """
    config = prepared.config
    if config.passes.count == 1:
        raise ConfigError("plan --advise: passes.count is 1, so there is nothing to choose")
    if not SCORES[config.selected_by].from_logits:
        raise ConfigError(f"plan --advise: select.score '{config.selected_by}' does not come from the model")
    batches = _sample(prepared, rows)
    found = sum(len(batch.good) for batch in batches)
    top = min(max(LEAST_TOP, round(config.select.k * found / prepared.plan.expected_rows)), found // 2)
    if top < LEAST_TOP:
        raise ConfigError(f"plan --advise: {found} rows of the pool can be scored; too few to compare selections")
    counts = sorted({*PASSES, config.passes.count})
    with numeric_settings(config.run.threads):
        settings = [
            (how, count, *_score(scorer, batches, count))
            for how, scorer in ((how, _scorer(prepared, how, batches[0])) for how in _ways(prepared))
            for count in counts
        ]
    *_, (_, _, _, fullest, _) = settings
    workers = config.run.workers or 1
    advice = tuple(
        Advice(
            passes=count,
            layers=layers,
            precision=precision,
            seconds=seconds / sum(len(batch.keys) for batch in batches) * prepared.plan.expected_rows / workers,
            correlation=spearman(scores, fullest),
            overlap=top_overlap(scores, fullest, top),
            stability=top_overlap(*halves, top),
        )
        for (layers, precision), count, seconds, scores, halves in settings
    )
    return Advised(config.selected_by, found, top, advice)


def spearman(a: Scores, b: Scores) -> float:
    """Correlation of the ranks; equal scores share theirs. nan where all are equal."""
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    if np.ptp(ranks_a) == 0 or np.ptp(ranks_b) == 0:
        return float("nan")
    return float(np.corrcoef(ranks_a, ranks_b)[0, 1])


def top_overlap(a: Scores, b: Scores, top: int) -> float:
    """Share of the `top` best of one that are among those of the other; ties in the order of the rows."""
    best = [set(np.argsort(-x, kind="stable")[:top].tolist()) for x in (a, b)]
    return len(best[0] & best[1]) / top


def _ranks(x: Scores) -> NDArray[np.float64]:
    _, group, sizes = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    middle: NDArray[np.float64] = ends - (sizes - 1) / 2
    return middle[group]


def _ways(prepared: Prepared) -> list[tuple[Layers, str]]:
    """Layers and precisions, the fullest last."""
    config = prepared.config
    layers: list[Layers] = [config.passes.layers] if config.passes.layers not in ("head", "all") else []
    layers += ["head", "all"] if len(prepared.job.probe.layers) > 1 else ["all"]
    lower = [] if config.model.source.endswith(".onnx") else ["bf16"]
    precisions = [*dict.fromkeys([*lower, config.passes.precision, "fp32"])]
    precisions.append(precisions.pop(precisions.index("fp32")))
    return [(some, precision) for precision, some in product(precisions, layers)]


def _sample(prepared: Prepared, rows: int) -> list[_Batch]:
    """Batches of shards drawn by the seed: the first of each, further ones only if there are too few shards."""
    config, decoder = prepared.config, prepared.scorer.decoder
    order = np.random.default_rng(config.passes.seed).permutation(len(prepared.plan.shards))
    readers = [prepared.scorer.reader.blocks(prepared.plan.shards[i], config.run.batch_size) for i in order]
    batches: list[_Batch] = []
    while readers and sum(len(batch.good) for batch in batches) < rows:
        reader = readers.pop(0)
        block = next(reader, None)
        if block is None or not len(block):
            continue
        readers.append(reader)
        batches.append(_decode(decoder, block))
    return [batch for batch in batches if batch.good]


def _decode(decoder: BatchDecoder, block: Any) -> _Batch:
    inputs, bad = decoder.decode(block)
    return _Batch(inputs, decoder.padded_keys(block), [i for i in range(len(block)) if i not in bad])


def _scorer(prepared: Prepared, how: tuple[Layers, str], batch: _Batch) -> Scorer:
    layers, precision = how
    config = prepared.config
    passes: PassesConfig = config.passes.model_copy(
        update={"layers": layers, "precision": precision, "count": max(*PASSES, config.passes.count)}
    )
    device = prepared.scorer.decoder.device
    sample = {name: x[:PROBE_ROWS] for name, x in batch.inputs.items()}
    probe = choose_layers(prepared.job.probe, layers)
    model = McDropout(
        load_network(config.model),
        probe,
        passes,
        device,
        sample,
        repeat_because=prepared.job.repeat_because,
        verify=True,
    )
    changed = config.model_copy(update={"passes": passes})
    return Scorer(changed, prepared.scorer.reader, prepared.scorer.decoder, model)


def _score(scorer: Scorer, batches: Sequence[_Batch], count: int) -> tuple[float, Scores, tuple[Scores, Scores]]:
    """Seconds, scores, and the scores of every other pass and of the rest."""
    name = scorer.config.selected_by
    found: list[list[Scores]] = []
    seconds = 0.0
    scorer.model.logits(batches[0].inputs, batches[0].keys, count)  # warms up
    for batch in batches:
        started = time.monotonic()
        logits_NTC = scorer.model.logits(batch.inputs, batch.keys, count)
        scorer.statistics(logits_NTC).finite.cpu()
        seconds += time.monotonic() - started
        found.append(
            [
                scorer.statistics(part[batch.good], (name,)).scores[name].float().cpu().numpy()
                for part in (logits_NTC, logits_NTC[:, ::2], logits_NTC[:, 1::2])
            ]
        )
    scores, even, odd = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return seconds, scores, (even, odd)
