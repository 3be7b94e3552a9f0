"""`poolscore init`: look at a pool and a model, and write a commented configuration for them."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa

from poolscore.engine.config import PassesConfig, RunConfig, ShortlistConfig, parse_config
from poolscore.engine.config_text import from_yaml
from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.files import PoolFiles
from poolscore.engine.pool.find import find_files
from poolscore.engine.words import amount
from poolscore.jobs.init_inputs import ID_NAMES, LABEL_NAMES, first_of, input_lines, quoted

SHARDS, LEAST_ROWS = 16, 256  # of a small pool, so that every worker has some; rows of a shard


def write_configuration(pool: str, model: str, *, weights: str | None, task: str, k: int, out: Path) -> None:
    """Write `out`, which `poolscore plan` accepts as it is where the guesses are right.

    Raises:
        ConfigError: no such pool, nothing in it that could be an input, or `out` exists or cannot be written.
    """
    if out.exists():
        raise ConfigError(f"--out {out}: exists already; choose another name")
    files = find_files(_absolute(pool))
    text = _render(files, pool, model, weights, task, k, out.parent.resolve())
    parse_config(from_yaml(text), base=out.parent, where="init")  # wrong options are told now
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written ({error.strerror}); choose another place") from error


def _render(files: PoolFiles, pool: str, model: str, weights: str | None, task: str, k: int, folder: Path) -> str:
    schema = files.schema
    rows = files.rows
    id_column = first_of(ID_NAMES, schema)
    passes, shortlist = PassesConfig(), ShortlistConfig()
    lines = [
        f"# poolscore configuration for {quoted(pool)} ({amount(rows, 'row')}, {amount(len(files), 'file')})",
        "# Relative paths are relative to this file. `poolscore schema` lists everything that can be set.",
        "version: 1",
        "pool:",
        f"  uri: {quoted(_from(folder, pool))}",
        *input_lines(files),
        f"  id: {quoted(id_column)}" if id_column else "  # id: COLUMN    # default: a row is known by its place",
        "  # keep: [COLUMN]        # columns carried into scores and selections",
        "  # exclude: labelled.csv # ids that are labelled already, Parquet or CSV",
        "model:",
        *_model_lines(model, weights, folder),
        f"  task: {quoted(task)}   # multiclass, binary, multilabel, regression: what the output means is not guessed",
        "  # classes: 10           # number or names; checked against the model",
        "passes:",
        f"  count: {passes.count}               # T stochastic passes",
        f"  masks: {passes.masks}           # shared, or independent: a mask for each row and pass",
        f"  seed: {passes.seed}",
        "select:",
        f"  k: {k}",
        "  # score: bald           # the default for classification; `poolscore select` can use the others later",
        "  # max_per_group: {near_duplicates: 1}  # rows at most of a group; by a kept column, too",
        "  # quotas: {0: 100}      # predicted class → rows at most",
        "  # control: 0.05         # share of k that is drawn at random, to measure what the batch gains over chance",
        "# shortlist:             # the best rows, inferred once more at the end, for what needs more than scores",
        f"#   rows: {shortlist.rows}         # at most; 0: none",
        "#   labelled: labelled.parquet # rows that have labels already: kcenter begins with them",
        *_check_lines(schema),
        *_loop_lines(model),
        "run:",
        "  dir: run",
        "  # workers: 4            # default: one per GPU, or one per core without GPUs",
        f"  batch_size: {RunConfig.model_fields['batch_size'].default}",
        *_shard_lines(rows),
    ]
    return "\n".join(lines) + "\n"


def _model_lines(model: str, weights: str | None, folder: Path) -> list[str]:
    given = f"  weights: {quoted(_from(folder, weights))}" if weights else "  # weights: weights.safetensors"
    if model.endswith((".pt2", ".onnx")):
        return [
            f"  source: {quoted(_from(folder, model))}   # a whole model; `poolscore export` writes such files",
            *([given] if weights else []),
            *(["  # trust: true           # opens a .pt2 that holds pickles"] if model.endswith(".pt2") else []),
        ]
    return [
        f"  source: {quoted(model)}   # package.module:factory, from the folder of this file or installed",
        "  # args: {}              # keyword arguments of the factory",
        given,
    ]


def _shard_lines(rows: int) -> list[str]:
    """Smaller shards where the default would leave workers without one."""
    default: int = RunConfig.model_fields["shard_rows"].default
    if rows > (SHARDS - 1) * default:
        return []
    fitting = max(LEAST_ROWS, 2 ** round(math.log2(rows / SHARDS)))
    if fitting >= default:
        return []
    shards = amount(-(-rows // fitting), "shard")
    return [f"  shard_rows: {fitting}        # about {shards} to share out; default: {default}"]


def _check_lines(schema: pa.Schema) -> list[str]:
    label = first_of(LABEL_NAMES, schema) or "label"
    return [
        "# check:                 # labelled rows that prove the wiring before hours are spent: do give some",
        "#   labelled: labelled.parquet",
        f"#   label: {label}",
        "#   min_accuracy: 0.5",
    ]


def _loop_lines(model: str) -> list[str]:
    module, _, factory = ("mynet", "", "") if model.endswith((".pt2", ".onnx")) else model.partition(":")
    written = [] if factory else [f"#   weights: {quoted(Path(model).name)}     # what train writes into out"]
    return [
        "# loop:                  # `poolscore loop`: rounds of train, score, select, label, add",
        "#   labelled: first.parquet    # the first labels: id, label",
        f"#   train: {quoted(f'{module}:train')}   # train(labelled, out, round, seed) → {{'accuracy': 0.93}}",
        *written,
        "#   label: {pause: {to: labelstudio}}  # by people; or oracle, or command",
        "#   stop: {budget: 1000}       # labels in all; or rounds, and target",
    ]


def _from(folder: Path, path: str) -> str:
    """As a configuration in `folder` names it: relative where it lies below, so that both can be moved together."""
    absolute = _absolute(path)
    lies_below = "://" not in absolute and Path(absolute).is_relative_to(folder)
    return Path(absolute).relative_to(folder).as_posix() if lies_below else absolute


def _absolute(path: str) -> str:
    """What is relative is relative to the working directory."""
    return path if "://" in path else str(Path(path).resolve())
