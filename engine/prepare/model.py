"""The model of a job, tried on the first batch: whether it runs, what it gives, how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from poolscore.engine.config import Config
from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError, PoolscoreError
from poolscore.engine.inputs.batch import BatchDecoder
from poolscore.engine.model.compiled import Artefact, only_these_programs, save_artefact
from poolscore.engine.model.layers import choose_layers
from poolscore.engine.model.network import Network
from poolscore.engine.model.passes import Cost, McDropout
from poolscore.engine.model.probe import Probe
from poolscore.engine.pool.read import ShardReader
from poolscore.engine.prepare.rows import Batch
from poolscore.engine.scores import Task
from poolscore.engine.worker.profile import is_on_cluster
from poolscore.engine.worker.shard import Scorer


def first_scorer(
    config: Config, reader: ShardReader, decoder: BatchDecoder, network: Network, batch: Batch
) -> tuple[Scorer, Probe, Cost]:
    """The scorer of a job, which live dropout it found, and what its passes cost."""
    sample = batch.sample()
    probe = choose_layers(network.probe(sample), config.passes.layers)
    _check_outputs(config, probe)
    because = None if config.passes.split else "passes.split is false"
    with failures_in_one_line(f"its first rows with passes.precision={config.passes.precision}"):
        mc = McDropout(network, probe, config.passes, decoder.device, sample, repeat_because=because, verify=True)
        if config.passes.count > 1 and not mc.dropout_matters(sample):
            raise ConfigError(
                "model: its output is the same with everything dropped; its dropout does not reach the output"
            )
        return Scorer(config, reader, decoder, mc), probe, mc.cost(sample)


def score_first_batch(scorer: Scorer, batch: Batch) -> None:
    """Refuse a model that fails on a whole batch, or gives nothing that can be scored."""
    with failures_in_one_line("the first batch"):
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


@dataclass(frozen=True)
class Compiled:
    """What a compiler made of a model, if it was asked."""

    artefact: Artefact | None = None
    programs: bytes = b""  # the artefact's content
    because: str | None = None  # why there is none, though one was wanted


def compiles_elsewhere(scorer: Scorer) -> bool:
    """Whether the workers may have a device that this machine has not: then one of theirs compiles
    (engine/run/ray_compile.py)."""
    run = scorer.config.run
    here = scorer.decoder.device.type == run.device or scorer.decoder.device.type == "cuda"
    may = scorer.model.cut is not None and scorer.config.passes.compile is not False
    return may and not here and is_on_cluster(run)


def compile_model(scorer: Scorer, batch: Batch) -> Compiled:
    """Compile the model for this machine's device, where that is asked for or usual."""
    if scorer.model.cut is None or not _wants_compiled(scorer):
        return Compiled()
    with only_these_programs():
        because = scorer.model.try_compiled(batch.inputs, batch.keys)
        if because is None and (saved := save_artefact()) is not None:
            return Compiled(*saved)
    if because is None:
        scorer.model.leave_uncompiled()
        because = "torch's compiler caches are switched off, and workers would have to compile by themselves"
    if scorer.config.passes.compile:
        raise ConfigError(f"passes.compile: the model cannot be compiled here ({because}); leave it out")
    return Compiled(because=because)


def _wants_compiled(scorer: Scorer) -> bool:
    wanted = scorer.config.passes.compile
    return scorer.decoder.device.type == "cuda" if wanted is None else wanted


def seconds_of(scorer: Scorer, batch: Batch) -> float:
    """Seconds for one batch, after one that warmed up."""
    started = time.monotonic()
    scorer.statistics(scorer.model.logits(batch.inputs, batch.keys)).finite.cpu()
    return time.monotonic() - started


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


def _are_probabilities(outputs_NTC: Tensor) -> bool:
    return bool((outputs_NTC >= 0).all() and ((outputs_NTC.sum(-1) - 1).abs() < 1e-3).all())


@contextmanager
def failures_in_one_line(on: str) -> Iterator[None]:
    """The model is the user's code, and may fail in any way."""
    try:
        yield
    except PoolscoreError:
        raise
    except Exception as error:
        text = one_line(f"{type(error).__name__}: {error}")
        raise ConfigError(f"model.source: the model fails on {on}: {text}") from error
