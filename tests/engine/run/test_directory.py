"""The run directory: what is in it, what is refused, and that secrets are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from fake_fleet import report
from hypothesis import given, settings
from hypothesis import strategies as st
from made_run import config_of, new_run, plan

from poolscore.engine.config import parse_config
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.pool.plan import Plan
from poolscore.engine.run import directory
from poolscore.engine.run.create import create_run, set_aside
from poolscore.engine.run.directory import RunDirectory, exists, redacted
from poolscore.engine.run.journal import Journal
from poolscore.engine.run.totals import Totals
from poolscore.engine.storage.local import LocalStorage


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    root = tmp_path / "run"
    new_run(root, layers=[1, 2])
    run = RunDirectory(str(root))
    assert run.config == config_of(root, layers=[1, 2])
    assert run.plan == plan()
    assert run.reports() == {}
    assert run.totals() == Totals()
    assert run.info["pool"] == {
        "digest": plan().digest,
        "rows": 20,
        "shards": 2,
        "files": 1,
        "bytes": 9,
        "passed_over": 0,
        "bad_files": 0,
    }
    assert (run.info["status"], run.info["seed"], run.info["format"]) == ("running", 0, 1)
    assert not run.succeeded
    run.storage.create(directory.SUCCESS, b"")  # by an older version
    assert not run.succeeded
    with Journal(run.storage) as journal:
        for shard in range(2):
            assert not run.succeeded  # the journal lacks one
            journal.append(report(shard))
    assert run.succeeded


def test_the_mark_of_a_driver_that_another_followed_says_nothing(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with Journal(run.storage) as first:
        for shard in range(2):
            first.append(report(shard))
        run.succeed(first)
        assert run.succeeded
    with Journal(run.storage) as second:
        assert not run.succeeded
        run.succeed(second)
        assert run.succeeded
        run.succeed(first)  # a zombie's
        assert not run.succeeded


def test_an_older_driver_does_not_write_over_a_newer_one(tmp_path: Path) -> None:
    old, new = new_run(tmp_path), RunDirectory(str(tmp_path))
    old.update(epoch=1, profile={"device": "x"})
    new.update(epoch=2, status="running")
    assert new.info["profile"] == {"device": "x"}  # written since it was opened
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(StoppedError, match="another driver works on this run"):
        old.update(status="stopped")
    assert (tmp_path / "run.json").read_bytes() == before
    new.update(status="done")


def test_two_jobs_that_start_a_run_at_once_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whichever write of the first the other one begins, which has another pool."""
    writes, meet_at, write_temporary = 0, 0, LocalStorage._write_temporary

    def meeting(storage: LocalStorage, name: str, fill: Callable[[BinaryIO], object]) -> Path:
        nonlocal writes
        writes += 1
        if writes == meet_at:
            with suppress(StoppedError):
                began.append((create_run(storage.root, config, "0.1", plan("other"), {"the pool": "e"}), plan("other")))
        return write_temporary(storage, name, fill)

    monkeypatch.setattr(LocalStorage, "_write_temporary", meeting)
    for meet_at in (1, 2, 3):
        root, began = tmp_path / str(meet_at), list[tuple[RunDirectory, Plan]]()
        writes, config = 0, config_of(root)
        with suppress(StoppedError):
            began.append((new_run(root), plan()))
        ((run, own),) = began
        there = RunDirectory(str(root))
        assert (there.info, there.plan) == (run.info, own)


def test_a_run_is_not_moved_from_under_its_driver(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    with Journal(run.storage):
        for act in (set_aside, directory.require_usable):
            with pytest.raises(StoppedError, match="another driver works on this run"):
                act(run.storage.root)
    directory.require_usable(run.storage.root)
    set_aside(run.storage.root)
    assert not (tmp_path / "run").exists()


def test_updates_are_kept(tmp_path: Path) -> None:
    new_run(tmp_path).update(status="done", profile={"device": "x"})
    info = RunDirectory(str(tmp_path)).info
    assert (info["status"], info["profile"], info["poolscore"]) == ("done", {"device": "x"}, "0.1")


def test_totals_are_sums_over_the_journal(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    journal = Journal(run.storage)
    journal.close()
    for one in (report(0, 7, 3, reason="a"), report(1, 8, 2, reason="b"), report(1, 99), report(2, 5, 1, reason="a")):
        journal.append(one)
    totals = run.totals()
    assert (totals.shards, totals.scored, totals.rejected, totals.rows) == (3, 20, 6, 26)
    assert totals.reasons == {"a": 4, "b": 2}
    assert (totals.worker_seconds, totals.rows_per_worker_second) == (3.0, 26 / 3)
    assert Totals().rows_per_worker_second == 0.0


def test_reasons_of_a_kind_add_up_over_shards(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    journal = Journal(run.storage)
    for shard, (rejected, reason) in enumerate([(2, "300 tokens"), (3, "null"), (2, "412 tokens")]):
        journal.append(report(shard, 7, rejected, reason=reason))
    assert run.totals().reasons == {"N tokens": 4, "null": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no run directory"),
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff", "is damaged"),
        (b"[]", "was not written by poolscore"),
        (b'{"loss": 0.1}', "was not written by poolscore"),
        (b'{"format": "1"}', "was not written by poolscore"),
        (b'{"format": 2, "poolscore": "9.0"}', "was written by poolscore 9.0; upgrade"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        RunDirectory(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(ConfigError, match=r"is no run directory"):
        RunDirectory(str(tmp_path / "none"))


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"is no run directory"):
        RunDirectory(str(tmp_path / "file"))


def test_a_foreign_configuration_is_refused_in_one_line(tmp_path: Path) -> None:
    new_run(tmp_path)
    info = json.loads((tmp_path / "run.json").read_text())
    info["config"]["run"]["colour"] = "red"
    (tmp_path / "run.json").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match=r"run.json: run: unknown key 'colour'"):
        _ = RunDirectory(str(tmp_path)).config


def test_whether_there_is_a_run(tmp_path: Path) -> None:
    assert not exists(str(tmp_path / "none"))
    assert not exists(str(tmp_path))
    (tmp_path / ".DS_Store").touch()
    (tmp_path / directory.PLAN).touch()  # what a run that was stopped at its birth leaves
    assert not exists(str(tmp_path))
    new_run(tmp_path)
    assert exists(str(tmp_path))
    (tmp_path / "holiday.jpg").touch()
    assert exists(str(tmp_path))


@pytest.mark.parametrize("name", ["holiday.jpg", "_log/000001/00000001.json", "_SUCCESS", "selection.parquet"])
def test_a_folder_with_other_things_is_refused(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / directory.PLAN, tmp_path / name):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(ConfigError, match=rf"^run.dir: .* holds other files \({name.split('/')[0]}, "):
        exists(str(tmp_path))


def test_old_runs_are_moved_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "T")
    root = tmp_path / "run"
    places = []
    for number in range(3):
        new_run(root, number=number)
        places.append(set_aside(f"{root}/"))
        assert not root.exists()
    assert places == [f"{root}.old-T", f"{root}.old-T-2", f"{root}.old-T-3"]
    assert [RunDirectory(place).config.model.args["number"] for place in places] == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"cannot be moved aside"):
        set_aside(str(root))


SECRETS = [
    "password",
    "DB_PASSWORD",
    "secret",
    "client_secret",
    "aws_secret_access_key",
    "api_key",
    "apikey",
    "api-key",
]
SECRETS += [
    "token",
    "hf_token",
    "hfToken",
    "access_token",
    "authToken",
    "hf-token",
    "credentials",
    "private_key",
    "passphrase",
]
PLAIN = ["tokenizer", "max_tokens", "tokens", "keep", "key", "passes", "monkey", "classes", "author", "input"]


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("value", ["hush", 1234, ["hush"], {"a": ["hush", 1234]}, [{"a": "hush"}]])
def test_secrets_are_redacted_by_name(key: str, value: Any) -> None:
    shown = json.dumps(redacted({"model": [{key: value}]}))
    assert "hush" not in shown
    assert "1234" not in shown
    assert key in shown


@pytest.mark.parametrize("key", PLAIN)
def test_other_names_are_not_redacted(key: str) -> None:
    value = {"a": {key: ["x", 1, None, True]}}
    assert redacted(value) == value


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://key:secret@bucket/a@2x", "s3://[redacted]@bucket/a@2x"),
        ("redis://:p@ss@host:1", "redis://[redacted]@host:1"),
        ("see https://me@host/x and https://you:pw@host", "see https://[redacted]@host/x and https://[redacted]@host"),
        ("s3://bucket/a@2x.png", "s3://bucket/a@2x.png"),
        ("someone@example.org", "someone@example.org"),
    ],
)
def test_users_of_uris_are_redacted(uri: str, shown: str) -> None:
    assert redacted({"a": [uri]}) == {"a": [shown]}


def test_a_run_holds_no_secret_and_can_still_be_read(tmp_path: Path) -> None:
    run = new_run(tmp_path, hf_token="hush", nested=[{"password": 1234}], url="https://a:hush@host")
    text = (tmp_path / "run.json").read_text()
    assert "hush" not in text
    assert "1234" not in text
    assert run.config.model.args["hf_token"] == "[redacted]"


def test_a_run_that_was_moved_aside_does_not_overwrite_its_successor(tmp_path: Path) -> None:
    old = new_run(tmp_path / "run", width=1)
    set_aside(str(tmp_path / "run"))
    new_run(tmp_path / "run", width=2)
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(StoppedError, match="holds another run by now"):
        old.update(status="stopped")
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_an_input_may_be_called_token(tmp_path: Path) -> None:
    config = parse_config(
        config_of(tmp_path).model_dump(mode="json") | {"pool": {"uri": "/p", "inputs": {"token": {"column": "x"}}}}
    )
    assert create_run(str(tmp_path), config, "0.1", plan(), {}).config == config


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="abc", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(PLAIN), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
@settings(max_examples=50, deadline=None)
def test_what_is_no_secret_is_left_alone(value: Any) -> None:
    assert redacted(value) == value
