"""Tables of running a job: many workers, committing, machines that die."""

from __future__ import annotations

from page_parts.theme import Result, rows_to_table


def scaling(result: Result) -> str:
    """Workers and the driver."""
    head = ["workers", "shards/s", "records/s", "efficiency", "driver, cores", "driver, ms a shard"]
    keys = ("workers", "shards_per_second", "records_per_second", "efficiency", "driver_cores", "driver_ms_per_shard")
    return rows_to_table(head, ([one[key] for key in keys] for one in result["results"]))


def ratios_of_scaling(result: Result) -> dict[str, float]:
    """Efficiency."""
    return {f"efficiency, {one['workers']} workers": one["efficiency"] for one in result["results"]}


def journal(result: Result) -> str:
    """What committing costs."""
    head = [
        "",
        "part, ms",
        "look, ms",
        "record, ms",
        "shards/s by single records",
        "in groups of 64",
        "share of a 60 s shard",
    ]
    head += ["resume of 5,000 shards, s", "requests"]
    rows = (
        [
            where,
            one["commit_ms"],
            one["look_ms"],
            one["record_ms"],
            one["shards_per_second"],
            one["shards_per_second_in_groups"],
            f"{one['share_of_shard']:.2%}",
            one["one epoch"]["resume_seconds"],
            one["one epoch"]["requests"],
        ]
        for where, one in result["results"].items()
    )
    return rows_to_table(head, rows)


def recovery(result: Result) -> str:
    """After the death of a machine."""
    head = ["seconds after a machine's death", "median", "worst"]
    says = {"known": "known", "handed_out_again": "its shards have begun elsewhere", "done_again": "and are done"}
    rows = ([text, result["median"][key], max(one[key] for one in result["seconds"])] for key, text in says.items())
    return rows_to_table(head, rows)
