"""The best rows of a run, inferred once more: what selections, reports and explanations need beside scores."""
