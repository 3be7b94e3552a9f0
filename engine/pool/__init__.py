"""The pool: which files there are, how they are cut into shards, and how a shard is read."""
