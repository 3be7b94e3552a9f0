"""The configuration: YAML in, frozen and validated objects out. Every default is written here and nowhere else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from poolscore.engine.config_text import NOT_YAML, first_message, from_yaml, one_line
from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.expression import parse as parse_filter
from poolscore.engine.run.limits import DEADLINES, parse_deadline
from poolscore.engine.scores import Task, require_score
from poolscore.engine.selection.caps import NEAR_DUPLICATES, Caps, caps_of
from poolscore.engine.selection.methods import AWARE, require_method


def _no_flag(given: Any) -> Any:
    """YAML reads yes, no, on and off as true and false, which Python would take for the numbers 1 and 0."""
    if isinstance(given, bool):
        raise ValueError(f"must be a number, got {str(given).lower()}")
    return given


AUTO = 0  # batch_size 'auto', until it is measured


def _auto(given: Any) -> Any:
    """'auto' is kept as a number, so that a batch size is one everywhere."""
    if given == "auto":
        return AUTO
    if isinstance(given, str) or (isinstance(given, int) and given < 1):
        raise ValueError(f"must be 'auto' or a number of rows, got {given!r}")
    return given


Whole = Annotated[int, BeforeValidator(_no_flag)]
Number = Annotated[float, BeforeValidator(_no_flag), Field(allow_inf_nan=False)]
Positive = Annotated[Whole, Field(ge=1)]
PositiveNumber = Annotated[Number, Field(gt=0)]
Size = Positive | tuple[Positive, Positive]
BatchSize = Annotated[
    Positive | Literal[0],
    BeforeValidator(_auto),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"minimum": 1, "type": "integer"}]}),
]
D = TypeVar("D", "TensorDecode", "FeaturesDecode")
PILLOWS_LIMIT = 178_956_970  # pixels; above it Pillow refuses by itself
Dtype = Literal["float32", "float64", "int32", "int64", "bool"]


class Section(BaseModel):
    """A part of the configuration: immutable, and unknown keys are refused with the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), str_min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for key in given:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.5)
                    hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(cls.model_fields)}"
                    raise ValueError(f"unknown key '{key}'; {hint}")
        return given


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


class PoolConfig(Section):
    """Where the unlabelled rows are and how a row becomes the model's input."""

    uri: str  # a Parquet file, a folder of them, or a glob
    input: str | tuple[str, ...] | None = None  # the column (for features: columns) of a model with one input
    decode: Decode = ImageDecode()
    inputs: dict[str, Decode] = {}  # instead of input and decode: the model's keyword arguments
    id: str | None = None  # column; default: the row is known by its file and place
    keep: tuple[str, ...] = ()  # columns carried into scores and selections
    exclude: str | None = None  # Parquet or CSV of ids that are labelled already
    filter: str | None = None  # only rows for which this holds, such as: split == "train" and size > 10
    sample: PositiveNumber | None = None  # for a try: a fraction (below 1) or a number of rows, drawn by passes.seed
    bad_files: Literal["stop", "skip"] = "stop"  # files that cannot be read: refuse the pool, or list and leave out

    @model_validator(mode="after")
    def _one_way_to_name_inputs(self) -> PoolConfig:
        if (self.input is None) == (not self.inputs):
            raise ValueError("give either 'input' (one column) or 'inputs' (named inputs of the model)")
        if self.inputs and self.decode != ImageDecode():
            raise ValueError("decode belongs to 'input'; each of 'inputs' says itself how it is decoded")
        if self.input is not None and columns_of(self.decode):
            raise ValueError("decode names a column, and so does input; leave it to input")
        for name, decode in self.named_inputs().items():
            if not columns_of(decode):
                raise ValueError(f"inputs.{name}: no column is named" if name else "input names no column")
            if name and not name.isidentifier():
                raise ValueError(f"inputs.{name}: the name of an input is a keyword argument of the model")
        return self

    @model_validator(mode="after")
    def _arguments_differ(self) -> PoolConfig:
        taken: dict[str, str] = {}
        for name, decode in self.named_inputs().items():
            for argument in arguments_of(name, decode):
                if not argument.isidentifier() and argument:
                    raise ValueError(f"decode: '{argument}' is no name of a keyword argument")
                if argument in taken:
                    raise ValueError(f"inputs.{name}: '{argument}' is given by inputs.{taken[argument]} as well")
                taken[argument] = name
        return self

    @field_validator("input", mode="before")
    @classmethod
    def _lists_are_tuples(cls, given: Any) -> Any:
        return tuple(given) if isinstance(given, list) else given

    @field_validator("filter")
    @classmethod
    def _filter_can_be_read(cls, given: str | None) -> str | None:
        if given is not None:
            parse_filter(given)
        return given

    @field_validator("sample")
    @classmethod
    def _sample_is_a_share_or_a_number(cls, given: float | None) -> float | None:
        if given is not None and given >= 1 and given != int(given):
            raise ValueError(f"must be a fraction below 1 or a whole number of rows, got {given:g}")
        return given

    def named_inputs(self) -> dict[str, Decode]:
        """Decoders by input name; the one unnamed input is called ''."""
        if self.input is None:
            return dict(self.inputs)
        columns = (self.input,) if isinstance(self.input, str) else self.input
        if isinstance(self.decode, FeaturesDecode):
            return {"": self.decode.model_copy(update={"columns": columns})}
        if len(columns) != 1:
            raise ValueError(f"decode.kind '{self.decode.kind}' takes one column, got {len(columns)}")
        return {"": self.decode.model_copy(update={"column": columns[0]})}


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


class ModelConfig(Section):
    """The network, its weights, and what its output means."""

    source: str  # package.module:factory, or a file (.pt2, .onnx)
    args: dict[str, Any] = {}  # keyword arguments of the factory
    path: str = "."  # folder that `source` is imported from, beside what is installed
    weights: str | None = None  # .safetensors, or a checkpoint that loads with weights_only
    trust: bool = False  # let torch unpickle what a .pt2 holds, which can run code of whoever wrote it
    task: Task
    classes: Positive | Annotated[tuple[str, ...], Field(min_length=1)] | None = (
        None  # number or names; for regression: number of outputs
    )
    predicts_noise: bool = False  # regression: outputs are D means, then D log-variances

    @model_validator(mode="after")
    def _class_names_differ(self) -> ModelConfig:
        names = self.class_names or ()
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise ValueError(f"classes: '{twice[0]}' is named twice")
        return self

    @model_validator(mode="after")
    def _a_file_is_whole(self) -> ModelConfig:
        if self.is_file and (self.args or self.weights is not None):
            what, suffix = "args" if self.args else "weights", Path(self.source).suffix
            raise ValueError(f"{what}: a {suffix} file holds all that there is; take it out")
        return self

    @property
    def is_file(self) -> bool:
        """Whether the source is a file that holds a whole model."""
        return self.source.endswith((".pt2", ".onnx"))

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, if the configuration gives them."""
        return self.classes if isinstance(self.classes, tuple) else None

    @property
    def outputs(self) -> int | None:
        """Number of values that the model must give per row, if it is known."""
        if self.task is Task.BINARY:
            return 1
        count = len(self.classes) if isinstance(self.classes, tuple) else self.classes
        return count * 2 if count is not None and self.predicts_noise else count


class PassesConfig(Section):
    """Monte-Carlo dropout."""

    count: Annotated[Whole, Field(ge=1, lt=65536)] = 20  # T
    masks: Literal["shared", "independent"] = "shared"
    seed: Annotated[Whole, Field(ge=0, lt=2**64)] = 0  # of masks, random score and the order of shards
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    layers: Literal["all", "head"] | tuple[str, ...] = "all"  # live dropout: all, the last one, or modules by name
    compile: bool | None = None  # the split model, with torch.compile; default: on a GPU
    split: bool = True  # compute what no dropout reaches once per row; false: repeat every input T times
    rows_per_call: Positive | None = None  # N·T rows in one tensor; default: what caches (CPU) or memory (GPU) hold

    @field_validator("layers", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) and given not in ("all", "head") else given


class ScoreConfig(Section):
    """How scores are formed where the task leaves a choice."""

    reduce: Literal["sum", "max"] = "sum"  # multilabel: over the labels
    accurate_bald: bool = False  # bald as mean_t KL(p_t || mean p): right far below 1e-6 nats, and slower


class SelectConfig(Section):
    """The batch to label."""

    k: Annotated[Whole, Field(ge=0)]
    score: str | None = None  # default: bald; regression: predictive_variance; one pass: entropy
    # power, softmax, softrank: by chance (Kirsch et al. 2023); batchbald, kcenter, badge: batch-aware, on the shortlist
    method: Literal["topk", "power", "softmax", "softrank", "batchbald", "kcenter", "badge"] = "topk"
    samples: Positive = 10_000  # outcomes that batchbald draws, once all of them take too much memory
    beta: PositiveNumber = 1.0  # of what goes by chance: larger follows the scores more closely
    seed: Annotated[Whole, Field(ge=0, lt=2**64)] | None = None  # of their noise and the control; default: passes.seed
    max_per_group: dict[str, Positive] = {}  # column of pool.keep, 'prediction' or 'near_duplicates' → rows at most
    quotas: dict[Annotated[str, BeforeValidator(str)], Positive] = {}  # predicted class, name or number → rows at most
    control: Annotated[Number, Field(ge=0, lt=1)] = 0.0  # share of k that is drawn at random from all scored rows

    def caps(self, pool: PoolConfig, model: ModelConfig) -> Caps:
        """See `caps_of`."""
        return caps_of(self.max_per_group, self.quotas, pool.keep, model.task, model.class_names, model.outputs)


class ShortlistConfig(Section):
    """The best rows, inferred once more at the end of a run: what is made of more than scores needs no model then."""

    rows: Annotated[Whole, Field(ge=0)] = 20_000  # at most; of a small pool fewer, see `rows_of`; 0: no shortlist
    max_bytes: Positive = 1 << 30  # of log-probabilities, features and thumbnails; fewer rows where they take more
    thumbnail: Annotated[Whole, Field(ge=0, le=1024)] = 128  # pixels of the longer edge; 0: none
    labelled: str | None = None  # Parquet of rows that have labels already, with the pool's input columns

    def rows_of(self, scored: int, k: int) -> int:
        """Rows of the shortlist of so many scored rows: of a small pool the best tenth, twice the batch, or 1,000."""
        return min(self.rows, max(2 * k, scored // 10, 1000), scored)


class CheckConfig(Section):
    """Labelled rows that prove the wiring before hours are spent."""

    labelled: str  # Parquet with the pool's input columns and the label
    label: str = "label"  # column: class number or, with model.classes as names, class name
    min_accuracy: Annotated[Number, Field(ge=0, le=1)] | None = None
    rows: Positive = 1000  # at most so many of them are scored, drawn by passes.seed


class RunConfig(Section):
    """Where results go and how the work is cut."""

    dir: str
    executor: Literal["ray", "local"] = "ray"  # local: in this process, one worker
    address: str | None = None  # of a Ray cluster; default: an embedded one
    workers: Positive | None = None  # so many; default: one per GPU, or per core without GPUs, as machines come and go
    max_workers: Positive | None = None  # of a cluster that grows; an autoscaler is asked for as many
    wait_for_workers: Annotated[Number, Field(ge=0)] = 600  # seconds without any worker after which the job stops
    shard_timeout: PositiveNumber | None = None  # seconds; its worker is killed then; default: 20 times the usual
    device: Literal["auto", "cpu", "cuda"] = "auto"
    allow_mixed: bool = False  # take workers whose last bits differ: another GPU model, processor or library version
    batch_size: BatchSize = 64  # rows, or 'auto'; every batch is padded to it
    shard_rows: Positive = 65_536
    threads: Positive = 1  # CPU threads of a worker: they change the last bits of a score
    decode_threads: Annotated[Whole, Field(ge=0)] | None = None  # of a worker; 0: the model's own; default: its cores
    read_ahead: Positive | None = None  # bytes ahead of a model; default: 128 MiB, on a GPU 1 GiB, or less
    max_bad_fraction: Annotated[Number, Field(ge=0, le=1)] = 0.01  # share of rejected rows that stops the job
    max_bad_rows: Annotated[Whole, Field(ge=0)] | None = None  # number of rejected rows that stops the job
    deadline: str | None = None  # '8h' from the start, '06:00', or a date with it: the batch is made of what is scored
    max_gpu_hours: PositiveNumber | None = None  # the same by hours of workers, added up over all calls of the run
    verify_rows: Annotated[Whole, Field(ge=0)] = 1000  # at most, scored again in float64 at the end; 0: none
    storage_patience: Annotated[Number, Field(ge=0)] = 300.0  # seconds to wait for storage that fails; then it stops

    @field_validator("deadline", mode="before")
    @classmethod
    def _yaml_reads_times(cls, given: Any) -> Any:
        """A date and time without quotes is one to YAML; 18:00 is 1080, and a day alone leaves its hour open."""
        if isinstance(given, datetime):
            return given.isoformat()
        if isinstance(given, str | None):
            return given
        raise ValueError(f"must be {DEADLINES}, in quotes, got {given}")

    @field_validator("deadline")
    @classmethod
    def _deadline_can_be_read(cls, given: str | None) -> str | None:
        if given is not None:
            parse_deadline(given)
        return given

    @model_validator(mode="after")
    def _one_number_of_workers(self) -> RunConfig:
        if self.workers and self.max_workers:
            raise ValueError("workers is a fixed number, max_workers the most that come by and by: give one of them")
        return self


class PricesConfig(Section):
    """What things cost, in one currency of your choice, for the estimate of `plan --preview`."""

    currency: str = "USD"
    gpu_hour: Annotated[Number, Field(ge=0)] | None = None
    cpu_hour: Annotated[Number, Field(ge=0)] | None = None  # of one core
    thousand_requests: Annotated[Number, Field(ge=0)] | None = None  # to object storage
    egress_gb: Annotated[Number, Field(ge=0)] | None = None  # read from storage, 10^9 bytes


class Config(Section):
    """A whole configuration file."""

    version: Literal[1] = 1
    pool: PoolConfig
    model: ModelConfig
    passes: PassesConfig = PassesConfig()
    score: ScoreConfig = ScoreConfig()
    select: SelectConfig
    shortlist: ShortlistConfig = ShortlistConfig()
    check: CheckConfig | None = None
    run: RunConfig
    prices: PricesConfig = PricesConfig()

    @model_validator(mode="after")
    def _regression_has_no_bald(self) -> Config:
        if self.score.accurate_bald and self.model.task is Task.REGRESSION:
            raise ValueError("score.accurate_bald: the task regression has no bald: leave it out")
        return self

    @model_validator(mode="after")
    def _only_labels_are_reduced(self) -> Config:
        if self.score.reduce != "sum" and self.model.task is not Task.MULTILABEL:
            raise ValueError(
                f"score.reduce: '{self.score.reduce}' is over the labels of task multilabel; the task is "
                f"{self.model.task.value}: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _onnx_runtime_does_it_its_own_way(self) -> Config:
        if self.model.source.endswith(".onnx") and self.passes.precision != "fp32":
            raise ValueError(
                f"passes.precision: '{self.passes.precision}' is for torch models; an ONNX file computes in its own "
                "types: export it in the precision that you want, and leave this at fp32"
            )
        if self.model.source.endswith(".onnx") and self.passes.compile:
            raise ValueError(
                "passes.compile: is for torch models; ONNX Runtime optimises a file by itself: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _a_shortlist_holds_the_batch_that_is_made_of_it(self) -> Config:
        method: str = self.select.method
        of_it = [name for name in (NEAR_DUPLICATES, method) if name in (*self.select.max_per_group, *AWARE)]
        if of_it and self.shortlist.rows < max(1, self.select.k):
            raise ValueError(
                f"shortlist.rows: {self.shortlist.rows} rows are fewer than select.k={self.select.k}, and {of_it[0]} "
                "chooses among the shortlist's rows alone: raise it"
            )
        return self

    @property
    def selected_by(self) -> str:
        """The score that the batch is selected by."""
        if self.select.score is not None:
            return self.select.score
        if self.model.task is Task.REGRESSION:
            return "predictive_variance" if self.passes.count > 1 else "random"
        return "bald" if self.passes.count > 1 else "entropy"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override, resolve and validate a configuration file.

    Args:
        path: YAML file. Relative paths in it are relative to its folder.
        overrides: "section.key=value" with the value in YAML, as `--set` takes them; paths among them are relative to
            the file as well.

    Raises:
        ConfigError: one line that names the file, the key and what to do.
    """
    path = Path(path)
    try:
        data = from_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except NOT_YAML as error:
        raise ConfigError(f"{path}: not valid YAML ({one_line(error)})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected sections such as 'pool:' and 'model:'; `poolscore init` writes an example")
    for override in overrides:
        _set(data, override)
    return parse_config(data, base=path.parent, where=str(path))


def parse_config(data: Mapping[str, Any], base: str | Path = ".", where: str = "configuration") -> Config:
    """Validate a configuration given as nested mappings; relative paths are resolved against `base`.

    Raises:
        ConfigError: one line that names `where`, the key and what to do.
    """
    try:
        config = Config.model_validate(data)
        passes, task = config.passes, config.model.task
        require_score(config.selected_by, task, passes.count)
        require_method(config.select.method, task, passes.count, passes.masks == "shared")
        config.select.caps(config.pool, config.model)
        return _resolve(config, Path(base).resolve())
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_message(error, data)}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def flatten(config: Config) -> dict[str, Any]:
    """The configuration as {"section.key": JSON value}."""
    flat: dict[str, Any] = {}
    for section, values in config.model_dump(mode="json").items():
        if isinstance(values, dict):
            flat |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            flat[section] = values
    return flat


def _set(data: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected section.key=value, such as --set select.k=500")
    for key in keys[:-1]:
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override}: '{key}' is a value, not a section")
    try:
        data[keys[-1]] = from_yaml(value)
    except NOT_YAML as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML ({one_line(error)})") from error


def _resolve(config: Config, base: Path) -> Config:
    def absolute(path: str | None) -> str | None:
        if path is None or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
            return path
        try:
            return str(base / Path(path).expanduser())
        except RuntimeError as error:
            raise ConfigError(f"'{path}': there is no such user") from error

    def changed(section: Section, *names: str) -> Any:
        return section.model_copy(update={name: absolute(getattr(section, name)) for name in names})

    def decoded(decode: Decode) -> Any:
        return changed(decode, "tokenizer") if isinstance(decode, TextDecode) else decode

    pool = changed(config.pool, "uri", "exclude")
    inputs = {name: decoded(decode) for name, decode in pool.inputs.items()}
    return config.model_copy(
        update={
            "pool": pool.model_copy(update={"decode": decoded(pool.decode), "inputs": inputs}),
            "model": changed(config.model, "path", "weights", *(["source"] if config.model.is_file else [])),
            "check": config.check and changed(config.check, "labelled"),
            "shortlist": changed(config.shortlist, "labelled"),
            "run": changed(config.run, "dir"),
        }
    )
