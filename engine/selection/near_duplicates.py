"""How alike are the rows of a batch? Top-k by a score alone tends to pick the same thing again and again.

Rows are compared in blocks, so memory beside the features is their unit vectors as float32 and a few blocks of BLOCK x
BLOCK cosines. 20,000 rows of 2,048 features, none like another, are 8e11 operations.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.95  # cosine from which two rows count as near-duplicates
BLOCK = 2048  # rows that are compared at a time


def near_duplicate_rate(
    features_NF: NDArray[np.floating], centre_F: NDArray[np.floating], alike: float = ALIKE
) -> float:
    """Share of `repeated` rows; nan for fewer than two rows."""
    return float(repeated(features_NF, centre_F, alike).mean()) if len(features_NF) > 1 else float("nan")


def repeated(
    features_NF: NDArray[np.floating], centre_F: NDArray[np.floating], alike: float = ALIKE
) -> NDArray[np.bool_]:
    """[N] which rows have a near-duplicate earlier in the batch: labelling them teaches little more.

    Args:
        features_NF: one vector a row, in the order of the batch.
        centre_F: mean of many rows of the pool. It is subtracted first: features behind a ReLU all point the same way.
        alike: smallest cosine of two near-duplicates.
    """
    unit = directions(features_NF, centre_F)
    repeated_N = np.zeros(len(unit), bool)
    for block in _blocks(0, len(unit)):
        repeated_N[block] = np.tril(are_alike(unit[block], unit[block], alike), k=-1).any(axis=1)
        for earlier in _blocks(0, int(block[0])):
            open_M = block[~repeated_N[block]]
            repeated_N[open_M] = are_alike(unit[open_M], unit[earlier], alike).any(axis=1)
    return repeated_N


def clusters(
    features_NF: NDArray[np.floating], centre_F: NDArray[np.floating], alike: float = ALIKE
) -> NDArray[np.int64]:
    """Clusters of near-duplicates: in the order given, a row joins the first leader that it resembles, else it leads
    its own. So no two leaders are near-duplicates.

    Args:
        features_NF, centre_F, alike: see `repeated`.

    Returns:
        [N] the place of each row's leader, which is its own place where it leads.
    """
    unit = directions(features_NF, centre_F)
    leader_N = np.full(len(unit), -1, np.int64)
    for block in _blocks(0, len(unit)):
        open_M = block[leader_N[block] < 0]  # the others resemble a leader of an earlier block
        alike_MM = are_alike(unit[open_M], unit[open_M], alike)
        for i, place in enumerate(open_M):
            if leader_N[place] < 0:
                leader_N[open_M[alike_MM[i] & (leader_N[open_M] < 0)]] = place
                leader_N[place] = place  # also a row without a direction, which does not even resemble itself
        leaders_L = open_M[leader_N[open_M] == open_M]
        for later in _blocks(int(block[-1]) + 1, len(unit) if len(leaders_L) else 0):
            open_M = later[leader_N[later] < 0]
            alike_ML = are_alike(unit[open_M], unit[leaders_L], alike)
            joins = alike_ML.any(axis=1)
            leader_N[open_M[joins]] = leaders_L[alike_ML[joins].argmax(axis=1)]
    return leader_N


def cosines(features_NF: NDArray[np.floating], centre_F: NDArray[np.floating], place: int) -> NDArray[np.float64]:
    """[N] cosine of each row with the row at `place`, about the centre; 1 where both are the centre itself."""
    unit = directions(features_NF, centre_F)
    found: NDArray[np.float64] = unit.astype(np.float64) @ unit[place].astype(np.float64)
    return np.clip(found, -1.0, 1.0)


def directions(features_NF: NDArray[np.floating], centre_F: NDArray[np.floating]) -> NDArray[np.float32]:
    """Unit vectors [N, F + 1] from the centre. Rows at the centre point to the last dimension, which is theirs alone;
    rows that are not finite have no direction (0)."""
    N, F = features_NF.shape
    unit = np.zeros((N, F + 1), np.float32)
    for block in _blocks(0, N):
        with np.errstate(invalid="ignore", over="ignore"):
            centred = features_NF[block].astype(np.float64) - centre_F
            lengths = np.linalg.norm(centred, axis=1)
        at_centre, finite = lengths == 0, np.isfinite(lengths)
        usable = finite & ~at_centre
        unit[block[usable], :F] = centred[usable] / lengths[usable, None]
        unit[block[at_centre], F] = 1
    return unit


def are_alike(a_MF: NDArray[np.float32], b_LF: NDArray[np.float32], alike: float = ALIKE) -> NDArray[np.bool_]:
    """[M, L] whether the cosine of two `directions` is at least `alike`. Rows whose float32 products leave it in doubt
    are multiplied in float64, so the answer does not depend on the order in which a library adds up."""
    cosine_ML = a_MF @ b_LF.T
    alike_ML: NDArray[np.bool_] = cosine_ML >= alike
    error = a_MF.shape[1] * 2.0**-23  # of a sum of F products of unit vectors, at most
    doubtful = (np.abs(cosine_ML - np.float32(alike)) <= error).any(axis=1)
    if doubtful.any():
        alike_ML[doubtful] = a_MF[doubtful].astype(np.float64) @ b_LF.T.astype(np.float64) >= alike
    return alike_ML


def _blocks(start: int, stop: int) -> Iterator[NDArray[np.int64]]:
    """Places from start to stop, BLOCK at a time."""
    for first in range(start, stop, BLOCK):
        yield np.arange(first, min(first + BLOCK, stop))
