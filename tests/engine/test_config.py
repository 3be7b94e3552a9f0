"""The configuration: what is refused, in which words, and what a path is relative to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from poolscore.engine.config import Config, columns_of, flatten, load_config, parse_config
from poolscore.engine.errors import ConfigError

BASE = "pool: {uri: p, input: x}\nmodel: {source: 'm:f', task: multiclass}\nselect: {k: 5}\nrun: {dir: r}\n"


def load(folder: Path, *sets: str, text: str | bytes = BASE) -> Config:
    path = folder / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path, sets)


def refusal(folder: Path, *sets: str, text: str | bytes = BASE) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, *sets, text=text)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'c.yaml'}: ")


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("selct.k=1", "'select'"),
        ("pool.ur=1", "'uri'"),
        ("pool.decode.reszie=1", "'resize'"),
        ("model.wieghts=w", "'weights'"),
        ("passes.cuont=3", "'count'"),
        ("score.reducer=max", "'reduce'"),
        ("select.scores=bald", "'score'"),
        ("check.labeled=x", "'label"),
        ("run.batchsize=3", "'batch_size'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path, given: str, nearest: str) -> None:
    message = refusal(tmp_path, given)
    assert "unknown key" in message
    assert f"did you mean {nearest}" in message


def test_an_unknown_key_like_no_other_is_refused_with_all(tmp_path: Path) -> None:
    assert refusal(tmp_path, "score.zzzzzz=1") == "score: unknown key 'zzzzzz'; known keys: reduce, accurate_bald"
    message = refusal(tmp_path, "pool.input=null", "pool.inputs.b.clumn=x")
    assert message.startswith("pool.inputs.b: unknown key 'clumn'; did you mean 'column'?")


REFUSED = [
    ("pool=3", "pool: "),
    ("pool.uri=", "pool.uri: "),
    ("pool.uri=''", "pool.uri: "),
    ("pool.input=3", "pool.input: "),
    ("pool.input=[]", "pool: decode.kind 'image' takes one column, got 0"),
    ("pool.input=[a, b]", "pool: decode.kind 'image' takes one column, got 2"),
    ("pool.input=null", "pool: give either 'input'"),
    ("pool.inputs.a.column=y", "pool: give either 'input'"),
    ("pool.keep=label", "pool.keep: Input should be a list, got 'label'"),
    ("pool.decode=3", "pool.decode: kind must be one of: image, tensor, features, text, function"),
    ("pool.decode.kind=imag", "pool.decode: kind must be one of: image, tensor, features, text, function"),
    ("pool.decode.kind=function", "pool.decode.function: is required"),
    ("pool.decode.column=y", "pool: decode names a column, and so does input"),
    ("pool.decode.mode=CMYK", "pool.decode.mode: "),
    ("pool.decode.resize=0", "pool.decode.resize: Input should be greater than or equal to 1, got 0"),
    ("pool.decode.resize=[2]", "pool.decode.resize"),
    ("pool.decode.crop=[3, -1]", "pool.decode.crop"),
    ("pool.decode.mean=[.nan]", "pool.decode.mean.0: Input should be a finite number"),
    ("pool.decode.mean=[1, 2]", "pool.decode: mean has 2 values, mode RGB needs 1 or 3"),
    ("pool.decode.std=[0]", "pool.decode.std.0: Input should be greater than 0, got 0"),
    ("pool.decode.std=[.inf]", "pool.decode.std.0: "),
    ("pool.decode={kind: tensor, shape: [2, 0]}", "pool.decode.shape.1: "),
    ("pool.decode={kind: tensor, dtype: int64, mean: [3]}", "pool.decode: mean and std need a dtype float32"),
    ("pool.decode={kind: features, dtype: bool, std: [3]}", "pool.decode: mean and std need a dtype float32"),
    ("model.task=multi", "model.task: "),
    ("score.accurate_bald=3", "score.accurate_bald: "),
    ("model.classes=0", "model.classes: "),
    ("model.classes=[]", "model.classes: "),
    ("model.classes=[a, b, a]", "model: classes: 'a' is named twice"),
    ("model.classes=[yes, no]", "model.classes: "),
    ("passes.count=0", "passes.count: "),
    ("passes.count=65536", "passes.count: "),
    ("passes.seed=-1", "passes.seed: "),
    ("passes.seed=18446744073709551616", "passes.seed: "),
    ("passes.seed=yes", "passes.seed: must be a number, got true"),
    ("select.k=-1", "select.k: Input should be greater than or equal to 0, got -1"),
    ("select.k=1.5", "select.k: "),
    ("select.k=on", "select.k: must be a number, got true"),
    ("select.k=null", "select.k: "),
    ("select.k=.inf", "select.k: "),
    ("select.method=best", "select.method: "),
    ("select.score=bal", "select.score: there is no score 'bal'; this run allows: entropy"),
    ("select.score=predictive_variance", "select.score: 'predictive_variance' is not defined for task 'multiclass'"),
    ("check={label: y}", "check.labelled: is required"),
    ("check={labelled: l, min_accuracy: 2}", "check.min_accuracy: "),
    ("run.workers=0", "run.workers: "),
    ("run.max_bad_fraction=1.1", "run.max_bad_fraction: "),
    ("run.max_bad_fraction=yes", "run.max_bad_fraction: must be a number, got true"),
    ("run.dir=''", "run.dir: "),
    ("run.dir=~nobody-of-that-name/x", "'~nobody-of-that-name/x': there is no such user"),
    ("version=2", "version: Input should be 1, got 2"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_a_wrong_value_is_refused_in_one_line(tmp_path: Path, given: str, message: str) -> None:
    assert refusal(tmp_path, given).startswith(message)


def test_an_accurate_bald_needs_a_task_that_has_one(tmp_path: Path) -> None:
    assert load(tmp_path, "score.accurate_bald=true").score.accurate_bald
    message = refusal(tmp_path, "score.accurate_bald=true", "model.task=regression")
    assert message == "score.accurate_bald: the task regression has no bald: leave it out"


def test_only_labels_are_reduced(tmp_path: Path) -> None:
    assert load(tmp_path, "score.reduce=max", "model.task=multilabel").score.reduce == "max"
    assert load(tmp_path, "score.reduce=sum").score.reduce == "sum"
    message = refusal(tmp_path, "score.reduce=max")
    assert message == "score.reduce: 'max' is over the labels of task multilabel; the task is multiclass: leave it out"


def test_every_refusal_names_the_file(tmp_path: Path) -> None:
    for given in ("select.k=x", "selct.k=1", "select.score=bal", "run.dir=~nobody-of-that-name/x"):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, given)
        assert str(caught.value).startswith(f"{tmp_path / 'c.yaml'}: ")


def test_k_is_mandatory_and_other_mistakes_are_counted(tmp_path: Path) -> None:
    assert refusal(tmp_path, text=BASE.replace("{k: 5}", "{}")) == "select.k: is required"
    assert refusal(tmp_path, text=BASE.replace("select: {k: 5}\n", "")) == "select: is required"
    assert refusal(tmp_path, "select.k=x", "run.workers=0").endswith("got 'x' (and 1 more)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected sections"),
        ("- a\n", "expected sections"),
        ("text", "expected sections"),
        ("a: [1", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        ("a: 2024-99-99", "not valid YAML"),
        ("[" * 3000, "not valid YAML"),
        (BASE + "select: {k: 6}\n", "not valid YAML (the key 'select' is given twice"),
        (BASE.replace("k: 5", "k: 5, k: 6"), "not valid YAML (the key 'k' is given twice"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert refusal(tmp_path, text=text).startswith(message)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot be read"):
            load_config(path)


def test_merged_mappings_and_byte_order_marks_are_yaml(tmp_path: Path) -> None:
    text = BASE.replace("select: {k: 5}", "x-not: 1\nselect:\n  <<: {k: 5}\n  k: 6").replace("x-not: 1\n", "")
    assert load(tmp_path, text=b"\xef\xbb\xbf" + text.encode()).select.k == 6


def test_numbers_in_scientific_form_are_numbers(tmp_path: Path) -> None:
    config = load(tmp_path, "run.max_bad_fraction=1e-3", "select.k=1e3", "model.args={p: 1e-3, name: 1e3b}")
    assert (config.run.max_bad_fraction, config.select.k) == (1e-3, 1000)
    assert config.model.args == {"p": 1e-3, "name": "1e3b"}


def test_overrides_reach_every_depth(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "pool.input=null",
        "pool.inputs.left.column=a",
        "pool.inputs.right={kind: tensor, column: b}",
        "pool.keep=[u, v]",
        "model.args.a.b=[1, {c: null}]",
        "check.labelled=l.parquet",
        " run.dir =a=b",
    )
    assert {name: columns_of(decode) for name, decode in config.pool.named_inputs().items()} == {
        "left": ("a",),
        "right": ("b",),
    }
    assert config.pool.keep == ("u", "v")
    assert config.model.args == {"a": {"b": [1, {"c": None}]}}
    assert config.check is not None
    assert config.check.labelled == str(tmp_path / "l.parquet")
    assert config.run.dir == str(tmp_path / "a=b")


@pytest.mark.parametrize(
    "given", ["=3", "select", "select.=3", ".k=3", "select.k.z=3", "select.k=[", "", "select.k={a: 1, a: 2}"]
)
def test_overrides_of_no_form_are_refused_by_name(tmp_path: Path, given: str) -> None:
    assert refusal(tmp_path, given).startswith(f"--set {given}: ")


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/someone")
    config = load(tmp_path, "model.weights=/w.pt", "pool.exclude=~/done.csv", "run.dir=s3://bucket/run", "pool.uri=a/")
    assert config.pool.uri == str(tmp_path / "a")
    assert config.model.path == str(tmp_path)
    assert config.model.weights == "/w.pt"
    assert config.pool.exclude == "/home/someone/done.csv"
    assert config.run.dir == "s3://bucket/run"


def test_a_relative_path_of_the_file_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.yaml").write_text(BASE)
    monkeypatch.chdir(tmp_path)
    assert load_config("c.yaml").run.dir == str(tmp_path / "r")


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path)
    for section, key in ((config, "version"), (config.select, "k"), (config.pool.decode, "mode")):
        with pytest.raises(ValidationError, match=r"frozen"):
            setattr(section, key, 7)


@pytest.mark.parametrize(
    "sets",
    [
        [],
        ["pool.decode={resize: [3, 4], crop: 2, mean: [0.1, 0.2, 0.3]}", "model.classes=[a, b]", "pool.keep=[l]"],
        ["pool.input=[a, b]", "pool.decode={kind: features, mean: [1, 2]}", "model.task=regression"],
        ["pool.input=null", "pool.inputs={a: {kind: function, column: c, function: 'm:f'}, b: {column: d}}"],
        ["check.labelled=l", "passes.seed=18446744073709551615", "passes.count=1", "model.args={d: 2024-01-01}"],
    ],
)
def test_a_round_trip_through_json_changes_nothing(tmp_path: Path, sets: list[str]) -> None:
    config = load(tmp_path, *sets)
    again = parse_config(json.loads(json.dumps(config.model_dump(mode="json"))), base="/elsewhere")
    assert again.model_dump(mode="json") == config.model_dump(mode="json")
    assert flatten(again) == flatten(config)
    assert flatten(config)["select.k"] == 5


def test_the_json_schema_knows_every_section() -> None:
    schema: dict[str, Any] = json.loads(json.dumps(Config.model_json_schema()))
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["additionalProperties"] is False


def test_the_json_schema_says_what_a_batch_size_may_be() -> None:
    batch_size = Config.model_json_schema()["$defs"]["RunConfig"]["properties"]["batch_size"]
    assert batch_size["anyOf"] == [{"const": "auto"}, {"minimum": 1, "type": "integer"}]
    assert batch_size["default"] == 64


@pytest.mark.parametrize(
    ("sets", "score"),
    [
        ([], "bald"),
        (["passes.count=1"], "entropy"),
        (["model.task=regression"], "predictive_variance"),
        (["model.task=regression", "passes.count=1"], "random"),
        (["select.score=margin"], "margin"),
    ],
)
def test_the_score_follows_from_task_and_passes(tmp_path: Path, sets: list[str], score: str) -> None:
    assert load(tmp_path, *sets).selected_by == score


def test_outputs_follow_from_the_classes(tmp_path: Path) -> None:
    def outputs(*sets: str) -> int | None:
        return load(tmp_path, *sets).model.outputs

    assert outputs() is None
    assert outputs("model.classes=7") == 7
    assert outputs("model.classes=[a, b, c]") == 3
    assert outputs("model.task=binary", "model.classes=[no-cat, cat]") == 1
    assert outputs("model.task=regression", "model.classes=2", "model.predicts_noise=true") == 4


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["pool.input=null", "pool.inputs.a.kind=tensor"], "pool: inputs.a: no column is named"),
        (["pool.input=null", "pool.inputs.a b.column=x"], "pool: inputs.a b: the name of an input is a keyword"),
        (["pool.input=[]", "pool.decode.kind=features"], "pool: input names no column"),
        (["pool.input=null", "pool.inputs.a.column=x", "pool.decode.mode=L"], "pool: decode belongs to 'input'"),
    ],
)
def test_inputs_are_named_in_one_way(tmp_path: Path, sets: list[str], message: str) -> None:
    assert refusal(tmp_path, *sets).startswith(message)


def test_a_section_that_is_none() -> None:
    data = {
        "pool": {"uri": "pool", "input": "x"},
        "model": {"source": "m:f", "task": "binary"},
        "select": {"k": 1},
        "run": None,
    }
    with pytest.raises(ConfigError, match=r"run: expected a section, with settings of its own below it, got None"):
        parse_config(data)
