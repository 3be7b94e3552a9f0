"""Tables of choosing the batch."""

from __future__ import annotations

from page_parts.theme import Result, rows_to_table


def select(result: Result) -> str:
    """200 million stored scores."""
    head = ["scores", "method", "k", "found, s", "by reading the column", "written, s", "peak, MiB"]
    rows = (
        [
            one["pool"],
            one["method"],
            one["k"],
            one["seconds"]["found"],
            one["times_read"]["found"],
            one["seconds"].get("written", ""),
            one["MiB"]["peak"],
        ]
        for one in result["results"]
    )
    return rows_to_table(head, rows)


def ratios_of_select(result: Result) -> dict[str, float]:
    """Finding by reading."""
    return {
        f"{one['pool']}, {one['method']}, k={one['k']:,}": one["times_read"]["found"]
        for one in result["results"]
        if one["method"] != "read"
    }


def batchbald(result: Result) -> str:
    """Beside batchbald_redux."""
    head = [
        "candidates, T, C, batch",
        "poolscore, s",
        "batchbald_redux, s",
        "times faster",
        "rows that are exact, equal",
    ]
    rows = (
        [
            f"{case['candidates']:,}, {case['passes']}, {case['classes']}, {case['batch']}",
            *case["median"].values(),
            case["times_faster"],
            f"{case['exact_rows']}, {'yes' if case['same_picks_while_exact'] else 'no'}",
        ]
        for case in result["cases"].values()
    )
    return rows_to_table(head, rows)


def ratios_of_batchbald(result: Result) -> dict[str, float]:
    """batchbald_redux by ours."""
    return {f"batchbald_redux / ours, {name}": case["times_faster"] for name, case in result["cases"].items()}
