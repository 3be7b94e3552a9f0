"""The function behind `poolscore pack SOURCE POOL`."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.listing import SUFFIXES
from poolscore.engine.storage.uri import lies_in, local_path
from poolscore.jobs.pack.arrays import ArrayRows, array_source
from poolscore.jobs.pack.contract import Limits, Names, PackSummary, Progress
from poolscore.jobs.pack.destination import destination_of
from poolscore.jobs.pack.fill import fill
from poolscore.jobs.pack.folder import folder_source, walk
from poolscore.jobs.pack.idx import open_idx, open_idx_images
from poolscore.jobs.pack.numpy_files import open_npy, open_npz, open_npz_labels
from poolscore.jobs.pack.parquet import parquet_source
from poolscore.jobs.pack.parts import check_pool
from poolscore.jobs.pack.resize import Resize
from poolscore.jobs.pack.table import csv_source
from poolscore.jobs.pack.tar import find_tars, is_tar, tar_source

Kind = Literal["folder", "tar", "parquet", "idx", "npy", "npz", "csv"]
_IDX_NAME = re.compile(r"idx\d*-(u?byte|short|int|float|double)(\.gz)?$")
_MAGICS: tuple[tuple[bytes, Kind], ...] = (
    (b"\x93NUMPY", "npy"),
    (b"PAR1", "parquet"),
    (b"PK", "npz"),
    (b"\0\0", "idx"),
    (b"\x1f\x8b", "idx"),
)
_APPLIES: Mapping[str, tuple[Kind, ...]] = {
    "labels": ("idx", "npy", "npz"),
    "label_from_folder": ("folder",),
    "as_tensor": ("idx", "npy", "npz"),
    "array_key": ("npz",),
    "label_key": ("npz",),
    "delimiter": ("csv",),
    "text_columns": ("csv",),
    "resize": ("folder", "tar", "parquet"),
}


def pack(
    source: str | Path,
    pool: str | Path,
    *,
    labels: str | Path | None = None,
    label_from_folder: bool = False,
    as_tensor: bool = False,
    array_key: str | None = None,
    label_key: str | None = None,
    delimiter: str | None = None,
    text_columns: Sequence[str] = (),
    resize: Resize | None = None,
    id_column: str = Names.id,
    image_column: str = Names.image,
    tensor_column: str = Names.tensor,
    label_column: str = Names.label,
    file_bytes: int = Limits.file_bytes,
    row_group_bytes: int = Limits.row_group_bytes,
    row_group_rows: int = Limits.row_group_rows,
    overwrite: bool = False,
    workers: int = 1,
    fresh: bool = False,
    progress: Progress | None = None,
) -> PackSummary:
    """Turns a source into a Parquet pool: a folder of `part-NNNNN.parquet`.

    - folder of images: `id` string (relative POSIX path), `image` binary (the original bytes), [`label` string],
      `width`, `height` int32 (null where the header cannot be read)
    - `.tar`, `.tar.gz`, a folder or a glob of them, in webdataset's layout: `id` string (tar/key), `image` binary,
      [`label`], [`json`], [`txt`] (see `tar_source`), `width`, `height`
    - `.parquet`, a folder or a glob of them, also `s3://…`: the same columns and rows, well shaped (see
      `parquet_source`)
    - IDX file, plain or gzip: `id` int64 0..n-1, `image` binary (PNG), [`label` int64]
    - `.npy`, `.npz`: `id` int64 0..n-1, `image` binary (PNG) for uint8 [N, H, W] and [N, H, W, C in 1, 3, 4], else
      `tensor` (fixed_shape_tensor of the array's dtype), [`label` int64 or float64]
    - `.csv`, `.tsv`, also `.gz`: its columns with inferred types, cells verbatim (also `=`, `+`, `-`, `@`: formulas are
      escaped on export, not here); `id` int64 row number where there is no column named `id_column`

    Memory is bounded by one row group and a few MiB a worker, whatever the size of the source. All files appear under
    their final names at the end, after fsync. A pack that is stopped before then (killed, Ctrl-C, a full disk) leaves
    whole parts under hidden names; the same call goes on after them.

    What cannot be packed is set aside, with the reason, in `_set_aside.csv` in the pool.

    Args:
        source: folder or file; IDX, NumPy and CSV are told by name, else by their first bytes.
        pool: folder to write, also `s3://…` or `gs://…`, made where missing; refused when it holds anything (but see
            `overwrite`).
        labels: IDX or NumPy file with N numbers, for arrays.
        label_from_folder: the first-level subfolder of an image becomes its label.
        as_tensor: uint8 image arrays become tensors too.
        array_key: array of the `.npz` that holds the rows; else `images`, `x`, `x_train` or the only one.
        label_key: array of the `.npz` (SOURCE, or the file of labels) that holds labels; else `labels`, `y`,
            `y_train` where there is one.
        delimiter: of a CSV; comma, or tab for `.tsv`.
        text_columns: CSV columns read as text whatever they hold.
        resize: pictures are made smaller; those that cannot be decoded are set aside.
        id_column, image_column, tensor_column, label_column: names in the pool; of a CSV only the id counts.
        file_bytes: bytes of a file, about.
        row_group_bytes: bytes of data of a row group at most; a single larger row gets a group of its own.
        row_group_rows: rows of a row group at most.
        overwrite: replace an older pool of pack; the folder may hold nothing else but hidden entries.
        workers: processes, at most; the pool is the same for any number.
        fresh: begin anew where a stopped pack left parts.
        progress: called with (rows done, rows in all or None).

    Raises:
        ConfigError: wrong source, option or pool; nothing was written.
        StoppedError: the disk or a worker failed; whole parts remain for the next call.
    """
    to = destination_of(str(pool))
    names = Names(id_column, image_column, tensor_column, label_column)
    limits = Limits(file_bytes, row_group_bytes, row_group_rows)
    kind = kind_of(source)
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    own_key = label_key if labels is None else None
    given = {
        "labels": None if labels is None else str(labels),
        "label_from_folder": label_from_folder,
        "as_tensor": as_tensor,
        "array_key": array_key,
        "label_key": own_key,
        "delimiter": delimiter,
        "text_columns": list(text_columns),
        "resize": None if resize is None else {**vars(resize), "size": str(resize.size)},
    }
    _check_options(kind, given)
    check_pool(to, overwrite=overwrite)
    at = local_path(str(source)) or Path()  # of Parquet only, which may be elsewhere, the text counts
    if kind == "folder":
        rows = folder_source(at, names, label_from_folder=label_from_folder, resize=resize, without=local_path(to.path))
    elif kind == "tar":
        rows = tar_source(at, names, resize)
    elif kind == "parquet":
        _require_apart(str(source), to.path)
        rows = parquet_source(str(source), names, resize)
    elif kind == "csv":
        rows = csv_source(at, names, delimiter=delimiter, text_columns=text_columns)
    else:
        images, own_labels = _open_array(kind, at, array_key, own_key)
        label_rows = own_labels if labels is None else _open_labels(Path(labels), label_key)
        rows = array_source(images, label_rows, names, as_tensor=as_tensor)
    return fill(
        rows,
        to,
        limits,
        processes=workers,
        options={"kind": kind, **given, "label_key": label_key, **vars(names), **vars(limits)},
        fresh=fresh,
        progress=progress,
        where=str(source),
    )


def kind_of(uri: str | Path, role: str = "SOURCE") -> Kind:
    """What a source is: by its name, else by its first bytes. A folder without pictures but with tar or Parquet files
    is a source of these, as is a glob of them. What lies on object storage is taken for a Parquet pool.

    Raises:
        ConfigError: it does not exist, cannot be read, or is none of them.
    """
    source = local_path(str(uri))
    if source is None:
        return "parquet"
    name = source.name.lower()
    if source.is_dir():
        return _folder_kind(source)
    if glob.has_magic(str(source)) and not source.exists():
        return "tar" if find_tars(source) else "parquet"
    if is_tar(name):
        kind: Kind | None = "tar"
    elif name.endswith(SUFFIXES):
        kind = "parquet"
    elif name.removesuffix(".gz").endswith((".csv", ".tsv")):
        kind = "csv"
    elif name.endswith(".npy"):
        kind = "npy"
    elif name.endswith(".npz"):
        kind = "npz"
    else:
        kind = "idx" if _IDX_NAME.search(name) else None
    try:
        with source.open("rb") as stream:
            start = stream.read(6)
    except OSError as error:
        raise ConfigError(f"cannot read {role} {source}: {error.strerror}; name a folder or a file") from error
    kind = kind or next((found for magic, found in _MAGICS if start.startswith(magic)), None)
    if kind is None:
        raise ConfigError(
            f"{role} {source} is nothing that can be packed: give a folder of images, .tar (also .gz), .parquet, an "
            "IDX file (.idx3-ubyte, also .gz), .npy, .npz, .csv or .tsv (also .gz)"
        )
    return kind


def _folder_kind(folder: Path) -> Kind:
    found: Kind = "folder"
    for name, reason in walk(folder):
        if not reason:
            return "folder"
        if found == "folder":
            found = "tar" if is_tar(name) else "parquet" if name.lower().endswith(SUFFIXES) else found
    return found


def _require_apart(source: str, pool: str) -> None:
    if lies_in(source, pool) or lies_in(pool, source):
        raise ConfigError(f"POOL {pool} and SOURCE {source} lie within one another: name a folder beside it")


def _check_options(kind: Kind, options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if value and kind not in _APPLIES[name]:
            raise ConfigError(
                f"{name} applies to {', '.join(_APPLIES[name])} sources, this one is {kind}: leave it out"
            )


def _open_array(
    kind: Kind, path: Path, array_key: str | None, label_key: str | None
) -> tuple[ArrayRows, ArrayRows | None]:
    if kind == "npz":
        return open_npz(path, array_key, label_key)
    return (open_npy(path) if kind == "npy" else open_idx_images(path)), None


def _open_labels(path: Path, label_key: str | None) -> ArrayRows:
    kind = kind_of(path, "labels")
    if kind == "npz":
        return open_npz_labels(path, label_key)
    if kind == "npy":
        return open_npy(path)
    if kind == "idx":
        return open_idx(path)
    raise ConfigError(f"labels {path} are a {kind}: give an IDX or NumPy file with one number a row")
