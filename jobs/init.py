"""`poolscore init`: look at a pool and a model, and write a commented configuration for them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from poolscore.engine.config import ImageDecode, parse_config
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.image import FORMATS, encoded_bytes
from poolscore.engine.pool.files import PoolFiles, find_files

LOOKED_AT = 64  # pictures
ID_NAMES = ("id", "uuid", "image_id", "key", "name", "path", "file", "filename")
LABEL_NAMES = ("label", "labels", "class", "target", "y")


def write_configuration(pool: str, model: str, *, weights: str | None, task: str, k: int, out: Path) -> None:
    """Write `out`, which `poolscore plan` accepts as it is where the guesses are right.

    Raises:
        ConfigError: no such pool, nothing in it that could be an input, or `out` exists.
    """
    if out.exists():
        raise ConfigError(f"--out {out}: exists already; choose another name")
    files = find_files(str(Path(pool).resolve()))
    text = _render(files, pool, model, weights, task, k)
    parse_config(yaml.safe_load(text), base=out.parent, where="init")  # wrong options are told now
    out.write_text(text, encoding="utf-8")


def _render(files: PoolFiles, pool: str, model: str, weights: str | None, task: str, k: int) -> str:
    schema = files.schema
    rows = sum(file.rows for file in files.files)
    id_column = next((name for name in ID_NAMES if name in schema.names), None)
    input_lines = _input_lines(files)
    lines = [
        f"# poolscore configuration for {pool} ({rows:,} rows, {len(files.files):,} files)",
        "# Relative paths are relative to this file. `poolscore schema` lists everything that can be set.",
        "version: 1",
        "pool:",
        f"  uri: {_quoted(str(Path(pool).resolve()))}",
        *input_lines,
        f"  id: {id_column}" if id_column else "  # id: COLUMN    # default: a row is known by its file and place",
        "  # keep: [COLUMN]        # columns carried into scores and selections",
        "  # exclude: labelled.csv # ids that are labelled already, Parquet or CSV",
        "model:",
        f"  source: {_quoted(model)}   # package.module:factory, from the folder of this file or installed",
        "  # args: {}              # keyword arguments of the factory",
        f"  weights: {_quoted(str(Path(weights).resolve()))}" if weights else "  # weights: weights.safetensors",
        f"  task: {task}   # multiclass, binary, multilabel, regression: what the output means is never guessed",
        "  # classes: 10           # number or names; checked against the model",
        "passes:",
        "  count: 20               # T stochastic passes",
        "  masks: shared           # or independent: a mask for each row and pass",
        "  seed: 0",
        "select:",
        f"  k: {k}",
        "  # score: bald           # the default for classification; `poolscore select` can use the others later",
        *_check_lines(schema),
        "run:",
        "  dir: run",
        "  # workers: 4            # default: one per GPU, or one per core without GPUs",
        "  batch_size: 64",
    ]
    return "\n".join(lines) + "\n"


def _input_lines(files: PoolFiles) -> list[str]:
    schema = files.schema
    pictures = [name for name in schema.names if _is_bytes(schema.field(name).type)]
    if pictures:
        return _image_lines(files, pictures[0])
    tensors = [name for name in schema.names if _is_tensor(schema.field(name).type)]
    if tensors:
        return [f"  input: {tensors[0]}", "  decode: {kind: tensor, dtype: float32}   # mean, std: as in training"]
    numbers = [name for name in schema.names if _is_number(schema.field(name).type)]
    numbers = [name for name in numbers if name not in (*ID_NAMES, *LABEL_NAMES)]
    if numbers:
        return [f"  input: {json.dumps(numbers)}", "  decode: {kind: features}   # mean, std: as in training"]
    raise ConfigError(f"POOL: no column that could be an input among: {', '.join(schema.names)}")


def _image_lines(files: PoolFiles, column: str) -> list[str]:
    sizes, modes = set(), set()
    path = Path(files.root) / files.files[0].path
    batch = next(pq.ParquetFile(path).iter_batches(LOOKED_AT, columns=[column]), None)
    for data in encoded_bytes(pa.Table.from_batches([batch])[column]) if batch is not None else []:
        try:
            with Image.open(io.BytesIO(data or b""), formats=FORMATS) as picture:
                sizes.add(picture.size)
                modes.add("L" if picture.mode in ("1", "L", "I;16") else "RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    mode = "L" if modes == {"L"} else ImageDecode().mode
    mean, std = ("[0.5]", "[0.5]") if mode == "L" else ("[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]")
    lines = [f"  input: {column}", "  decode:", "    kind: image", f"    mode: {mode}"]
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


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_tensor(kind: pa.DataType) -> bool:
    return bool(isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _quoted(text: str) -> str:
    return json.dumps(text)
