"""`status --follow`: a run as it goes, from its directory alone."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fake_fleet import report
from rich.console import Console
from typer.testing import CliRunner

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.find import find_files
from poolscore.engine.run import heartbeat
from poolscore.engine.run.coordinator import State
from poolscore.engine.run.create import create_run
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.events import RunEvent
from poolscore.engine.run.heartbeat import Driver, this_process
from poolscore.engine.run.journal import Journal
from poolscore.engine.run.live import Live, at_stage
from poolscore.jobs import follow as following
from poolscore.jobs.cli import app
from poolscore.jobs.follow import BEGIN, follow
from poolscore.jobs.show import progress
from poolscore.jobs.status import facts_of, run_of, state_of
from poolscore.jobs.submit.job import Job

Step = Callable[[], object]
ELSEWHERE = Driver(host="gpu-7", pid=7, boot="another machine's", pids="pid:[1]", started="1")


class Night:
    """A run of six shards whose driver does one thing between two looks at it."""

    def __init__(self, config: Config, patch: pytest.MonkeyPatch) -> None:
        self.config, self.uri = config, config.run.dir
        self._steps: list[Step] = []
        self.looks = 1
        patch.setattr(following.time, "sleep", self._next)
        patch.setattr(progress, "PLAIN_LINE_EVERY", 0.0)
        patch.setattr(following, "PLAIN_LINE_EVERY", 0.0)

    def begin(self, driver: Driver | None = None, beat: float = 1000.0) -> None:
        """The run is there, and its driver works on it."""
        plan = make_plan(find_files(self.config.pool.uri, "pool.uri"), 100)
        self.run = create_run(self.uri, self.config, "0", plan, {})
        self.journal = Journal(self.run.storage, driver or this_process(), beat)
        self.run.update(epoch=self.journal.epoch)

    def score(self, shard: int, seconds: float) -> None:
        """A shard is done by the second `seconds`."""
        self.journal.append(
            replace(report(shard, 90, 10), rejected_by={"decode": 10}, stages={"idle": 1.0, "model": 3})
        )
        now = iter([0.0, seconds])
        live = Live(lambda: next(now))
        none = State(replace(self.run.totals(), scored=0, rejected=0), 2, 3, 1, 0)
        live.of(none)
        self.run.update(live=live.of(replace(none, totals=self.run.totals())))

    def end(self, status: str, code: int) -> None:
        self.run.end(status, code, totals=asdict(self.run.totals()))
        self.journal.close()

    def then(self, *steps: Step) -> None:
        self._steps += steps

    def _next(self, seconds: float) -> None:
        assert self._steps, "it looks on although the run has ended"
        self.looks += 1
        self._steps.pop(0)()


@pytest.fixture
def night(digit_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Night:
    return Night(digit_config(), monkeypatch)


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("incomplete", 3), ("stopped", 4), ("stopped", 2)])
def test_it_ends_with_the_run_and_as_the_run_did(
    night: Night, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    night.begin()
    lost = RunEvent("lost", 1, 4, "its node is gone", at=2e9)
    night.then(
        lambda: night.score(0, 10.0),
        lambda: (night.run.note(lost), night.score(1, 20.0)),
        lambda: night.end(status, code),
    )
    assert follow(night.uri) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0 of 600 rows  0 of 6 shards")
    assert "100 of 600 rows  1 of 6 shards  10 rejected  10 rows/s  50.0 s left  2 workers" in lines[1]
    assert any(line.endswith("worker 1 lost, shard 4: its node is gone") for line in lines[2:4]), "when it happens"
    whole = "\n".join(lines)
    assert re.search(f"^  status +{status}$", whole, re.MULTILINE), "at the end"
    assert "20 rejected (decode 20)" in whole
    assert "device idle 25%" in whole


def test_scripts_get_a_line_of_json_for_each_look(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    night.begin()
    night.then(lambda: night.score(0, 10.0), lambda: night.end("done", 0))
    assert follow(night.uri, as_json=True) == 0
    first, second, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["rows_per_second"], first["eta_seconds"], first["workers"]) == (None, None, None)
    assert (second["rows_per_second"], second["eta_seconds"]) == (10.0, 50.0)
    assert second["shards"] == {"done": 1, "all": 6, "in_flight": 3, "retried": 1, "set_aside": 0}
    assert second["rejected_by_stage"] == {"decode": 10}
    assert second["idle_share"] == 0.25
    assert (last["status"], last["exit_code"], last["rows_per_second"]) == ("done", 0, None)
    assert [event["what"] for event in last["events"]] == ["ended"]


def test_on_a_terminal_the_view_is_drawn_anew(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=150)
    monkeypatch.setattr(following, "console", screen)
    night.begin()
    night.then(lambda: night.score(0, 10.0), lambda: night.end("done", 0))
    follow(night.uri)
    drawn = screen.file.getvalue()  # type: ignore[attr-defined]
    assert drawn.count("  shards") >= 3
    assert "1 of 6; 3 in flight; 1 retried" in drawn
    assert "\x1b[2K" in drawn, "in the place of the one before"


def test_a_driver_that_is_gone_is_told_of_with_what_to_do(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    night.begin(replace(this_process(), started="1"))
    assert follow(night.uri) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "is gone; the same command goes on with the run, or `poolscore retry" in said


def test_one_elsewhere_is_taken_for_dead_once_its_heart_stands_still(
    night: Night, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(following, "Pulse", lambda: heartbeat.Pulse(lambda: now[0]))
    night.begin(ELSEWHERE, beat=5.0)
    night.journal._heart._stopped.set()  # its process is gone, without a word

    def beat(count: int) -> None:
        now[0] += 19.0
        night.journal._heart._publish(json.dumps({**night.journal._driver, "count": count}).encode())

    def silence() -> None:
        now[0] += 19.0

    night.then(lambda: beat(1), lambda: beat(2), silence, silence)
    assert follow(night.uri) == 4
    assert night.looks == 5
    assert "process 7 on gpu-7 is gone" in " ".join(capsys.readouterr().err.split())


def test_one_who_ends_between_two_reads_is_not_taken_for_dead(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.begin()
    look = following.state_of
    first = iter([True])

    def late(run: RunDirectory, *rest: object, **options: object) -> dict[str, object]:
        if next(first, False):
            night.end("done", 0)  # after run.json was read, before its driver is asked for
        return look(run, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(following, "state_of", late)
    assert follow(night.uri) == 0


def test_it_ends_after_the_driver_which_scores_rows_again_when_the_run_is_done(night: Night) -> None:
    night.begin()
    night.then(lambda: night.run.end("done", 0), lambda: (night.run.update(exit_code=3), night.journal.close()))
    assert follow(night.uri) == 3


def test_a_run_whose_driver_died_before_it_began_is_not_followed_for_ever(
    night: Night, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(following.time, "monotonic", lambda: now[0])
    plan = make_plan(find_files(night.config.pool.uri, "pool.uri"), 100)
    create_run(night.uri, night.config, "0", plan, {})

    def wait(seconds: float) -> None:
        now[0] += seconds

    night.then(lambda: wait(BEGIN - 1), lambda: wait(2))
    assert follow(night.uri) == 4
    assert night.looks == 3
    assert "no driver has begun with it; the same command goes on" in " ".join(capsys.readouterr().err.split())


def test_what_is_done_besides_scoring_is_shown(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    night.begin()

    def verify() -> None:
        night.run.end("done", 0, totals=asdict(night.run.totals()))
        night.run.update(live=at_stage("verification"))

    night.then(
        lambda: night.run.update(live=at_stage("compiling")),
        lambda: night.score(0, 10.0),
        lambda: night.run.update(live=at_stage("shortlist", done=3, of=9, workers=2)),
        verify,
        lambda: (night.run.update(live=None), night.journal.close()),
    )
    assert follow(night.uri) == 0
    lines = [line.partition("rejected  ")[2] for line in capsys.readouterr().out.splitlines() if "rejected  " in line]
    assert [line[:42] for line in lines] == [
        "0 rows/s per worker",
        "a machine with the workers' device is aske",
        "10 rows/s  50.0 s left  2 workers  100 row",
        "the shortlist is made of the best rows, 3 ",
        "some rows are scored again",
        "100 rows/s per worker",
    ]


def test_status_shows_the_stage_too(night: Night) -> None:
    night.begin()
    night.run.update(live=at_stage("shortlist", done=3, of=9, workers=2))
    state = state_of(night.run, night.run.totals())
    assert state["stage"] == {"stage": "shortlist", "done": 3, "of": 9}
    assert dict(facts_of(state))["status"] == "running: the shortlist is made of the best rows, 3 of 9 tasks"
    night.run.end("done", 0)
    night.run.update(live=at_stage("verification"))
    assert dict(facts_of(state_of(night.run, night.run.totals())))["status"] == "done: some rows are scored again"
    night.journal.close()
    after = state_of(night.run, night.run.totals(), ask=lambda *_: False)  # the driver died of it
    assert dict(facts_of(after))["status"] == "done"


def test_one_who_waits_for_a_job_waits_for_its_run_too(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    ended: list[int] = []
    night.then(night.begin, lambda: night.score(0, 1.0), lambda: ended.append(1))
    assert follow(night.uri, stop=lambda: bool(ended)) is None
    assert "1 of 6 shards" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="is no run directory"):
        follow(str(Path(night.uri) / "nothing"))


def test_the_end_of_an_earlier_call_does_not_end_it_for_one_who_waits_for_a_job(night: Night) -> None:
    night.begin()
    night.end("interrupted", 130)
    stops = iter([False, False, True])
    night.then(lambda: None, lambda: None)
    assert follow(night.uri, stop=lambda: next(stops)) == 130


def test_a_run_in_a_bucket_is_followed_too(
    digit_config: Callable[..., Config],
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    night = Night(digit_config(run={"dir": f"{bucket}/run"}), monkeypatch)
    night.begin()
    night.then(lambda: night.score(0, 10.0), lambda: night.end("done", 0))
    assert follow(night.uri) == 0
    assert "1 of 6 shards" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["running", "failed"])
def test_status_of_a_job_is_that_of_its_run(
    night: Night, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    code = None if state == "running" else 2
    jobs = {"run-1": Job("run-1", state, night.uri, code, "there is no GPU", None, None, "http://127.0.0.1:8265")}
    monkeypatch.setattr("poolscore.jobs.submit.job.find_job", lambda name, address: jobs.get(name))
    monkeypatch.chdir(Path(night.uri).parent)  # where the run's folder, once it is there, is no job
    assert run_of("run-1", None, as_json=True) is None, "its run has not begun"
    shown = capsys.readouterr().out
    assert shown.startswith(f"job run-1: {state} (there is no GPU), run directory {night.uri}")
    assert f'"exit_code": {json.dumps(code)}' in shown
    night.begin()
    assert run_of("run-1", None, as_json=False) == night.uri
    assert run_of("run", None, as_json=False) == "run"
    assert run_of("s3://photos/run-1", None, as_json=False) == "s3://photos/run-1"
    with pytest.raises(ConfigError, match="run-2 is neither a run directory nor a job of the cluster"):
        run_of("run-2", None, as_json=False)


def test_to_follow_a_job_is_to_end_as_it_does(
    night: Night, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From before its run is there, and beyond the end of an earlier job on the same run."""

    class There:
        url = "http://127.0.0.1:8265"
        told = Job("run-1", "pending", night.uri, None, None, None, None, url)

        def job(self, name: str) -> Job:
            return self.told

        require_job = job

    there = There()
    monkeypatch.setattr("poolscore.jobs.submit.job.find_job", lambda name, address: there.told)
    monkeypatch.setattr("poolscore.jobs.submit.cluster.connect", lambda address: there)
    monkeypatch.chdir(Path(night.uri).parent)

    def fail() -> None:
        there.told = replace(there.told, state="failed", exit_code=2, message="no GPU")

    night.then(lambda: None, night.begin, lambda: night.end("interrupted", 130), lambda: None, fail)
    result = CliRunner().invoke(app, ["status", "run-1", "--follow"])
    assert result.exit_code == 2, result.output
    assert "run-1 failed: no GPU" in " ".join((result.output + "".join(capsys.readouterr())).split())
    there.told = replace(there.told, run_dir=None)
    result = CliRunner().invoke(app, ["status", "run-1", "--follow"])
    assert "none of poolscore's jobs" in str(result.exception)


def test_what_is_no_run_is_said_first_where_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(name: str, address: str | None) -> None:
        raise ConfigError("no cluster answers at http://127.0.0.1:8265")

    monkeypatch.setattr("poolscore.jobs.submit.job.find_job", nobody)
    with pytest.raises(ConfigError, match=r"^rnu is no run directory, and was not found as a job: no cluster answers"):
        run_of("rnu", None, as_json=False)
    with pytest.raises(ConfigError, match=r"^no cluster answers"):
        run_of("rnu", "http://127.0.0.1:8265", as_json=False)
