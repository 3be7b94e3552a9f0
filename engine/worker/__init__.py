"""A worker: its model, and what becomes of a shard there: read, decoded, inferred, reduced, committed."""
