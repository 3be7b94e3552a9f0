"""All themes, in the order of the page."""

from __future__ import annotations

from page_parts import feeding, running, scoring, selecting
from page_parts.theme import Theme

THEMES = [
    Theme(
        "peers",
        "Beside other libraries",
        "Same weights, pool, T, batch size and threads; each in a process of its own, one at a time. Who reads Parquet "
        "is timed end to end, poolscore from plan to selection; the others have the pool decoded in memory.",
        scoring.peers,
        scoring.ratios_of_peers,
    ),
    Theme(
        "mnist",
        "The main job",
        "60,000 MNIST images (PNG in Parquet), small CNN, T=20, all scores, k=1,000.",
        scoring.main_job,
        scoring.ratios_of_main_job,
    ),
    Theme(
        "frontier",
        "The stochastic frontier",
        "From a batch in memory to all scores.",
        scoring.frontier,
        scoring.ratios_of_frontier,
    ),
    Theme(
        "row_stats",
        "From logits to scores",
        "Ours takes one thread, the others two.",
        scoring.row_stats,
        scoring.ratios_of_row_stats,
    ),
    Theme(
        "scaling",
        "One driver, many workers",
        "A sleep stands in for each worker's device: 2,000 rows/s, shards of 16,384 rows. All the rest is real.",
        running.scaling,
        running.ratios_of_scaling,
    ),
    Theme(
        "scaling_slow",
        "One driver, many workers, slow storage",
        "The same with 10,000 rows/s and 80 ms for each request of the journal, a record taking four, for ten seconds.",
        running.scaling,
        running.ratios_of_scaling,
    ),
    Theme(
        "feed_compare",
        "Feeding from JPEGs",
        "Two Ray workers; a bare pyarrow loop and Ray Data written well beside them.",
        feeding.feed,
        feeding.ratios_of_feed,
    ),
    Theme("feed_latency", "Storage that is far away", "S3 on loopback.", feeding.latency, feeding.ratios_of_latency),
    Theme(
        "feed_memory",
        "Memory of reading",
        "One shard of 500x375 JPEGs; `run.read_ahead` 134 MB for two.",
        feeding.memory,
    ),
    Theme("decode", "Decoding JPEGs", "One core.", feeding.decode, feeding.ratios_of_decode),
    Theme("plan", "Planning", "300 million rows; the second pool is a table of 33 TB.", feeding.plan),
    Theme("select", "Selecting", "From 200 million stored scores.", selecting.select, selecting.ratios_of_select),
    Theme(
        "batchbald", "BatchBALD", "Beside batchbald_redux 2.0.5.", selecting.batchbald, selecting.ratios_of_batchbald
    ),
    Theme("journal", "What the journal costs", "Nothing that is committed is ever lost.", running.journal),
    Theme("recovery", "What a dead machine costs", "Shards of about a second.", running.recovery),
]
