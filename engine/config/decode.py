"""Section `pool.decode`: one section for each kind of input, that says how columns become what the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Discriminator, Field, Tag, model_validator

from poolscore.engine.config.section import Number, Positive, PositiveNumber, Section, Whole

Size = Positive | tuple[Positive, Positive]
D = TypeVar("D", "TensorDecode", "FeaturesDecode")
PILLOWS_LIMIT = 178_956_970  # pixels; above it Pillow refuses by itself
Dtype = Literal["float32", "float64", "int32", "int64", "bool"]


class ImageDecode(Section):
    """Encoded pictures (JPEG, PNG, WebP, …) in a binary column, or in Hugging Face's struct of bytes and path.

    Resized, cropped and normalised as torchvision's Resize (bilinear with antialias, on Pillow's own code), CenterCrop,
    ToTensor and Normalize do it; the model sees float32 [N, channels, height, width].

    The pixels are those of `PIL.Image.open(…).convert(mode)`, which torchvision's ImageFolder and timm call: alpha is
    dropped, 16-bit colour keeps its high bytes. 16-bit grey and floating-point pictures, which Pillow would clip to
    white, are set aside.
    """

    kind: Literal["image"] = "image"
    column: str | None = None
    mode: Literal["RGB", "L"] = "RGB"  # colour or grey
    exif: Literal["ignore", "apply"] = "ignore"  # turn pictures as their camera was held: as in training!
    max_pixels: Annotated[Positive, Field(le=PILLOWS_LIMIT)] = 1 << 26  # of one picture; more is taken for a bomb
    # exact: Pillow's pixels; near: resized by torch in a third of the time, 2 % of the values are 1 or 2 of 255 off;
    # scaled: moreover JPEGs are read at 1/2, 1/4 or 1/8 of their size where resize leaves less, and edges differ
    method: Literal["exact", "near", "scaled"] = "exact"
    resize: Size | None = None  # the shorter side, or [height, width]; pixels
    crop: Size | None = None  # centre crop; pixels
    mean: tuple[Number, ...] = (0.0,)  # per channel, of values in 0..1
    std: tuple[PositiveNumber, ...] = (1.0,)

    @model_validator(mode="after")
    def _one_value_per_channel(self) -> ImageDecode:
        channels = len(self.mode)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(f"{name} has {len(values)} values, mode {self.mode} needs 1 or {channels}")
        return self

    @model_validator(mode="after")
    def _methods_of_resizing(self) -> ImageDecode:
        if self.method != "exact" and self.resize is None:
            raise ValueError(f"method: '{self.method}' is a way of resizing; give resize")
        return self


class TensorDecode(Section):
    """Numeric lists of one length or `arrow.fixed_shape_tensor`; the model sees [N, *shape]."""

    kind: Literal["tensor"]
    column: str | None = None
    shape: tuple[Positive, ...] | None = None  # of one row; default: as the column says
    dtype: Dtype = "float32"  # that the model takes
    mean: tuple[Number, ...] = (0.0,)  # one value, or one for each entry of the first axis
    std: tuple[PositiveNumber, ...] = (1.0,)

    @model_validator(mode="after")
    def _only_floats_are_normalised(self) -> TensorDecode:
        return _require_float(self)


class FeaturesDecode(Section):
    """Numeric columns side by side; the model sees [N, columns]."""

    kind: Literal["features"]
    columns: tuple[str, ...] = ()
    dtype: Dtype = "float32"
    mean: tuple[Number, ...] = (0.0,)  # one value, or one for each column
    std: tuple[PositiveNumber, ...] = (1.0,)

    @model_validator(mode="after")
    def _only_floats_are_normalised(self) -> FeaturesDecode:
        return _require_float(self)


def _require_float(decode: D) -> D:
    if (set(decode.mean), set(decode.std)) != ({0.0}, {1.0}) and not decode.dtype.startswith("float"):
        raise ValueError(f"mean and std need a dtype float32 or float64, got {decode.dtype}")
    return decode


class TextDecode(Section):
    """Text through a Hugging Face tokenizer file, or token ids in lists; the model sees two keyword arguments, int64
    [N, length] each: token ids, and 1 where there is a token.

    The tokenizer's file says on which side texts are padded and cut, and what its special tokens are.
    """

    kind: Literal["text"]
    column: str | None = None
    tokenizer: str | None = None  # a tokenizer.json; default: the column holds lists of token ids
    length: Positive  # tokens of a row, special ones included; shorter texts are padded
    truncation: bool = False  # cut longer texts, as in training; otherwise they are set aside
    pad: Annotated[Whole, Field(ge=0)] | None = None  # id of the padding; default: the tokenizer's, else 0
    ids: str = "input_ids"  # the model's argument
    mask: str | None = "attention_mask"  # the model's argument; null: it takes none

    @model_validator(mode="after")
    def _two_arguments(self) -> TextDecode:
        if self.ids == self.mask:
            raise ValueError(f"ids and mask are both named '{self.ids}'")
        return self


class FunctionDecode(Section):
    """A function of the user: `function(value) -> numpy array`, called for each row with the column's Python value.

    Every row must give the same shape and dtype. An exception sets the row aside with its message.
    """

    kind: Literal["function"]
    column: str | None = None
    function: str  # package.module:function


def _kind_of(given: Any) -> str | None:
    kind = given.get("kind", "image") if isinstance(given, Mapping) else getattr(given, "kind", None)
    return str(kind) if kind is not None else None


Decode = Annotated[
    Annotated[ImageDecode, Tag("image")]
    | Annotated[TensorDecode, Tag("tensor")]
    | Annotated[FeaturesDecode, Tag("features")]
    | Annotated[TextDecode, Tag("text")]
    | Annotated[FunctionDecode, Tag("function")],
    Discriminator(
        _kind_of,
        custom_error_type="kind",
        custom_error_message="kind must be one of: image, tensor, features, text, function",
    ),
]


def columns_of(decode: Decode) -> tuple[str, ...]:
    """The pool's columns that this decoder reads."""
    if isinstance(decode, FeaturesDecode):
        return decode.columns
    return (decode.column,) if decode.column is not None else ()


def arguments_of(name: str, decode: Decode) -> tuple[str, ...]:
    """The model's keyword arguments that an input gives; '' is its only one, by position."""
    if isinstance(decode, TextDecode):
        return (decode.ids,) if decode.mask is None else (decode.ids, decode.mask)
    return (name,)
