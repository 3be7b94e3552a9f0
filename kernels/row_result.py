"""What the score kernels return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RowStats:
    """Scores and predictions of a batch of N rows.

    Floats are float64 for float64 logits, else float32. Where `finite` is False the row's other values are unspecified:
    count the row and set it aside, never rank it.
    """

    scores: dict[str, Tensor]  # name -> [N], only what was asked for
    prediction: Tensor  # int64 [N]; regression: float [N, D]
    confidence: Tensor | None  # float [N], the mean probability of the prediction; regression: None
    finite: Tensor  # bool [N]
