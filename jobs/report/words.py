"""What scores and states are called on the page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreWords:
    """A score for people."""

    title: str
    unit: str  # "" for a plain number
    meaning: str


_WORDS = {
    "entropy": ScoreWords("Entropy", "nats", "how undecided the mean prediction is"),
    "expected_entropy": ScoreWords("Expected entropy", "nats", "how undecided a single pass is on average"),
    "bald": ScoreWords("BALD", "nats", "mutual information: how much the passes disagree"),
    "variation_ratio": ScoreWords("Variation ratio", "", "share of passes that vote against the commonest class"),
    "mean_std": ScoreWords("Mean deviation", "", "spread of the probabilities over the passes"),
    "least_confidence": ScoreWords("Least confidence", "", "1 − probability of the predicted class"),
    "margin": ScoreWords("Margin", "", "1 − lead of the best class over the second"),
    "predictive_variance": ScoreWords("Predictive variance", "squared units of the output", "spread of the output"),
    "prediction": ScoreWords("Predicted value", "", "mean over the passes"),
    "random": ScoreWords("Random", "", "drawn from the row's key and the seed"),
}


def words_of(score: str) -> ScoreWords:
    """Title, unit and meaning; a score that is not known here is called by its name."""
    return _WORDS.get(score, ScoreWords(score, "", ""))
