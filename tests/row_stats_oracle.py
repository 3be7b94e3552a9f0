"""The score table once more, in float64, one row at a time with math.fsum: slow, and written unlike the kernel.

Probabilities and their logarithms come from the textbook formulas (exp of logit minus log-sum-exp), entropies are sums
of -p ln p, the Bernoulli case is the softmax case of the logits (0, z).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float64]


def oracle(logits_NTC: Logits, task: str, reduce: str = "sum", predicts_noise: bool = False) -> dict[str, Logits]:
    """Every score of the task for good rows [N, T, C] of float64, as name -> float64 [N]."""
    rows = [_row(row_TC.tolist(), task, reduce, predicts_noise) for row_TC in logits_NTC]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _row(row_TC: list[list[float]], task: str, reduce: str, predicts_noise: bool) -> dict[str, float]:
    if task == "multiclass":
        return _categorical(row_TC)
    if task == "regression":
        return {"predictive_variance": _variance(row_TC, predicts_noise)}
    labels = [_categorical([[0.0, row[c]] for row in row_TC]) for c in range(len(row_TC[0]))]
    if task == "binary":
        return labels[0]
    combine = math.fsum if reduce == "sum" else max
    scores = {name: combine([label[name] for label in labels]) for name in ("entropy", "expected_entropy", "bald")}
    return scores | {"mean_std": math.fsum(label["mean_std"] for label in labels) / len(labels)}


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities; infinite logits of the Bernoulli case are replaced by ones far beyond exp's range."""
    finite = [min(z, 1e5) for z in logits]
    top = max(finite)
    log_norm = top + math.log(math.fsum(math.exp(z - top) for z in finite))
    return [math.exp(z - log_norm) for z in finite]


def entropy(p: Sequence[float]) -> float:
    return math.fsum(-x * math.log(x) for x in p if x > 0)


def _categorical(row_TC: list[list[float]]) -> dict[str, float]:
    T, C = len(row_TC), len(row_TC[0])
    p_TC = [softmax(row) for row in row_TC]
    mean = [math.fsum(p[c] for p in p_TC) / T for c in range(C)]
    expected = math.fsum(entropy(p) for p in p_TC) / T
    votes = Counter(row.index(max(row)) for row in row_TC)
    deviations = [math.sqrt(math.fsum((p[c] - mean[c]) ** 2 for p in p_TC) / T) for c in range(C)]
    ranked = sorted(mean, reverse=True)
    scores = {
        "entropy": entropy(mean),
        "expected_entropy": expected,
        "bald": max(entropy(mean) - expected, 0.0),
        "variation_ratio": 1 - max(votes.values()) / T,
        "mean_std": math.fsum(deviations) / C,
        "least_confidence": 1 - ranked[0],
    }
    return scores | ({"margin": 1 - (ranked[0] - ranked[1])} if C > 1 else {})


def _variance(row_TC: list[list[float]], predicts_noise: bool) -> float:
    T = len(row_TC)
    D = len(row_TC[0]) // 2 if predicts_noise else len(row_TC[0])
    total = []
    for d in range(D):
        y = [row[d] for row in row_TC]
        mean = math.fsum(y) / T
        total.append(math.fsum((v - mean) ** 2 for v in y) / T)
        if predicts_noise:
            total.append(math.fsum(math.exp(row[D + d]) for row in row_TC) / T)
    return math.fsum(total)
