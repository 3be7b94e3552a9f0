"""A shortlist written by hand, as `engine/shortlist/read.py` reads it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from poolscore.engine.keys import keys_of
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.shortlist.read import (
    ABOUT,
    FEATURES,
    FORMAT,
    LOG_PROBS,
    OUTPUTS,
    THUMBNAIL,
    scores_digest,
)


def write_shortlist(
    run: RunDirectory,
    row_ids: Sequence[int],
    features_NF: NDArray[np.floating],
    wide_NTC: NDArray[np.floating],
    thumbnails: Mapping[int, bytes] | None = None,
    log_probs: bool = True,
    further: Mapping[str, Any] | None = None,
) -> None:
    """Rows 'r<row_id>', best first, with further columns; their wide columns lie in two parts. The centre is 0."""
    order = np.argsort(row_ids)
    name = LOG_PROBS if log_probs else OUTPUTS
    ids = [f"r{i}" for i in row_ids]
    own = {"rank": range(1, len(ids) + 1), "row_id": row_ids, "key": pa.array(keys_of(ids)), "id": ids}
    _put(run, "shortlist/rows-0.parquet", pa.table({**own, **(further or {})}))
    parts = []
    for number, places in enumerate(np.array_split(order, 2)):
        of_part = [row_ids[i] for i in places]
        wide = wide_NTC[places].reshape(len(places), -1)
        table = pa.table(
            {
                "row_id": pa.array(of_part, pa.int64()),
                name: _lists(wide),
                FEATURES: _lists(features_NF[places]),
                THUMBNAIL: pa.array([(thumbnails or {}).get(i) for i in of_part], pa.binary()),
            }
        )
        file = f"shortlist/part-{number}.parquet"
        _put(run, file, table)
        parts.append({"name": file, "first": min(of_part), "last": max(of_part), "rows": len(of_part)})
    centre = io.BytesIO()
    np.save(centre, np.zeros(features_NF.shape[1]))
    run.storage.publish("shortlist/centre.npy", lambda file: file.write(centre.getvalue()))
    about = {
        "format": FORMAT,
        "table": "shortlist/rows-0.parquet",
        "parts": parts,
        "labelled": [],
        "centre": "shortlist/centre.npy",
        "passes": wide_NTC.shape[1],
        "log_probs": log_probs,
        "shared_masks": True,
        "missing": 0,
        "wanted": {"of": {"method": "topk", "score": "bald", "scores": scores_digest(run.reports())}},
    }
    run.storage.publish(ABOUT, lambda file: file.write(json.dumps(about).encode()))


def _lists(values_NF: NDArray[np.floating]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values_NF.astype(np.float32).ravel()), values_NF.shape[1])


def _put(run: RunDirectory, name: str, table: pa.Table) -> None:
    run.storage.publish(name, lambda file: pq.write_table(table, file))
