"""Reading a shortlist. Needs no GPU, no model, no pool, and no torch.

    shortlist/shortlist.json           what the shortlist is made of; readers believe it alone
    shortlist/rows-*.parquet           its rows, best first: everything but the wide columns
    shortlist/part-NNNNN-*.parquet     row_id, key, log_probs (regression: outputs), features, thumbnail of some of them
    shortlist/centre-*.npy             float64 [F]: mean of the features of many rows of the pool

Legend: N rows, T passes, C classes, M labelled rows, F features.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.journal import ShardReport
from poolscore.engine.storage.filesystem import reason
from poolscore.engine.words import amount

A = TypeVar("A")

FOLDER = "shortlist"
ABOUT = f"{FOLDER}/shortlist.json"
FORMAT = 1
OURS = r"(rows|part-\d{5,}|centre)-[0-9a-f]{8}\.(parquet|npy)"  # names that `new_name` gives
LOG_PROBS, OUTPUTS, FEATURES, THUMBNAIL = "log_probs", "outputs", "features", "thumbnail"


@dataclass(frozen=True)
class Shortlist:
    """The best rows of a run."""

    rows: pa.Table  # best first: rank (from 1), row_id, key, id, prediction, confidence, scores, columns of pool.keep
    log_probs_NTC: NDArray[np.float32] | None  # nats; see look.py; None: regression
    features_NF: NDArray[np.float32]  # see McDropout.features
    centre_F: NDArray[np.float64]  # mean of the features of many rows of the pool
    labelled_MF: NDArray[np.float32]  # features of the rows of shortlist.labelled; [0, F] where there is none
    shared_masks: bool  # whether pass t of one row is pass t of every other
    outputs_NTC: NDArray[np.float32] | None = None  # regression: what the model gave
    scores: str = ""  # what it was made from; see `scores_digest`
    missing: int = 0  # rows that were wanted for it and could not be inferred once more

    def lacks(self, reports: Mapping[int, ShardReport]) -> str | None:
        """In words, why it is not the shortlist of these scores; None: it is."""
        return what_lacks(self.scores, self.missing, reports)


@dataclass(frozen=True)
class WidePart:
    """An object with wide columns."""

    name: str
    first: int  # row_id
    last: int  # row_id
    rows: int


@dataclass(frozen=True)
class Looked:
    """What became of the rows of a task."""

    part: WidePart
    left_out: Mapping[int, str]  # row_id → why; these are not in the part


def what_lacks(scores: str, missing: int, reports: Mapping[int, ShardReport]) -> str | None:
    """In words, why a shortlist of `scores` that lacks so many rows is not that of these scores; None: it is."""
    if scores != scores_digest(reports):
        return "it was made of other scores than the run has now"
    return f"{amount(missing, 'row')} could not be inferred once more" if missing else None


def scores_digest(reports: Mapping[int, ShardReport]) -> str:
    """Of the scores of these shards: a shortlist names that of those which it was made from."""
    names = sorted(report.scores for report in reports.values())
    return sha256("\0".join(names).encode()).hexdigest()[:32]


def about_shortlist(run: RunDirectory) -> dict[str, Any] | None:
    """What shortlist.json says; None: the run has none that this version can read.

    Raises:
        StoppedError: it is damaged.
    """
    try:
        about = json.loads(run.storage.read(ABOUT))
        return dict(about) if about["format"] <= FORMAT else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoppedError(
            f"{run.storage.path(ABOUT)} is damaged; delete it, and `poolscore score` makes it again"
        ) from error


def read_shortlist(run: RunDirectory) -> Shortlist:
    """The shortlist of a run. Memory: its own size (shortlist.max_bytes), and one part.

    Raises:
        ConfigError: the run has none.
        StoppedError: a part of it cannot be read.
    """
    return of_newest(run, lambda about: _read_shortlist(run, about))


def _read_shortlist(run: RunDirectory, about: Mapping[str, Any]) -> Shortlist:
    table = read_part(run, about["table"])
    row_ids = table["row_id"].to_numpy()
    by_row = np.argsort(row_ids)
    columns = _wide(about)
    T = int(about["passes"])
    wide: dict[str, NDArray[np.float32]] = {}
    for written in parts_in(about["parts"]):
        part = read_part(run, written.name, [*columns, "row_id"])
        places = by_row[np.searchsorted(row_ids, part["row_id"].to_numpy(), sorter=by_row)]
        for column in columns:
            values = matrix(part[column])
            if column not in wide:
                wide[column] = np.empty((len(row_ids), values.shape[1]), np.float32)
            wide[column][places] = values
    by_pass = {name: x.reshape(len(x), T, -1) for name, x in wide.items() if name != FEATURES}
    centre_F = read_centre(run, about)
    labelled = [matrix(read_part(run, w.name, [FEATURES])[FEATURES]) for w in parts_in(about["labelled"])]
    return Shortlist(
        rows=table,
        log_probs_NTC=by_pass.get(LOG_PROBS),
        features_NF=wide[FEATURES],
        centre_F=centre_F,
        labelled_MF=np.concatenate([np.empty((0, len(centre_F)), np.float32), *labelled]),
        shared_masks=bool(about["shared_masks"]),
        outputs_NTC=by_pass.get(OUTPUTS),
        scores=about["wanted"]["of"]["scores"],
        missing=about["missing"],
    )


def thumbnails(run: RunDirectory, row_ids: Iterable[int]) -> dict[int, bytes]:
    """Thumbnails of those of the rows that are on the shortlist and have one, by row_id. JPEG; in earlier shortlists
    PNG of small pictures.

    Raises:
        ConfigError: the run has no shortlist.
        StoppedError: a part of it cannot be read.
    """
    wanted = set(row_ids)
    return of_newest(run, lambda about: _thumbnails(run, about, wanted))


def _thumbnails(run: RunDirectory, about: Mapping[str, Any], wanted: Set[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for written in parts_in(about["parts"]):
        if any(written.first <= row_id <= written.last for row_id in wanted):
            part = read_part(run, written.name, ["row_id", THUMBNAIL])
            ids = part["row_id"].to_pylist()
            for place in (i for i, row_id in enumerate(ids) if row_id in wanted):
                if (picture := part[THUMBNAIL][place].as_py()) is not None:
                    found[ids[place]] = picture
    return found


def new_name(what: str, suffix: str) -> str:
    """A name for an object that no other attempt has."""
    return f"{FOLDER}/{what}-{secrets.token_hex(4)}{suffix}"


def matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of lists of one length as [rows, length]."""
    values: NDArray[np.float32] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), column.type.list_size)


def of_newest(run: RunDirectory, read: Callable[[Mapping[str, Any]], A]) -> A:
    """What is read of the shortlist. A driver may make another meanwhile, and take away what that does not name."""
    about = require_about(run)
    try:
        return read(about)
    except StoppedError:
        newer = require_about(run)
        if newer == about:
            raise
        return read(newer)


def read_centre(run: RunDirectory, about: Mapping[str, Any]) -> NDArray[np.float64]:
    """The mean of the features of many rows of the pool [F]. StoppedError: it cannot be read."""
    centre_F: NDArray[np.float64] = np.load(io.BytesIO(_bytes(run, about["centre"])), allow_pickle=False)
    return centre_F


def require_about(run: RunDirectory) -> Mapping[str, Any]:
    """What shortlist.json says.

    Raises:
        ConfigError: there is none.
        StoppedError: it is damaged.
    """
    about = about_shortlist(run)
    if about is None:
        raise ConfigError(
            f"{run.storage.root} has no shortlist; `poolscore score` with the run's configuration and shortlist.rows "
            "above 0 makes one"
        )
    return about


def _wide(about: Mapping[str, Any]) -> Sequence[str]:
    return (LOG_PROBS if about["log_probs"] else OUTPUTS, FEATURES)


def parts_in(entries: Iterable[Mapping[str, Any]]) -> list[WidePart]:
    """Objects that shortlist.json names."""
    return [WidePart(**entry) for entry in entries]


def read_part(run: RunDirectory, name: str, columns: list[str] | None = None) -> pa.Table:
    """Columns of an object of the shortlist.

    Raises:
        StoppedError: it cannot be read.
    """
    try:
        return pq.read_table(pa.BufferReader(_bytes(run, name)), columns=columns)
    except (pa.ArrowException, KeyError) as error:
        raise damaged(run, name, error) from error


def _bytes(run: RunDirectory, name: str) -> bytes:
    try:
        return run.storage.read(name)
    except FileNotFoundError as error:
        raise damaged(run, name, error) from error


def damaged(run: RunDirectory, name: str, error: Exception) -> StoppedError:
    """What is to be said of an object of the shortlist that cannot be read."""
    return StoppedError(
        f"{run.storage.path(name)}, which {ABOUT} names, cannot be read ({reason(error)}); bring it back, or delete "
        f"{ABOUT}: then `poolscore score` makes the shortlist again"
    )
