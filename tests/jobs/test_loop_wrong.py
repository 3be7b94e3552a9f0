"""What is wrong with a loop is told in a line: its section, its tables, its training, another loop in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loop_workshop import ROWS, Workshop, train_here

from poolscore.engine.config import Config
from poolscore.engine.config.loop import OracleConfig
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.keys import id_text
from poolscore.jobs.loop import rounds, run, run_loop, training, truth, ways
from poolscore.jobs.loop.first import label_of
from poolscore.jobs.loop.folders import Round
from poolscore.jobs.tasks.question import Question


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Its trainings run in this process, which is quicker; test_loop_stopped.py has them in their own."""
    monkeypatch.setattr(training, "run_logged", train_here)
    return Workshop.make(tmp_path)


Change = Callable[[Workshop], dict[str, Any]]


def without(shop: Workshop) -> dict[str, Any]:
    return {}


def first_of(table: pa.Table) -> Change:
    def change(shop: Workshop) -> dict[str, Any]:
        pq.write_table(table, shop.folder / "first.parquet")
        return {}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"train": "nowhere:train"}, "loop.train: cannot import 'nowhere'"),
        (lambda s: {"train": "loop_parts:nothing"}, "loop.train: module 'loop_parts' has no 'nothing'"),
        (lambda s: {"train": "loop_parts:train_nothing"}, r"wrote no weights.safetensors .* \(it wrote: other.bin\)"),
        (
            lambda s: {"train": "loop_parts:train_raises"},
            "train_raises raised ValueError: no such layer; see .*train.log",
        ),
        (lambda s: {"train": "loop_parts:train_text"}, "the metric 'accuracy' of .* is 'good', no number"),
        (lambda s: {"train": "loop_parts:train_nan"}, "the metric 'accuracy' of .* is nan; leave out"),
        (lambda s: {"train": "loop_parts:train_round"}, "a metric of .* is called 'round', as a column of curve.csv"),
        (lambda s: {"train": "loop_parts:train_list"}, "returned list; a dictionary of metrics is expected"),
        (lambda s: {"labelled": "gone.parquet"}, "loop.labelled: there is no file .*gone.parquet"),
        (lambda s: {"dir": "pool/loop"}, "loop.dir: .* lies in the pool's folder"),
        (lambda s: {"dir": "s3://bucket/loop"}, "loop.dir: s3://bucket/loop is not local"),
        (lambda s: {"label": {"oracle": {"table": "gone.csv"}}}, "loop.label.oracle: there is no file"),
        (
            lambda s: {"label": {"oracle": {"table": "first.parquet"}}},
            r"has no row with the id .* \(5 of 5 are missing\)",
        ),
        (lambda s: {"label": {"oracle": {"label": "a"}}}, "the pool's column 'a' must be in pool.keep"),
        (
            lambda s: {"stop": {"rounds": 1, "target": {"metric": "f1", "at_least": 1}}},
            "train returned no metric 'f1'; it returned: accuracy, loss",
        ),
        (first_of(pa.table({"id": ["x"], "label": [3]})), "the label '3' is no class; the classes are: 0, 1, 2"),
        (first_of(pa.table({"id": ["x"], "label": pa.array([None], pa.int64())})), r"a row has no label \('x'\)"),
        (first_of(pa.table({"id": pa.array([], pa.string()), "label": pa.array([], pa.int64())})), "has no rows"),
        (first_of(pa.table({"id": ["x"], "class": [1]})), "has no column 'label'; it has: id, class"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(shop: Workshop, change: Change, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        shop.loop(change(shop))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("loop", "sections", "message"),
    [
        ({"train": "nowhere:train"}, {}, "cannot import 'nowhere'"),
        ({"label": {"oracle": {"table": "truth.parquet", "label": "lable"}}}, {}, "has no column 'lable'"),
        ({}, {"pool": {"input": ["a", "c"]}}, "'c'"),
        ({}, {"check": {"labelled": "first.parquet", "label": "lable"}}, "check.label: column 'lable' is not in"),
        ({}, {"check": {"labelled": "truth.parquet", "label": "label"}}, "check.labelled: column 'a' is not in"),
    ],
)
def test_what_can_be_known_is_told_before_anything_is_trained(
    shop: Workshop, loop: dict[str, Any], sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        shop.loop(loop, **sections)
    assert not (shop.folder / "loop" / "loop.json").exists()
    shop.loop()


def test_settings_may_be_mended_until_something_was_trained(shop: Workshop) -> None:
    with pytest.raises(ConfigError, match=r"wrote no weights.safetensors .* name its file in loop.weights"):
        shop.loop({"train": "loop_parts:train_nothing"})
    assert len(shop.loop().points) == 3
    with pytest.raises(ConfigError, match=r"differs in loop.train \(loop_parts:train, now"):
        shop.loop({"train": "loop_parts:train_nothing"})


def test_a_label_that_made_training_fail_can_be_corrected(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = shop.round(0) / "labels.parquet"

    def train(config: Config, at: Round) -> dict[str, Any]:
        if at.number:
            raise ConfigError("IndexError: Target 2 is out of bounds")
        return training.train_round(config, at)

    monkeypatch.setattr(rounds, "train_round", train)
    with pytest.raises(ConfigError, match="out of bounds"):
        shop.loop()
    monkeypatch.undo()
    monkeypatch.setattr(training, "run_logged", train_here)
    table = pq.read_table(labels)
    pq.write_table(table.set_column(2, "label", pa.array([1] * len(table))), labels)
    shop.loop()
    new = pq.read_table(shop.round(1) / "labelled.parquet").slice(6)
    assert new["label"].to_pylist() == [1] * 5


def test_outputs_that_only_the_model_knows(shop: Workshop) -> None:
    table = pq.read_table(shop.folder / "truth.parquet")
    pq.write_table(table.set_column(1, "label", pa.array([42] * ROWS)), shop.folder / "truth.parquet")
    with pytest.raises(ConfigError, match="the label '42' is no class; the classes are: 0, 1, 2"):
        shop.loop(model={"classes": None})


def test_a_label_outside_the_classes(shop: Workshop) -> None:
    table = pq.read_table(shop.folder / "truth.parquet")
    pq.write_table(table.set_column(1, "label", pa.array([7] * ROWS)), shop.folder / "truth.parquet")
    with pytest.raises(ConfigError, match=r"truth.parquet \('r0\d\d'\): the label '7' is no class"):
        shop.loop()
    pq.write_table(table.set_column(1, "label", pa.array([None] * ROWS, pa.int64())), shop.folder / "truth.parquet")
    result = shop.loop()  # nobody knows one: rows that are skipped are sent once, and the curve goes on
    assert [point.labels for point in result.points] == [6, 6, 6]


def test_the_truth_is_read_once_and_says_one_thing_of_a_row(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shop.folder / "truth.parquet"
    table, reads = pq.read_table(path), []
    monkeypatch.setattr(ways, "read_truth", lambda oracle: reads.append(oracle) or truth.read_truth(oracle))
    pq.write_table(pa.concat_tables([table, table.slice(7, 3)]), path)
    assert shop.loop().points[-1].labels == 16
    assert len(reads) == 1
    other = table.slice(7, 1).set_column(1, "label", pa.array([(table["label"][7].as_py() + 1) % 3]))
    pq.write_table(pa.concat_tables([table, other]), path)
    with pytest.raises(ConfigError, match=r"truth.parquet has two labels for the id 'r007': \d and \d; keep one"):
        shop.loop()


@pytest.mark.parametrize("kind", [pa.int32(), pa.string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_the_truth_by_ids_of_several_types(tmp_path: Path, kind: pa.DataType) -> None:
    ids = pa.array([b"5", b"7", b"11"]) if kind == pa.binary() else pa.array(["5", "7", "11"]).cast(kind)
    pq.write_table(pa.table({"id": ids, "label": [[0, 1], [1, 1], None]}), tmp_path / "truth.parquet")
    found = truth.read_truth(OracleConfig(table=str(tmp_path / "truth.parquet")))
    asked = id_text(ids.take(pa.array([2, 0])), "id")
    assert found.of(asked) == [None, [0, 1]]
    with pytest.raises(ConfigError, match=r"has no row with the id '?b?'?6'? \(1 of 3 are missing\)"):
        found.of([*asked, b"6" if kind == pa.binary() else "6"])
    with pytest.raises(ConfigError, match=r"\(1 of 3 are missing\)"):  # of the other kind
        found.of([*asked, "5" if kind == pa.binary() else b"\xff"])


def test_ids_of_the_truth_that_are_no_text(tmp_path: Path) -> None:
    ids = pa.array([b"5", b"\xff", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"id": ids, "label": [0, 1, 1]}), tmp_path / "truth.parquet")
    with pytest.raises(ConfigError, match=r"truth.parquet column 'id' is not valid UTF-8; write such ids as binary"):
        truth.read_truth(OracleConfig(table=str(tmp_path / "truth.parquet")))


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        ({"stop": {"target": {"metric": "f1", "at_least": 1}}}, "loop.stop: give budget .* or rounds"),
        ({"stop": {"rounds": 1, "target": {"metric": "f1"}}}, "loop.stop.target: give at_least"),
        ({"label": {}}, "loop.label: give one of oracle, command and pause"),
        ({"label": {"pause": {}}, "seeds": [0, 1]}, "loop: seeds, control: are for simulations"),
        ({"label": {"command": {"run": ""}}}, "loop.label.command.run: names no program"),
        ({"seeds": [1, 1]}, "loop.seeds: 1 is given twice"),
        ({"train": "mynet"}, "loop.train: 'mynet' is not of the form package.module:function"),
        ({"weights": "a/b.safetensors"}, "loop.weights: 'a/b.safetensors' is no name of a file"),
        ({"weights": "net.onnx"}, "loop.weights: 'net.onnx' does not go with model.source"),
        ({"labeled": "x"}, "loop: unknown key 'labeled'; did you mean 'labelled'"),
    ],
)
def test_the_section(shop: Workshop, loop: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shop.config(loop)


def test_other_sections_must_go_with_it(shop: Workshop) -> None:
    with pytest.raises(ConfigError, match=r"loop.control: the batch is selected at random already"):
        shop.config({"control": "random"}, select={"score": "random"})
    with pytest.raises(ConfigError, match=r"select.k: a loop labels so many rows"):
        shop.config(select={"k": 0})
    with pytest.raises(ConfigError, match="has no section 'loop:'"):
        run_loop(shop.config().model_copy(update={"loop": None}))


def test_another_loop_in_the_folder_is_refused_and_what_differs_is_named(shop: Workshop) -> None:
    shop.loop()
    with pytest.raises(
        ConfigError, match=r"differs in passes.count \(4, now 5\), select.k \(5, now 6\); choose another"
    ):
        shop.loop(passes={"count": 5}, select={"k": 6})
    table = pq.read_table(shop.folder / "first.parquet")
    pq.write_table(table.slice(1), shop.folder / "first.parquet")
    with pytest.raises(ConfigError, match=r"differs in the first labels of seed 0 \(they are others\)"):
        shop.loop()
    pq.write_table(table, shop.folder / "first.parquet")
    assert len(shop.loop({"seeds": [0, 1]}).points) == 6  # a further seed is welcome
    (shop.folder / "other").mkdir()
    (shop.folder / "other" / "x").touch()
    with pytest.raises(ConfigError, match="holds other files"):
        shop.loop({"dir": "other"})


def test_inputs_that_have_a_name_of_the_loop(shop: Workshop) -> None:
    table = pq.read_table(shop.folder / "first.parquet").rename_columns(["id", "a", "round", "label"])
    pq.write_table(table, shop.folder / "first.parquet")
    with pytest.raises(ConfigError, match="carries the model's input 'round', a name that the loop takes; rename it"):
        shop.loop(pool={"input": ["a", "round"]})


def test_one_loop_at_a_time(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(*_: object) -> None:
        shop.loop()

    monkeypatch.setattr(run, "_run_curves", second)
    with pytest.raises(StoppedError, match="another process works on the loop"):
        shop.loop()


NAMED, NUMBERED = Question("one", ("x", "y"), False), Question("one", ("0", "1"), True)
SEVERAL, NUMBER = Question("several", ("x", "y"), False), Question("number", (), False)


@pytest.mark.parametrize(
    ("question", "value", "label"),
    [
        *((NAMED, "y", "y"), (NAMED, 1, "y"), (NUMBERED, 1, 1), (NUMBERED, "1", 1), (NUMBERED, True, 1)),
        *((SEVERAL, [1, 0], [1, 0]), (SEVERAL, [True, 0.0], [1, 0]), (NUMBER, "2.5", 2.5), (NUMBER, 2, 2.0)),
        *((NAMED, None, None), (NUMBER, "", None), (SEVERAL, None, None)),
        *((NAMED, "z", "no class"), (NAMED, 2, "no class"), (NUMBERED, -1, "no class"), (NUMBERED, 1.0, "no label")),
        *((SEVERAL, [1], "not 0 or 1 for each of 2"), (SEVERAL, [1, 2], "not 0 or 1"), (SEVERAL, "x", "not 0 or 1")),
        *((NUMBER, "high", "no number"), (NUMBER, float("nan"), "no number")),
    ],
)
def test_labels_of_tables(question: Question, value: Any, label: Any) -> None:
    if not (isinstance(label, str) and label.startswith("no")):
        assert label_of(value, question, "here") == label
        return
    with pytest.raises(ConfigError, match=f"here: .*{label}"):
        label_of(value, question, "here")
