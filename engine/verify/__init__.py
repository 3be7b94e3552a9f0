"""Are the scores of a run what the definitions say? A few rows are scored again, by the plain way."""
