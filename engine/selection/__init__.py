"""The batch to label, from the committed scores: exact, by chance, and compared. Needs neither torch nor Ray."""
