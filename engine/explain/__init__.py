"""Why a row of a run is where it is, from the run directory alone: no GPU, no model, no pool, no torch."""
