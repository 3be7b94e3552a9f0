"""A batch handed over to people: what they see, what they do not, and what odd ids and classes cannot do."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_pool
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import read_ids
from poolscore.engine.keys import keys_of
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.find import find_files
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool
from poolscore.engine.storage.local import LocalStorage
from poolscore.engine.storage.open import open_storage
from poolscore.jobs.cli import app
from poolscore.jobs.tasks import export_tasks, read_tasks
from poolscore.jobs.tasks.names import folder_name, guarded, unguarded
from poolscore.jobs.tasks.rows import read_rows

CLASSES = [f"digit {i}" for i in range(10)]


def pictures_of(pool: Path) -> dict[str, bytes]:
    table = pq.read_table(pool)
    return dict(zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True))


def batch_of(run: str) -> pa.Table:
    return pq.read_table(f"{run}/selection.parquet")


@pytest.mark.parametrize("to", ["labelstudio", "cvat", "csv", "jsonl", "folder"])
def test_pictures_have_their_bytes_and_people_see_nothing_else(finished_run: str, tmp_path: Path, to: str) -> None:
    out = tmp_path / "out"
    done = export_tasks(finished_run, str(out), to, classes=CLASSES)
    assert (done.rows, done.again) == (5, False)
    tasks, batch = read_tasks(str(out)), batch_of(finished_run)
    assert sorted(tasks.ids.to_pylist()) == sorted(batch["id"].to_pylist())
    pictures = pictures_of(Path(finished_run).parent / "pool")
    for name, row in zip(tasks.names, tasks.ids.to_pylist(), strict=True):
        assert (out / "files" / f"{name}.png").read_bytes() == pictures[row]
    assert len([*(out / "files").glob("*.png")]) == 5
    handed = "".join((out / file).read_text() for file in done.files)
    assert "prediction" not in handed
    assert "score" not in handed.replace("poolscore", "")
    assert "<tag " not in handed


def test_the_order_is_the_seeds_and_not_that_of_rank(digit_config: Callable[..., Config], tmp_path: Path) -> None:
    config = digit_config(select={"k": 50})
    run = score_pool(config).run_dir
    ranked = batch_of(run)["id"].to_pylist()
    orders = []
    for i, seed in enumerate((0, 0, 1)):
        export_tasks(run, str(tmp_path / str(i)), "csv", seed=seed)
        orders.append(read_tasks(str(tmp_path / str(i))).ids.to_pylist())
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in (*orders, ranked)}) == 3
    places = [ranked.index(i) for i in orders[0]]
    assert abs(np.corrcoef(places, range(50))[0, 1]) < 0.3


def test_again_writes_nothing_and_another_selection_is_refused(finished_run: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_tasks(finished_run, str(out), "csv")
    (out / "tasks.csv").write_text("filled in by people")
    assert export_tasks(finished_run, str(out), "csv").again
    assert (out / "tasks.csv").read_text() == "filled in by people"
    for other in ({"seed": 1}, {"predictions": True}, {"to": "jsonl"}):
        with pytest.raises(ConfigError, match=r"holds another export \(selection.parquet, 5 rows, --to csv\)"):
            export_tasks(finished_run, str(out), **{"to": "csv", **other})
    shutil.rmtree(out)
    out.mkdir()
    (out / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"holds other files \(thesis.tex, …\)"):
        export_tasks(finished_run, str(out), "csv")


def test_an_export_that_was_stopped_goes_on(finished_run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, publish = str(tmp_path / "out"), LocalStorage.publish

    def stopped(self: LocalStorage, name: str, fill: Any) -> None:
        if name == "tasks.jsonl":
            raise KeyboardInterrupt
        publish(self, name, fill)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "publish", stopped)
        with pytest.raises(KeyboardInterrupt):
            export_tasks(finished_run, out, "jsonl")
    assert not export_tasks(finished_run, out, "jsonl").again
    assert len((tmp_path / "out" / "tasks.jsonl").read_text().splitlines()) == 5


def test_predictions_on_request(finished_run: str, tmp_path: Path) -> None:
    predicted = {row["id"]: CLASSES[row["prediction"]] for row in batch_of(finished_run).to_pylist()}
    for to in ("labelstudio", "cvat", "csv", "jsonl"):
        export_tasks(finished_run, str(tmp_path / to), to, classes=CLASSES, predictions=True)
    ids = dict(
        zip(read_tasks(str(tmp_path / "cvat")).names, read_tasks(str(tmp_path / "cvat")).ids.to_pylist(), strict=True)
    )
    studio = json.loads((tmp_path / "labelstudio/labelstudio.json").read_text())
    assert {t["data"]["pool_id"]: t["predictions"][0]["result"][0]["value"]["choices"] for t in studio} == {
        i: [label] for i, label in predicted.items()
    }
    assert studio[0]["predictions"][0]["result"][0]["from_name"] == "label"
    images = ET.parse(tmp_path / "cvat/annotations.xml").getroot().findall("image")
    assert {ids[i.get("name", "")[:16]]: i.find("tag").get("label") for i in images} == predicted  # type: ignore[union-attr]
    assert images[0].get("width") == "8"
    rows = csv.DictReader(io.StringIO((tmp_path / "csv/tasks.csv").read_text()))
    how = (tmp_path / "csv/how-to-label.txt").read_text()
    assert "into 'label', as it stands here:\n" + "".join(f"  {c}\n" for c in CLASSES) in how
    assert "_skip says that a row cannot be labelled" in how
    assert "poolscore label import FOLDER tasks.csv --labels labels.parquet" in how
    assert {row["id"]: row["prediction"] for row in rows} == predicted
    lines = [json.loads(line) for line in (tmp_path / "jsonl/tasks.jsonl").read_text().splitlines()]
    assert {line["id"]: line["prediction"] for line in lines} == predicted
    with pytest.raises(ConfigError, match="nobody could tell which pictures were looked at"):
        export_tasks(finished_run, str(tmp_path / "f"), "folder", classes=CLASSES, predictions=True)


def test_urls_and_other_columns_need_only_what_they_name(digit_config: Callable[..., Config], tmp_path: Path) -> None:
    config = digit_config()
    pool = Path(config.pool.uri)
    table = pq.read_table(pool)
    urls = [f"https://pictures/{i}.png?a=1&b=2" for i in table["id"].to_pylist()]
    notes = [f"note {i}" for i in table["id"].to_pylist()]
    shutil.rmtree(pool)
    write_pool(pool, table.append_column("image_url", pa.array(urls)).append_column("note", pa.array(notes)))
    config = digit_config(pool={**config.pool.model_dump(mode="json"), "keep": ["image_url"], "inputs": {}})
    run = score_pool(config).run_dir
    export_tasks(run, str(tmp_path / "noted"), "labelstudio", classes=CLASSES, url_column="image_url", show=["note"])
    data = [task["data"] for task in json.loads((tmp_path / "noted/labelstudio.json").read_text())]
    assert all(d["note"] == f"note {d['pool_id']}" for d in data)
    shutil.rmtree(pool)
    export_tasks(run, str(tmp_path / "urls"), "labelstudio", classes=CLASSES, url_column="image_url")
    data = [task["data"] for task in json.loads((tmp_path / "urls/labelstudio.json").read_text())]
    assert all(d["image_url"] == f"https://pictures/{d['pool_id']}.png?a=1&b=2" for d in data)
    assert not (tmp_path / "urls/files").exists()
    export_tasks(run, str(tmp_path / "kept"), "jsonl", show=["image_url"])
    lines = [json.loads(line) for line in (tmp_path / "kept/tasks.jsonl").read_text().splitlines()]
    assert all(line["data"] == {"image_url": f"https://pictures/{line['id']}.png?a=1&b=2"} for line in lines)
    with pytest.raises(ConfigError, match=r"--url-column label: is no column of pool.keep; kept are: image_url"):
        export_tasks(run, str(tmp_path / "x"), "csv", url_column="label")
    with pytest.raises(ConfigError, match=r"the pool of .* is needed, and .*part-0.parquet cannot be read"):
        export_tasks(run, str(tmp_path / "x"), "csv")


def test_a_pool_with_other_rows_is_noticed(digit_config: Callable[..., Config], tmp_path: Path) -> None:
    config = digit_config()
    run = score_pool(config).run_dir
    pool = Path(config.pool.uri)
    table = pq.read_table(pool)
    shutil.rmtree(pool)
    write_pool(pool, table.set_column(0, "id", pa.array([f"other-{i:04d}" for i in range(len(table))])))
    with pytest.raises(ConfigError, match=r"holds other rows than those that were scored|has changed since"):
        export_tasks(run, str(tmp_path / "out"), "csv")


def test_another_key_is_another_row(finished_run: str) -> None:
    batch, run = batch_of(finished_run), RunDirectory(finished_run)
    with pytest.raises(ConfigError, match="holds other rows than those that were scored"):
        [*read_rows(run, ["id"], batch["row_id"].to_numpy(), batch["key"].to_numpy() + np.uint64(1))]
    with pytest.raises(ConfigError, match="row 100000 is in no shard"):
        [*read_rows(run, ["id"], np.array([100_000]), np.array([1], np.uint64))]


def test_selections_over_several_runs(finished_run: str, tmp_path: Path) -> None:
    """Each row is read from its own run's pool."""
    for name, created in (("a", "2026-01-01T00:00:00+00:00"), ("b", "2026-01-02T00:00:00+00:00")):
        shutil.copytree(finished_run, tmp_path / name)
        about = json.loads((tmp_path / name / "run.json").read_text())
        (tmp_path / name / "run.json").write_text(json.dumps({**about, "created": created, "id": name}))
    runs = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert CliRunner().invoke(app, ["select", *runs, "--name", "both", "--k", "9"]).exit_code == 0
    export_tasks(runs[0], str(tmp_path / "out"), "csv", name="both")
    tasks = read_tasks(str(tmp_path / "out"))
    assert tasks.runs == tuple(runs)
    assert {tasks.run_ids[run] for run in tasks.of_run} == {"b"}
    assert len([*(tmp_path / "out/files").iterdir()]) == 9


def test_a_pool_without_ids(digit_config: Callable[..., Config], tmp_path: Path) -> None:
    pool = digit_config().pool.model_dump(mode="json")
    run = score_pool(digit_config(pool={**pool, "id": None, "keep": [], "inputs": {}}, select={"k": 7})).run_dir
    export_tasks(run, str(tmp_path / "out"), "csv")
    for i, name in zip(
        read_tasks(str(tmp_path / "out")).ids.to_pylist(), read_tasks(str(tmp_path / "out")).names, strict=True
    ):
        path, _, row = i.partition("#")
        there = pq.read_table(Path(pool["uri"]) / path)["image"][int(row)].as_py()
        assert (tmp_path / "out/files" / f"{name}.png").read_bytes() == there


def test_rows_are_read_in_blocks_and_no_row_group_without_one_is(finished_run: str, rows_read: list[int]) -> None:
    run = RunDirectory(finished_run)
    batch = batch_of(finished_run).slice(0, 2)
    found = [*read_rows(run, ["id"], batch["row_id"].to_numpy(), batch["key"].to_numpy())]
    ids = {
        place: i for places, table in found for place, i in zip(places.tolist(), table["id"].to_pylist(), strict=True)
    }
    assert [ids[0], ids[1]] == batch["id"].to_pylist()
    assert sorted(rows_read) == sorted(batch["row_id"].to_pylist())


ODD = [
    "../../x",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "a\nb\r\nc",
    "quote \" ' `",
    "ünï\U0001f600",
    "'",
    "x" * 300,
]


@pytest.fixture
def odd_run(finished_run: str, tmp_path: Path) -> str:
    """A run whose ids would do harm as paths, pages or formulas; its pool holds text."""
    folder = tmp_path / "odd"
    pool = write_pool(folder / "pool", pa.table({"id": ODD, "text": [f"{i} -- & <b>" for i in ODD], "n": range(8)}), 1)
    shutil.copytree(finished_run, folder / "run")
    about = json.loads((folder / "run/run.json").read_text())
    about["config"]["pool"] |= {"uri": str(pool), "keep": [], "input": None, "decode": {"kind": "image"}}
    about["config"]["pool"]["inputs"] = {
        "t": {"kind": "text", "column": "text", "length": 9, "tokenizer": "t.json"},
        "n": {"kind": "features", "columns": ["n"]},
    }
    about["config"]["model"]["classes"] = ODD
    (folder / "run/run.json").write_text(json.dumps(about))
    (folder / "run/plan.parquet").write_bytes(make_plan(find_files(str(pool), "pool.uri"), 100).to_parquet())
    batch = batch_of(finished_run).slice(0, 0)
    columns: dict[str, Any] = {"row_id": range(8), "key": keys_of(ODD), "id": ODD, "prediction": range(8)}
    columns |= {"confidence": [0.5] * 8, "method": ["topk"] * 8, "score": [1.0] * 8, "score_name": ["bald"] * 8}
    columns |= {"rank": range(1, 9)}
    names = [name for name in batch.column_names if name in columns]
    pq.write_table(pa.table({name: columns[name] for name in names}), folder / "run/selection.parquet")
    return str(folder / "run")


@pytest.mark.parametrize("to", ["labelstudio", "csv", "jsonl"])
def test_odd_ids_do_no_harm(odd_run: str, tmp_path: Path, to: str) -> None:
    before = set(tmp_path.rglob("*"))
    out = tmp_path / "deep/er/out"
    export_tasks(odd_run, str(out), to)
    new = set(tmp_path.rglob("*")) - before
    assert all(p.is_relative_to(tmp_path / "deep") for p in new)
    assert all(p.name.isascii() and len(p.name) < 40 for p in new)
    assert sorted(read_tasks(str(out)).ids.to_pylist()) == sorted(ODD)
    if to == "csv":
        rows = list(csv.reader(io.StringIO((out / "tasks.csv").read_bytes().decode(), newline="")))
        assert all(cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n") for row in rows for cell in row)
        assert sorted(unguarded(row[1]) for row in rows[1:]) == sorted(ODD)
    if to == "jsonl":
        lines = [json.loads(line) for line in (out / "tasks.jsonl").read_text().splitlines()]
        assert {line["id"]: line["data"]["text"] for line in lines} == {i: f"{i} -- & <b>" for i in ODD}
    if to == "labelstudio":
        data = [task["data"] for task in json.loads((out / "labelstudio.json").read_text())]
        assert {d["pool_id"]: (d["text"], d["values"]["n"]) for d in data} == {
            i: (f"{i} -- & <b>", n) for n, i in enumerate(ODD)
        }
        config = ET.parse(out / "labelstudio.xml").getroot()
        assert [choice.get("value") for choice in config.iter("Choice")] == ODD
        assert [(e.tag, e.get("value")) for e in config[:2]] == [("Text", "$text"), ("Table", "$values")]


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_a_guarded_cell_is_no_formula_and_is_found_again(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert guarded(text)[:1] not in tuple("=+-@\t\r\n＝＋－＠")


@given(st.integers(0, 999), st.text())
def test_the_folder_of_a_class_is_one_plain_name(number: int, label: str) -> None:
    name = folder_name(number, label)
    assert name.isascii()
    assert not {"/", "\\", "."} & set(name)
    assert 0 < len(name) < 70
    assert name.startswith(f"{number:03d}")


def test_what_xml_cannot_hold_is_refused(odd_run: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.classes: 'a\\x00' holds the character '\\x00', which XML cannot"):
        export_tasks(odd_run, str(tmp_path / "out"), "labelstudio", classes=["a\0", *"bcdefgh"])
    with pytest.raises(ConfigError, match="--classes: 2 names are given, the model has 8 classes"):
        export_tasks(odd_run, str(tmp_path / "out"), "labelstudio", classes=["a", "b"])


def test_object_storage(finished_run: str, bucket: str) -> None:
    done = export_tasks(finished_run, f"{bucket}/out", "labelstudio", classes=CLASSES)
    assert export_tasks(finished_run, f"{bucket}/out", "labelstudio", classes=CLASSES).again
    storage = open_storage(f"{bucket}/out")
    data = json.loads(storage.read(done.files[0]))[0]["data"]
    assert data["image"] == f"{bucket}/out/files/{data['task']}.png"
    assert storage.read(f"files/{data['task']}.png") == pictures_of(Path(finished_run).parent / "pool")[data["pool_id"]]


def test_further_selections_and_files_and_what_is_excluded_then(finished_run: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    call = CliRunner().invoke
    sent = str(tmp_path / "sent")
    assert call(app, ["export-tasks", str(run), "--to", "csv", "--out", sent]).exit_code == 0
    found = call(app, ["select", str(run), "--name", "next", "--k", "9", "--exclude", f"{sent}/tasks.json"])
    assert found.exit_code == 0, found.output
    first = set(read_tasks(sent).ids.to_pylist())
    second = set(pq.read_table(run / "selections/next.parquet")["id"].to_pylist())
    assert len(second) == 9
    assert not first & second
    export_tasks(str(run), str(tmp_path / "b"), "csv", name="next")
    export_tasks(str(run / "selections/next.parquet"), str(tmp_path / "c"), "csv")
    shutil.copy(run / "selections/next.parquet", tmp_path / "mine.parquet")
    export_tasks(str(tmp_path / "mine.parquet"), str(tmp_path / "d"), "csv", run=str(run))
    b, c, d = (read_tasks(str(tmp_path / x)) for x in "bcd")
    assert set(b.ids.to_pylist()) == second
    assert (b.selection, b.digest) == ("selections/next.parquet", c.digest)
    assert replace(d, selection=b.selection).digest == b.digest
    arguments = ["select", str(run), "--name", "third", "--k", "20"]
    for listed in (f"{sent}/tasks.json", str(tmp_path / "b/tasks.json")):
        arguments += ["--exclude", listed]
    assert call(app, arguments).exit_code == 0
    third = set(pq.read_table(run / "selections/third.parquet")["id"].to_pylist())
    assert len(third) == 20
    assert not third & (first | second)
    with pytest.raises(ConfigError, match=r"there is no selection .*none.parquet"):
        export_tasks(str(run), str(tmp_path / "x"), "csv", name="none")


@pytest.mark.parametrize(
    "ids", [pa.array([3, 1], pa.uint64()), pa.array([b"\xff\0", b"a"], pa.binary()), pa.array(["3", "é"])]
)
def test_ids_of_any_type_are_the_same_in_an_exclude_list(ids: pa.Array, finished_run: str, tmp_path: Path) -> None:
    export_tasks(finished_run, str(tmp_path / "out"), "csv")
    tasks = read_tasks(str(tmp_path / "out"))
    two = replace(tasks, ids=ids, keys=tasks.keys[:2], row_ids=tasks.row_ids[:2], of_run=tasks.of_run[:2])
    (tmp_path / "tasks.json").write_bytes(two.to_json())
    (tmp_path / "out/tasks.json").write_bytes(two.to_json())
    assert read_tasks(str(tmp_path / "out/tasks.json")).ids.equals(ids)
    pq.write_table(pa.table({"id": ids}), tmp_path / "ids.parquet")
    listed = read_ids(str(tmp_path / "tasks.json"), "uuid")
    assert listed.sorted() == read_ids(str(tmp_path / "ids.parquet"), "id").sorted()
    both = read_ids([str(tmp_path / "tasks.json"), str(tmp_path / "ids.parquet")], "id")
    assert both.sorted() == listed.sorted()


def test_a_damaged_tasks_json_is_refused(finished_run: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_tasks(finished_run, str(out), "csv")
    about = json.loads((out / "tasks.json").read_text())
    for change, message in (
        ({"format": 2}, "written by a newer poolscore"),
        ({"seed": 5}, "was changed after it was written"),
        ({"tasks": {}}, "is no list of tasks"),
    ):
        (out / "tasks.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(ConfigError, match=message):
            read_tasks(str(out))
    (out / "tasks.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        read_tasks(str(out))
    with pytest.raises(ConfigError, match=r"--exclude: .* is no tasks.json"):
        read_ids(str(out / "tasks.json"), "id", "--exclude")
    with pytest.raises(ConfigError, match="holds no export"):
        read_tasks(str(tmp_path))
