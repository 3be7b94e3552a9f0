"""Was it worth it? A batch against its hidden control; intervals against published ones; the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from poolscore.engine.errors import ConfigError
from poolscore.jobs.cli import app
from poolscore.jobs.label import import_labels, verdict, was_it_worth_it
from poolscore.jobs.label.intervals import contrast, mean, wilson
from poolscore.jobs.tasks import export_tasks, read_tasks


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_newcombe_printed_it(hits: int, rows: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3."""
    found = wilson(hits, rows)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.value == hits / rows


@pytest.mark.parametrize(
    ("a", "m", "b", "n", "low", "high"),
    [
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (5, 56, 0, 29, -0.0381, 0.1926),
        (10, 10, 0, 20, 0.6791, 1.0),
        (10, 10, 0, 10, 0.6075, 1.0),
    ],
)
def test_a_difference_as_newcombe_printed_it(a: int, m: int, b: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10."""
    found = contrast(wilson(a, m), wilson(b, n))
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_means_have_the_usual_interval() -> None:
    a, b = mean([1.0, 2.0, 3.0]), mean([0.0, 0.0, 1.0, 1.0])
    assert (a.value, a.high - a.value) == (2.0, pytest.approx(1.96 * (1 / 3) ** 0.5, rel=1e-4))
    between = contrast(a, b)
    assert between.high - between.difference == pytest.approx(1.96 * (1 / 3 + (1 / 3) / 4) ** 0.5, rel=1e-4)


Labelled = Callable[..., tuple[str, str]]


@pytest.fixture
def labelled(finished_run: str, tmp_path: Path) -> Labelled:
    """A batch of 120 of 150 rows, and labels: what `answer` says to a row of the batch; None: none yet."""

    def label(answer: Callable[[dict[str, Any]], str | None], control: float = 0.3) -> tuple[str, str]:
        out, labels, name = str(tmp_path / "tasks"), str(tmp_path / "labels.parquet"), tmp_path.name
        options = ["--name", name, "--k", "120", "--control", str(control)]
        assert CliRunner().invoke(app, ["select", finished_run, *options]).exit_code == 0
        batch = f"{finished_run}/selections/{name}.parquet"
        export_tasks(batch, out, "jsonl", classes=list("0123456789"))
        rows = {row["id"]: row for row in pq.read_table(batch).to_pylist()}
        tasks = read_tasks(out)
        named = zip(tasks.names, tasks.ids.to_pylist(), strict=True)
        lines = [json.dumps({"task": task, "label": answer(rows[i])}) for task, i in named]
        (tmp_path / "answers.jsonl").write_text("\n".join(lines))
        import_labels(out, str(tmp_path / "answers.jsonl"), labels)
        return batch, labels

    return label


def wrong(row: dict[str, Any]) -> str:
    return str((row["prediction"] + 1) % 10)


def test_errors_and_rare_classes_against_the_control(labelled: Labelled) -> None:
    places: dict[bool, int] = {True: 0, False: 0}

    def answer(row: dict[str, Any]) -> str:
        """Wrong: 3 of 5 chosen rows, 1 of 5 control rows."""
        control = row["method"] == "control"
        places[control] += 1
        return wrong(row) if places[control] % 5 < (1 if control else 3) else str(row["prediction"])

    batch, labels = labelled(answer)
    worth = was_it_worth_it(batch, labels, rare=["3", "4"])
    assert (worth.rows, worth.control_rows, worth.labelled, worth.control_labelled) == (120, 36, 84, 36)
    assert worth.errors.batch == wilson(50, 84)
    assert worth.errors.control == wilson(7, 36)
    assert worth.errors.contrast is not None
    assert worth.errors.contrast.low > 0
    said = verdict(worth)
    assert said[0] == (
        "rows that the model gets wrong: 59.5 % (48.8 % to 69.4 %) of the chosen rows, "
        "19.4 % (9.8 % to 35.0 %) of the control: more, by 40.1 % (21.2 % to 53.9 %)"
    )
    table = pq.read_table(labels)
    chosen = {r["id"] for r in pq.read_table(batch).to_pylist() if r["method"] != "control"}
    rare = sum(r["label"] in ("3", "4") and r["id"] in chosen for r in table.to_pylist())
    assert worth.rare_yield is not None
    assert worth.rare_yield.batch == wilson(rare, 84)
    assert said[1].startswith("rows of a rare class (3, 4): ")
    assert sum(each.batch.value for each in worth.classes.values() if each.batch) == pytest.approx(1)
    by_prediction = was_it_worth_it(batch, labels)
    assert set(by_prediction.rare) < {str(i) for i in range(10)}
    with pytest.raises(ConfigError, match="--rare zebra: is no class"):
        was_it_worth_it(batch, labels, rare=["zebra"])


def test_no_difference_is_called_none(labelled: Labelled) -> None:
    batch, labels = labelled(lambda row: wrong(row) if row["key"] % 2 else str(row["prediction"]))
    assert "which chance alone may have made" in verdict(was_it_worth_it(batch, labels))[0]


def test_without_control_or_with_few_rows_it_says_so(labelled: Labelled) -> None:
    batch, labels = labelled(wrong, control=0.0)
    said = verdict(was_it_worth_it(batch, labels))
    assert said[0].startswith("there is no control in this batch, so nobody can say")
    assert said[1] == "rows that the model gets wrong: 100.0 % (96.9 % to 100.0 %) of the chosen rows"


@pytest.mark.parametrize(
    ("control_labelled", "first"),
    [
        (True, "too few to decide much by: 114 chosen rows and 6 control rows have labels"),
        (False, "none of the 6 control"),
    ],
)
def test_a_small_or_unlabelled_control(labelled: Labelled, control_labelled: bool, first: str) -> None:
    batch, labels = labelled(lambda r: wrong(r) if control_labelled or r["method"] != "control" else None, control=0.05)
    assert verdict(was_it_worth_it(batch, labels))[0].startswith(first)


def test_the_commands(labelled: Labelled, tmp_path: Path) -> None:
    batch, labels = labelled(lambda row: wrong(row) if row["key"] % 3 else None)

    def poolscore(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    tasks, answers = str(tmp_path / "tasks"), str(tmp_path / "answers.jsonl")
    shown = " ".join(poolscore("label", "import", tasks, answers, "--labels", labels).split())
    count = len(pq.read_table(labels))
    assert (
        f"{count} answers, 0 of them new; of the export {count} labelled, 0 skipped, 0 disputed, {120 - count} pending"
        in shown
    )
    found = json.loads(poolscore("label", "import", tasks, answers, "--labels", labels, "--json"))
    assert (found["labelled"], found["new"]) == (count, 0)
    shown = " ".join(poolscore("label", "status", tasks, "--labels", labels).split())
    assert f"120 sent; {count} labelled, 0 skipped, 0 disputed, {120 - count} pending" in shown
    assert json.loads(poolscore("label", "status", tasks, "--json"))[0]["pending"] == 120
    shown = " ".join(poolscore("label", "worth", batch, "--labels", labels).split())
    assert "rows are labelled; intervals are 95 %" in shown
    assert "- rows that the model gets wrong: 100.0 %" in shown
    assert json.loads(poolscore("label", "worth", batch, "--labels", labels, "--json"))["errors"]["batch"]["value"] == 1
    with pytest.raises(ConfigError, match="there are no labels"):
        was_it_worth_it(batch, str(tmp_path / "none.parquet"))


def test_neither_torch_nor_ray_is_imported(finished_run: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    script = f"""
import sys
from poolscore.jobs.tasks import export_tasks
from poolscore.jobs.label import import_labels
export_tasks({finished_run!r}, {str(tmp_path / "out")!r}, "csv")
loaded = {{"torch", "ray"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
