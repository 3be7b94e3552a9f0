"""What people answer, in the formats of their tools: nothing is lost, nothing is guessed, and the rest comes later."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import TASKS, read_ids
from poolscore.engine.keys import keys_of
from poolscore.engine.score import score_pool
from poolscore.engine.storage.open import open_storage
from poolscore.jobs.label import import_labels, label_status
from poolscore.jobs.label.cvat import read as read_cvat
from poolscore.jobs.tasks import SKIP, export_tasks, read_tasks
from poolscore.jobs.tasks.manifest import Tasks
from poolscore.jobs.tasks.question import Question
from poolscore.jobs.tasks.table import CSV

ODD = ["../../x", "<script>alert(1)</script>", "=1+1", "a\nb\r\nc", "quote \" ' `", "ünï\U0001f600", "'", "x" * 300]


@dataclass
class Desk:
    """An export of rows with these ids, and the labels that come of it."""

    folder: Path
    tasks: Tasks

    @property
    def out(self) -> str:
        return str(self.folder / "out")

    @property
    def labels(self) -> str:
        return str(self.folder / "labels.parquet")

    def answers(self, name: str, content: str | bytes) -> str:
        data = content if isinstance(content, bytes) else content.encode()
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    def come(self, *files: str, **options: Any) -> Any:
        return import_labels(self.out, files, self.labels, **options)

    def table(self) -> pa.Table:
        return pq.read_table(self.labels)

    def by_id(self) -> dict[Any, Any]:
        table = self.table()
        return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))


def desk_of(folder: Path, ids: Sequence[Any] = ODD, question: Question | None = None, to: str = "labelstudio") -> Desk:
    question = question or Question("one", tuple(ODD), False)
    array = pa.array(ids)
    text = [i if isinstance(i, bytes) else str(i) for i in ids]
    places = np.arange(len(ids), dtype=np.int64)
    tasks = Tasks(
        to,
        ("/run",),
        ("abc",),
        "selection.parquet",
        question,
        0,
        {"predictions": False},
        array,
        keys_of(text),
        places,
        0 * places,
    )
    (folder / "out").mkdir(parents=True)
    (folder / "out" / TASKS).write_bytes(tasks.to_json())
    return Desk(folder, tasks)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return desk_of(tmp_path)


def studio(desk: Desk, answers: dict[str, list[tuple[Any, Any]]]) -> str:
    """Label Studio's JSON export: id → (annotator, answer); None: cancelled."""
    kind = {"one": "choices", "several": "choices", "number": "number"}[desk.tasks.question.kind]
    rows = []
    for number, (name, i) in enumerate(zip(desk.tasks.names, desk.tasks.ids.to_pylist(), strict=True), 1):
        annotations = []
        for annotator, answer in answers.get(i, []):
            answered = (
                desk.tasks.question.classes[0] if answer is None else answer
            )  # what was chosen before Skip is kept
            value = answered if kind == "number" or isinstance(answered, list) else [answered]
            result = [{"id": "x", "from_name": "label", "to_name": "image", "type": kind, "value": {kind: value}}]
            annotations.append(
                {
                    "id": 100 + number,
                    "completed_by": annotator,
                    "result": result,
                    "was_cancelled": answer is None,
                    "ground_truth": False,
                    "created_at": "2026-11-01T10:00:00.000000Z",
                    "updated_at": f"2026-11-01T10:00:{len(annotations):02d}.123456Z",
                    "lead_time": 4.2,
                }
            )
        data = {"task": name, "pool_id": str(i), "image": f"/data/local-files/?d=out/files/{name}.png"}
        rows.append(
            {"id": number, "annotations": annotations, "drafts": [], "predictions": [], "data": data, "meta": {}}
        )
    return json.dumps(rows)


def minimal(desk: Desk, answers: dict[str, list[tuple[Any, Any]]]) -> str:
    """JSON-MIN: one class as text, several as {"choices": …}; what was cancelled is left out."""
    rows = []
    for number, (name, i) in enumerate(zip(desk.tasks.names, desk.tasks.ids.to_pylist(), strict=True), 1):
        for annotator, answer in answers.get(i, []):
            if answer is not None:
                label = {"choices": answer} if isinstance(answer, list) and len(answer) > 1 else answer
                label = [{"number": answer}] if isinstance(answer, float) else label
                row = {"image": "x.png", "task": name, "pool_id": str(i), "id": number, "label": label}
                rows.append({**row, "annotator": annotator, "annotation_id": 7, "updated_at": "2026-11-01T10:00:00Z"})
    return json.dumps(rows)


def cvat(desk: Desk, answers: dict[str, Any], user: str = "ann") -> bytes:
    """An export of CVAT, 'for images 1.1'."""
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    meta = ET.SubElement(root, "meta")
    job = ET.SubElement(meta, "job")
    ET.SubElement(ET.SubElement(job, "assignee"), "username").text = user
    ET.SubElement(job, "updated").text = "2026-11-01 10:00:00.123456+00:00"
    for number, (name, i) in enumerate(zip(desk.tasks.names, desk.tasks.ids.to_pylist(), strict=True)):
        image = ET.SubElement(root, "image", id=str(number), name=f"sub/{name}.png", width="8", height="8")
        given = answers.get(i, ())
        for label in [given] if isinstance(given, str) else given:
            ET.SubElement(image, "tag", label=label, source="manual")
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


LABELS = {i: ODD[-1 - n] for n, i in enumerate(ODD)}  # each odd id has an odd label


def test_label_studio_gives_back_what_people_chose(desk: Desk) -> None:
    """Proof 2 of issue 9: a round trip loses nothing."""
    whole = desk.answers("a.json", studio(desk, {i: [(3, label)] for i, label in LABELS.items()}))
    done = desk.come(whole)
    assert (done.answers, done.new, done.labelled, done.skipped, done.pending) == (8, 8, 8, 0, 0)
    assert desk.by_id() == LABELS
    table = desk.table()
    assert table["annotators"].to_pylist() == [["3"]] * 8
    assert str(table["at"][0].as_py()) == "2026-11-01 10:00:00.123456+00:00"
    assert table["key"].to_numpy().tolist() == keys_of(ODD).tolist()
    again = Path(desk.labels).stat()
    assert desk.come(whole).new == 0
    assert Path(desk.labels).stat() == again
    smaller = desk_of(desk.folder / "min")
    assert (
        smaller.come(smaller.answers("b.json", minimal(smaller, {i: [(3, x)] for i, x in LABELS.items()}))).labelled
        == 8
    )
    assert smaller.by_id() == LABELS


def test_cvat_gives_back_what_people_chose(desk: Desk) -> None:
    """Proof 2 of issue 9: a round trip loses nothing; as XML and as ZIP."""
    xml = cvat(desk, LABELS)
    done = desk.come(desk.answers("annotations.xml", xml))
    assert (done.answers, done.labelled) == (8, 8)
    assert desk.by_id() == LABELS
    assert desk.table()["annotators"].to_pylist() == [["ann"]] * 8
    other = desk_of(desk.folder / "zip")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", xml)
        archive.writestr("../../evil", "x")
    assert other.come(other.answers("job.zip", buffer.getvalue())).labelled == 8
    assert other.table().drop(["at"]).equals(desk.table().drop(["at"]))
    assert not [*desk.folder.parent.rglob("evil")]


XML_TEXT = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("Cs", "Cc"), include_characters="\t\n\r", exclude_characters="\ufffe\uffff"
    ),
    min_size=1,
    max_size=20,
).filter(lambda text: text != SKIP)


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5, unique=True), st.data())
@settings(max_examples=25, deadline=None)
def test_round_trips_of_any_ids_and_classes(tmp_path_factory: Any, ids: list[str], data: st.DataObject) -> None:
    classes = data.draw(st.lists(XML_TEXT, min_size=2, max_size=4, unique=True))
    wanted = {i: data.draw(st.sampled_from([*classes, None])) for i in ids}
    question = Question("one", tuple(classes), False)
    folder = tmp_path_factory.mktemp("round")
    for form in ("studio", "cvat", "jsonl", "csv"):
        desk = desk_of(folder / form, ids, question)
        if form == "studio":
            path = desk.answers("a.json", studio(desk, {i: [("p", label)] for i, label in wanted.items()}))
        elif form == "cvat":
            path = desk.answers("a.xml", cvat(desk, {i: label or SKIP for i, label in wanted.items()}, "p"))
        elif form == "jsonl":
            lines = [{"id": i, "label": label, "skipped": label is None} for i, label in wanted.items()]
            path = desk.answers("a.jsonl", "\n".join(map(json.dumps, lines)))
        else:
            path = desk.answers("a.csv", filled(desk, {i: label or SKIP for i, label in wanted.items()}))
        done = desk.come(path)
        assert desk.by_id() == {i: label for i, label in wanted.items() if label is not None}
        assert (done.skipped, done.pending) == (sum(label is None for label in wanted.values()), 0)


def filled(desk: Desk, answers: dict[str, str]) -> str:
    """The CSV of an export, with labels, as a spreadsheet writes it."""
    import csv

    from poolscore.jobs.tasks.names import guarded

    out = io.StringIO(newline="")
    table = csv.writer(out)
    table.writerow(["task", "id", "text", "label"])
    for name, i in zip(desk.tasks.names, desk.tasks.ids.to_pylist(), strict=True):
        table.writerow([name, guarded(str(i)), "=1", guarded(answers.get(i, ""))])
    return out.getvalue()


def test_a_csv_of_ones_own_names_rows_by_id_guarded_or_not(desk: Desk) -> None:
    done = desk.come(
        desk.answers("a.csv", f"id;label;annotator;at\n'=1+1;{ODD[0]};ann;2026-11-01 10:00\n../../x;'=1+1;;\n")
    )
    assert done.labelled == 2
    assert desk.by_id() == {"=1+1": ODD[0], "../../x": "=1+1"}
    assert str(desk.table()["at"][0].as_py()) == "2026-11-01 10:00:00+00:00"


def test_what_comes_in_parts_adds_up(desk: Desk) -> None:
    parts = [ODD[:3], ODD[2:6], ODD[6:7]]
    for n, part in enumerate(parts):
        done = desk.come(desk.answers(f"{n}.csv", filled(desk, {i: LABELS[i] for i in part})), annotator="ann")
    assert (done.labelled, done.pending, done.rows) == (7, 1, 7)
    assert desk.by_id() == {i: LABELS[i] for i in ODD[:7]}
    one = desk_of(desk.folder / "whole")
    one.come(one.answers("a.csv", filled(one, {i: LABELS[i] for i in ODD[:7]})), annotator="ann")
    assert sorted(one.by_id().items()) == sorted(desk.by_id().items())
    (status,) = label_status([desk.out], desk.labels, str(desk.folder / "states.parquet"))
    assert (status.sent, status.labelled, status.skipped, status.pending) == (8, 7, 0, 1)
    assert len(read_ids(str(desk.folder / "states.parquet"), "id")) == 8
    assert label_status([f"{desk.out}/tasks.json"])[0].pending == 8


def test_skips_are_skips_until_somebody_answers(desk: Desk) -> None:
    a, b = ODD[:2]
    done = desk.come(desk.answers("a.json", studio(desk, {a: [(1, None)], b: [(1, None), (2, LABELS[b])]})))
    assert (done.labelled, done.skipped, done.pending) == (1, 1, 6)
    assert desk.by_id() == {b: LABELS[b]}
    assert [s.skipped for s in label_status([desk.out], desk.labels)] == [1]
    done = desk.come(desk.answers("b.json", studio(desk, {a: [(1, LABELS[a])]})))
    assert (done.labelled, done.skipped) == (2, 0)


def test_several_people(desk: Desk) -> None:
    a, b, c = ODD[:3]
    x, y = ODD[:2]
    answers = {a: [(1, x), (2, y), (3, x)], b: [(1, x), (2, y)], c: [(1, y), (2, y)]}
    path = desk.answers("a.json", studio(desk, answers))
    done = desk.come(path)
    assert desk.by_id() == {a: x, c: y}
    assert (done.disputed, done.labelled, done.pending) == ((b,), 2, 5)
    rows = {row["id"]: row for row in desk.table().to_pylist()}
    assert rows[a]["annotators"] == ["1", "2", "3"]
    assert rows[a]["agreement"] == pytest.approx(2 / 3)
    desk.come(desk.answers("b.json", studio(desk, {b: [(3, y)]})))
    assert desk.by_id()[b] == y
    assert desk.come(path, annotators="all").rows == 3 + 3 + 2
    with pytest.raises(ConfigError, match=r"has answers that differ \(1: .*settle it"):
        desk.come(path, annotators="refuse")
    assert len(desk.table()) == 8
    assert desk.come(path, annotators="majority").rows == 3


def test_several_labels_and_numbers(tmp_path: Path) -> None:
    several = desk_of(tmp_path / "s", ["a", "b"], Question("several", ("cat", "dog", "cow"), False))
    answers = {"a": [(1, ["dog", "cat"]), (2, ["cat"]), (3, ["cow", "cat"])], "b": [(1, [])]}
    assert several.come(several.answers("a.json", studio(several, answers))).labelled == 2
    assert several.by_id() == {"a": [1, 0, 0], "b": [0, 0, 0]}
    assert several.table()["label_names"].to_pylist() == [["cat"], []]
    for name, text in (
        ("m.csv", 'task,label\n{0},dog|cat\n{1},"[""cow""]"\n'),
        ("l.csv", 'task,label\n{0},"{{""choices"": [""dog"", ""cat""]}}"\n{1},cow\n'),
    ):
        other = desk_of(tmp_path / name, ["a", "b"], several.tasks.question)
        other.come(other.answers(name, text.format(*other.tasks.names)))
        assert other.by_id() == {"a": [1, 1, 0], "b": [0, 0, 1]}
    number = desk_of(tmp_path / "n", ["a", "b"], Question("number", (), False))
    for form in (studio, minimal):
        number.come(number.answers("n.json", form(number, {"a": [(1, 1.5), (2, 2.5), (3, 9.0)]})))
        assert number.by_id() == {"a": 2.5}
    with pytest.raises(ConfigError, match="'much' is no number"):
        number.come(number.answers("n.csv", f"task,label\n{number.tasks.names[1]},much\n"))


def test_folders(finished_run: str, tmp_path: Path) -> None:
    classes = [f"class/{i}" for i in range(10)]
    out = tmp_path / "out"
    export_tasks(finished_run, str(out), "folder", classes=classes)
    tasks = read_tasks(str(out))
    places = ["003-class-3", "_skip", "class/7".replace("/", "-"), "009-class-9"]
    for name, folder in zip(tasks.names, places, strict=False):
        (out / folder).mkdir(exist_ok=True)
        (out / "files" / f"{name}.png").rename(out / folder / f"{name}.png")
    labels = str(tmp_path / "labels.parquet")
    with pytest.raises(ConfigError, match="lies in no folder of a class"):
        import_labels(str(out), str(out), labels)
    (out / "class-7" / f"{tasks.names[2]}.png").rename(out / "007-class-7" / f"{tasks.names[2]}.png")
    done = import_labels(str(out), str(out), labels)
    assert (done.labelled, done.skipped, done.pending) == (3, 1, 1)
    table = pq.read_table(labels)
    expected = dict(zip(tasks.ids.to_pylist(), ["class/3", None, "class/7", "class/9"], strict=False))
    assert dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)) == {
        i: x for i, x in expected.items() if x
    }


def test_what_does_not_fit_is_named_and_nothing_is_written(desk: Desk) -> None:
    name, a = desk.tasks.names[0], json.dumps(ODD[0])
    for file, content, message in (
        (
            "a.csv",
            "task,label\nffffffffffffffff,x\n",
            "1 of the answers are to rows that were not exported: 'ffffffffffffffff'",
        ),
        ("a.csv", "id,label\nnobody,'\n", "not exported: 'nobody'"),
        ("a.csv", f"task,label\n{name},zebra\n", "a.csv, line 2 .*: the label 'zebra' is no class; the classes are: "),
        ("a.csv", "name,label\nx,y\n", "needs the columns 'label' and 'task'"),
        ("a.csv", f"task,label\n{name}\n", "line 2: it has not as many cells"),
        ("a.csv", b"task,label\n\xff,x\n", "is no text in UTF-8"),
        ("a.jsonl", "{}\n", "line 1 is no object with 'task'"),
        ("a.jsonl", "{\n", "line 1 is no JSON"),
        ("a.json", "{}", "a list of tasks is expected"),
        ("a.json", "[" * 100_000, "is no JSON"),
        ("a.json", f'[{{"task": "{name}", "label": [{a}, "x"]}}]', "'x' is no class"),
        ("a.xml", "<annotations>", "is no XML that is read"),
        ("a.xml", f'<annotations><image name="{name}.png"><box label="x"/></image></annotations>', "a box is drawn"),
        ("a.xml", "<annotations><track/></annotations>", "is of a video"),
        ("a.zip", b"PK", "cannot be unpacked"),
        ("a.txt", "x", "answers are read from .json"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            desk.come(desk.answers(file, content))
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="there is no file of answers"):
        desk.come(str(desk.folder / "none.csv"))
    assert sorted(path.name for path in desk.folder.glob("labels*")) == []


def test_bad_cells_are_told_of_all_at_once(desk: Desk) -> None:
    names = desk.tasks.names[:5]
    lines = "".join(f"{name},zebra-{i}\n" for i, name in enumerate(names))
    with pytest.raises(ConfigError, match=r"^3 answers: ") as caught:
        desk.come(desk.answers("a.csv", "task,label\n" + "".join(lines.splitlines(True)[:3])))
    told = str(caught.value)
    assert all(re.search(rf"a.csv, line {i + 2} .*?: the label 'zebra-{i}' is no class", told) for i in range(3))
    assert told.count("the classes are: ") == 1
    many = "".join(f"{name},zebra\n" for name in desk.tasks.names * 3)
    with pytest.raises(ConfigError) as caught:
        desk.come(desk.answers("a.csv", f"task,label\n{many}"))
    count = 3 * len(desk.tasks.names)
    assert f"{count} answers: " in str(caught.value)
    assert f"and {count - 10} more; the classes are" in str(caught.value)
    assert str(caught.value).count("zebra") == 10


BOMB = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotations><image name="&b;"/></annotations>"""
THIEF = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>
<annotations><image name="&e;"/></annotations>"""


@pytest.mark.parametrize("xml", [BOMB, THIEF])
def test_entities_are_refused(desk: Desk, xml: str) -> None:
    with pytest.raises(ConfigError, match="is no XML that is read: DTDForbidden"):
        read_cvat(xml.encode(), "a.xml", desk.tasks)


def test_what_is_too_large_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", " " * 100_000)
    monkeypatch.setattr("poolscore.jobs.label.reading.MOST_BYTES", 10_000)
    with pytest.raises(ConfigError, match=r"annotations\.xml has more than 10,000 bytes"):
        desk.come(desk.answers("a.zip", buffer.getvalue()))
    with pytest.raises(ConfigError, match="has 10,001 bytes, more than 10,000"):
        desk.come(desk.answers("a.csv", "x" * 10_001))


def test_who_changes_an_answer_must_say_so(desk: Desk) -> None:
    a, x, y = ODD[0], ODD[1], ODD[2]
    desk.come(desk.answers("a.json", studio(desk, {a: [("ann", x)]})))
    changed = desk.answers("b.json", studio(desk, {a: [("ann", y)]}))
    with pytest.raises(ConfigError, match=r"was .* by ann in an earlier import, and is .* give --replace"):
        desk.come(changed)
    assert desk.by_id() == {a: x}
    desk.come(changed, replace_old=True)
    assert desk.by_id() == {a: y}
    desk.come(desk.answers("c.json", studio(desk, {a: [("bob", x), ("eve", x)]})))
    assert desk.by_id() == {a: x}
    twice = f"task,label,annotator\n{desk.tasks.names[1]},{ODD[5]},ann\n{desk.tasks.names[1]},{ODD[6]},ann\n"
    with pytest.raises(ConfigError, match=r"'ann' answers .* and .* for one row"):
        desk.come(desk.answers("d.csv", twice))
    later = studio(desk, {ODD[1]: [("ann", x), ("ann", y)]})
    desk.come(desk.answers("e.json", later))
    assert desk.by_id()[ODD[1]] == y


def test_labels_of_another_question_or_hand_are_left_alone(desk: Desk, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "label": [1]}), desk.labels)
    path = desk.answers("a.csv", filled(desk, LABELS))
    with pytest.raises(ConfigError, match="was not written by `poolscore label import`"):
        desk.come(path)
    Path(desk.labels).unlink()
    desk.come(path)
    other = desk_of(tmp_path / "other", ["n"], Question("one", ("cat", "dog"), False))
    with pytest.raises(ConfigError, match="answers another question than the labels so far"):
        import_labels(other.out, other.answers("o.csv", f"task,label\n{other.tasks.names[0]},cat\n"), desk.labels)
    with pytest.raises(ConfigError, match="has ids of type string, the export int64"):
        ints = desk_of(tmp_path / "ints", [1, 2])
        import_labels(ints.out, ints.answers("o.csv", "task,label\n"), desk.labels)


def test_further_classes_come_after_those_of_the_export(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, ["a"], Question("one", ("cat", "dog"), False))
    path = desk.answers("a.csv", f"task,label\n{desk.tasks.names[0]},cow\n")
    with pytest.raises(ConfigError, match="'cow' is no class; the classes are: cat, dog"):
        desk.come(path)
    with pytest.raises(ConfigError, match="others can be named after these only"):
        desk.come(path, classes=["cow", "cat", "dog"])
    desk.come(path, classes=["cat", "dog", "cow"])
    assert desk.by_id() == {"a": "cow"}


def test_an_import_that_was_stopped_is_finished_by_the_next(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = desk.answers("a.csv", filled(desk, LABELS))
    with monkeypatch.context() as patched:
        patched.setattr("poolscore.jobs.label.importing.bring_up_to_date", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            desk.come(path)
    assert desk.come(path).new == 0
    assert desk.by_id() == LABELS


@pytest.fixture
def digit_run(digit_config: Callable[..., Config]) -> tuple[str, Callable[..., Config]]:
    return score_pool(digit_config(select={"k": 40})).run_dir, digit_config


def test_inputs_are_carried_so_that_the_labels_serve_as_they_are(
    digit_run: tuple[str, Callable[..., Config]], tmp_path: Path
) -> None:
    run, configure = digit_run
    pool = pq.read_table(configure().pool.uri)
    truth = dict(zip(pool["id"].to_pylist(), pool["label"].to_pylist(), strict=True))
    picture = dict(zip(pool["id"].to_pylist(), pool["image"].to_pylist(), strict=True))
    out, labels = str(tmp_path / "out"), str(tmp_path / "labels.parquet")
    export_tasks(run, out, "csv")
    tasks = read_tasks(out)
    lines = [f"{name},{truth[i]}\n" for name, i in zip(tasks.names, tasks.ids.to_pylist(), strict=True)]
    for start, stop in ((0, 15), (10, 30), (30, 40)):
        (tmp_path / "a.csv").write_text("task,label\n" + "".join(lines[start:stop]))
        import_labels(out, str(tmp_path / "a.csv"), labels, with_inputs=start == 0)
        table = pq.read_table(labels)
        assert len(table) == stop
        for row in table.to_pylist():
            assert (row["label"], row["image"]) == (truth[row["id"]], picture[row["id"]])
    assert table.schema.field("label").type == pa.int64()
    lists = f"{out}/{TASKS}"
    config = configure(
        pool={"exclude": [lists, labels]},
        check={"labelled": labels},
        shortlist={"rows": 10, "labelled": labels},
        run={"dir": str(tmp_path / "second")},
    )
    second = score_pool(config)
    assert second.totals.excluded == 40
    assert not set(tasks.ids.to_pylist()) & set(pq.read_table(f"{second.run_dir}/selection.parquet")["id"].to_pylist())


def test_labels_in_object_storage(finished_run: str, bucket: str) -> None:
    out, labels = f"{bucket}/out", f"{bucket}/l/labels.parquet"
    export_tasks(finished_run, out, "csv")
    text = open_storage(out).read(CSV).decode().replace(',""\r\n', ',"7"\r\n')
    open_storage(bucket).publish("back.csv", lambda file: file.write(text.encode()))
    done = import_labels(out, f"{bucket}/back.csv", labels, with_inputs=True)
    assert (done.labelled, done.rows) == (5, 5)
    assert label_status([out], labels)[0].labelled == 5
    assert len(read_ids([labels, f"{out}/tasks.json"], "id")) == 5
