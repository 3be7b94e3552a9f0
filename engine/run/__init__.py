"""A run: its directory and journal, the loop that hands out shards, and the fleets of workers that score them."""
