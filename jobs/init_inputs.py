"""Which column of a pool `poolscore init` takes for the model's input, and how it is decoded."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from statistics import fmean

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from poolscore.engine.config import FeaturesDecode, ImageDecode, TensorDecode
from poolscore.engine.errors import ConfigError
from poolscore.engine.inputs.base import Decoder
from poolscore.engine.inputs.features import FeaturesDecoder
from poolscore.engine.inputs.image import ImageDecoder, encoded_bytes
from poolscore.engine.inputs.picture import FORMATS
from poolscore.engine.inputs.tensor import TensorDecoder
from poolscore.engine.pool.files import PoolFiles
from poolscore.engine.storage.filesystem import open_parquet, reason
from poolscore.engine.storage.uri import join

LOOKED_AT = 64  # values of a column
ID_NAMES = ("id", "uuid", "image_id", "key", "name", "path", "file", "filename")
LABEL_NAMES = ("label", "labels", "class", "target", "y")
TEXT_NAMES = ("text", "sentence", "content", "document", "body", "message", "review", "question", "title")
LEAST_WORDS = 3  # in the mean, from which a column is text to be read, whatever it is called
LENGTHS = (16, 512)  # tokens of a row: the least and most that are proposed
TOKENS_PER_WORD = 1.5


def input_lines(files: PoolFiles) -> list[str]:
    """The lines `input` and `decode` of a configuration: pictures before tensors, text and features.

    Raises:
        ConfigError: nothing in the pool could be an input.
    """
    schema = files.schema
    names = sorted(schema.names, key=lambda name: name in ID_NAMES)  # an id may be binary as well
    if pictures := [name for name in names if _reads(ImageDecoder(ImageDecode(column=name)), schema)]:
        return _image_lines(files, pictures[0])
    if tensors := [n for n in names if _reads(TensorDecoder(TensorDecode(kind="tensor", column=n)), schema)]:
        return _tensor_lines(files, tensors[0])
    names = [name for name in schema.names if name not in (*ID_NAMES, *LABEL_NAMES, *(files.choice.keys or ()))]
    texts = {name: _words(files, name) for name in names if _is_text(schema.field(name).type)}
    numbers = [n for n in names if _reads(FeaturesDecoder(FeaturesDecode(kind="features", columns=(n,))), schema)]
    long = {name: words for name, words in texts.items() if name in TEXT_NAMES or fmean(words) >= LEAST_WORDS}
    if found := long or ({} if numbers else texts):
        return _text_lines(found)
    if numbers:
        columns = ", ".join(map(quoted, numbers))
        return [f"  input: [{columns}]", "  decode: {kind: features}   # mean, std: as in training"]
    raise ConfigError(f"POOL: no column that could be an input among: {', '.join(schema.names)}")


def quoted(text: str) -> str:
    """A YAML string on one line, whatever it holds."""
    written = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in written)


def _image_lines(files: PoolFiles, column: str) -> list[str]:
    sizes, modes = set(), set()
    for data in encoded_bytes(_first_values(files, column)):
        try:
            with Image.open(io.BytesIO(data or b""), formats=FORMATS) as picture:
                sizes.add(picture.size)
                modes.add("L" if picture.mode in ("1", "L", "I;16") else "RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    mode = "L" if modes == {"L"} else ImageDecode().mode
    mean, std = ("[0.5]", "[0.5]") if mode == "L" else ("[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]")
    lines = [f"  input: {quoted(column)}", "  decode:", "    kind: image", f"    mode: {mode}"]
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        lines += [f"    # resize: 256         # the first pictures are all {width}x{height}", "    # crop: 224"]
    else:
        lines += ["    resize: 256           # the first pictures have several sizes", "    crop: 224"]
    return [*lines, f"    mean: {mean}     # as in training!", f"    std: {std}"]


def _tensor_lines(files: PoolFiles, column: str) -> list[str]:
    values = _first_values(files, column)
    lines = [f"  input: {quoted(column)}"]
    of_one = getattr(values.type, "value_type", None)
    if of_one not in (pa.int32(), pa.int64()):
        return [*lines, "  decode: {kind: tensor, dtype: float32}   # mean, std: as in training"]
    lengths = [0] if pa.types.is_fixed_size_list(values.type) else pc.list_value_length(values).drop_null().to_pylist()
    if len(set(lengths)) < 2:
        return [
            *lines,
            "  decode: {kind: tensor, dtype: int64}   # token ids; where the numbers are measurements: float32",
        ]
    return [*lines, *_text_decode(max(lengths), f"the first rows have up to {max(lengths)}", with_tokenizer=False)]


def _text_lines(columns: dict[str, list[int]]) -> list[str]:
    """Args: words of the first values of each column of text."""
    named = [name for name in TEXT_NAMES if name in columns]
    column, *others = [*named, *sorted(columns.keys() - set(named), key=lambda name: -fmean(columns[name]))]
    most = max(columns[column])
    also = f"   # there are also: {', '.join(map(quoted, others))}" if others else ""
    seen = f"the first texts have up to {most} words"
    return [f"  input: {quoted(column)}{also}", *_text_decode(TOKENS_PER_WORD * most + 2, seen, with_tokenizer=True)]


def _text_decode(tokens: float, seen: str, *, with_tokenizer: bool) -> list[str]:
    least, most = LENGTHS
    length = least
    while length < min(tokens, most):
        length *= 2
    tokenizer = (
        "    tokenizer: tokenizer.json   # of your model: where is the Hugging Face file that it was trained with?"
    )
    return [
        "  decode:",
        "    kind: text",
        *([tokenizer] if with_tokenizer else ["    # pad: 0             # id of the padding, as in training"]),
        f"    length: {length}          # tokens of a row, padded; {seen}",
        "    # truncation: true    # cut longer rows, as in training; otherwise they are set aside",
        "    # mask: null          # where the model takes token ids only; default: attention_mask",
    ]


def _words(files: PoolFiles, column: str) -> list[int]:
    """Of the first values; one 0 where there are none."""
    texts = _first_values(files, column).drop_null().to_pylist()
    return [len(text.split()) for text in texts] or [0]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _first_values(files: PoolFiles, column: str) -> pa.ChunkedArray:
    path = join(files.root, files.first)
    try:
        with open_parquet(path) as file:
            batch = next(file.iter_batches(LOOKED_AT, columns=[column]))
            return pa.Table.from_batches([batch])[column]
    except (OSError, pa.ArrowException, StopIteration) as error:
        raise ConfigError(f"POOL: {path} cannot be read ({reason(error)})") from error


def _reads(decoder: Decoder, schema: pa.Schema) -> bool:
    try:
        decoder.check(schema)
    except ConfigError:
        return False
    return True


def first_of(names: Sequence[str], schema: pa.Schema) -> str | None:
    """The first of these columns that is there."""
    return next((name for name in names if name in schema.names), None)
