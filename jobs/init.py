"""`poolscore init`: look at a pool and a model, and write a commented configuration for them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pyarrow as pa
from PIL import Image

from poolscore.engine.config import FeaturesDecode, ImageDecode, PassesConfig, RunConfig, TensorDecode, parse_config
from poolscore.engine.config_text import from_yaml
from poolscore.engine.errors import ConfigError
from poolscore.engine.filesystem import open_parquet, reason
from poolscore.engine.inputs.base import Decoder
from poolscore.engine.inputs.features import FeaturesDecoder
from poolscore.engine.inputs.image import ImageDecoder, encoded_bytes
from poolscore.engine.inputs.picture import FORMATS
from poolscore.engine.inputs.tensor import TensorDecoder
from poolscore.engine.pool.files import PoolFiles, find_files
from poolscore.engine.uri import join
from poolscore.engine.words import amount

LOOKED_AT = 64  # pictures
SHARDS, LEAST_ROWS = 16, 256  # of a small pool, so that every worker has some; rows of a shard
ID_NAMES = ("id", "uuid", "image_id", "key", "name", "path", "file", "filename")
LABEL_NAMES = ("label", "labels", "class", "target", "y")


def write_configuration(pool: str, model: str, *, weights: str | None, task: str, k: int, out: Path) -> None:
    """Write `out`, which `poolscore plan` accepts as it is where the guesses are right.

    Raises:
        ConfigError: no such pool, nothing in it that could be an input, or `out` exists or cannot be written.
    """
    if out.exists():
        raise ConfigError(f"--out {out}: exists already; choose another name")
    files = find_files(_absolute(pool))
    text = _render(files, pool, model, weights, task, k)
    parse_config(from_yaml(text), base=out.parent, where="init")  # wrong options are told now
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written ({error.strerror}); choose another place") from error


def _render(files: PoolFiles, pool: str, model: str, weights: str | None, task: str, k: int) -> str:
    schema = files.schema
    rows = files.rows
    id_column = next((name for name in ID_NAMES if name in schema.names), None)
    input_lines = _input_lines(files)
    passes = PassesConfig()
    lines = [
        f"# poolscore configuration for {_quoted(pool)} ({amount(rows, 'row')}, {amount(len(files), 'file')})",
        "# Relative paths are relative to this file. `poolscore schema` lists everything that can be set.",
        "version: 1",
        "pool:",
        f"  uri: {_quoted(_absolute(pool))}",
        *input_lines,
        f"  id: {_quoted(id_column)}" if id_column else "  # id: COLUMN    # default: a row is known by its place",
        "  # keep: [COLUMN]        # columns carried into scores and selections",
        "  # exclude: labelled.csv # ids that are labelled already, Parquet or CSV",
        "model:",
        *_model_lines(model, weights),
        f"  task: {_quoted(task)}   # multiclass, binary, multilabel, regression: what the output means is not guessed",
        "  # classes: 10           # number or names; checked against the model",
        "passes:",
        f"  count: {passes.count}               # T stochastic passes",
        f"  masks: {passes.masks}           # shared, or independent: a mask for each row and pass",
        f"  seed: {passes.seed}",
        "select:",
        f"  k: {k}",
        "  # score: bald           # the default for classification; `poolscore select` can use the others later",
        *_check_lines(schema),
        "run:",
        "  dir: run",
        "  # workers: 4            # default: one per GPU, or one per core without GPUs",
        f"  batch_size: {RunConfig.model_fields['batch_size'].default}",
        *_shard_lines(rows),
    ]
    return "\n".join(lines) + "\n"


def _model_lines(model: str, weights: str | None) -> list[str]:
    given = f"  weights: {_quoted(_absolute(weights))}" if weights else "  # weights: weights.safetensors"
    if model.endswith((".pt2", ".onnx")):
        return [
            f"  source: {_quoted(_absolute(model))}   # a whole model; `poolscore export` writes such files",
            *([given] if weights else []),
            *(["  # trust: true           # opens a .pt2 that holds pickles"] if model.endswith(".pt2") else []),
        ]
    return [
        f"  source: {_quoted(model)}   # package.module:factory, from the folder of this file or installed",
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
    return [f"  shard_rows: {fitting}        # about {-(-rows // fitting)} shards to share out; default: {default}"]


def _input_lines(files: PoolFiles) -> list[str]:
    schema = files.schema
    names = sorted(schema.names, key=lambda name: name in ID_NAMES)  # an id may be binary as well
    if pictures := [name for name in names if _reads(ImageDecoder(ImageDecode(column=name)), schema)]:
        return _image_lines(files, pictures[0])
    if tensors := [n for n in names if _reads(TensorDecoder(TensorDecode(kind="tensor", column=n)), schema)]:
        of_one = getattr(schema.field(tensors[0]).type, "value_type", None)
        decode = "dtype: float32}   # mean, std: as in training"
        if of_one in (pa.int32(), pa.int64()):
            decode = "dtype: int64}   # token ids; where the numbers are measurements: float32"
        return [f"  input: {_quoted(tensors[0])}", f"  decode: {{kind: tensor, {decode}"]
    names = [name for name in schema.names if name not in (*ID_NAMES, *LABEL_NAMES, *(files.choice.keys or ()))]
    names = [n for n in names if _reads(FeaturesDecoder(FeaturesDecode(kind="features", columns=(n,))), schema)]
    if names:
        columns = ", ".join(map(_quoted, names))
        return [f"  input: [{columns}]", "  decode: {kind: features}   # mean, std: as in training"]
    raise ConfigError(f"POOL: no column that could be an input among: {', '.join(schema.names)}")


def _image_lines(files: PoolFiles, column: str) -> list[str]:
    sizes, modes = set(), set()
    for data in _first_values(files, column):
        try:
            with Image.open(io.BytesIO(data or b""), formats=FORMATS) as picture:
                sizes.add(picture.size)
                modes.add("L" if picture.mode in ("1", "L", "I;16") else "RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    mode = "L" if modes == {"L"} else ImageDecode().mode
    mean, std = ("[0.5]", "[0.5]") if mode == "L" else ("[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]")
    lines = [f"  input: {_quoted(column)}", "  decode:", "    kind: image", f"    mode: {mode}"]
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        lines += [f"    # resize: 256         # the first pictures are all {width}x{height}", "    # crop: 224"]
    else:
        lines += ["    resize: 256           # the first pictures have several sizes", "    crop: 224"]
    return [*lines, f"    mean: {mean}     # as in training!", f"    std: {std}"]


def _check_lines(schema: pa.Schema) -> list[str]:
    label = next((name for name in LABEL_NAMES if name in schema.names), "label")
    return [
        "# check:                 # labelled rows that prove the wiring before hours are spent: do give some",
        "#   labelled: labelled.parquet",
        f"#   label: {label}",
        "#   min_accuracy: 0.5",
    ]


def _first_values(files: PoolFiles, column: str) -> list[bytes | None]:
    path = join(files.root, files.first)
    try:
        with open_parquet(path) as file:
            batch = next(file.iter_batches(LOOKED_AT, columns=[column]))
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"POOL: {path} cannot be read ({reason(error)})") from error
    return encoded_bytes(pa.Table.from_batches([batch])[column])


def _reads(decoder: Decoder, schema: pa.Schema) -> bool:
    try:
        decoder.check(schema)
    except ConfigError:
        return False
    return True


def _absolute(path: str) -> str:
    """For a file in another folder: what is relative is relative to the working directory."""
    return path if "://" in path else str(Path(path).resolve())


def _quoted(text: str) -> str:
    """A YAML string on one line, whatever it holds."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
