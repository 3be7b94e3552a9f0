"""The driver is killed at every step that storage can tell apart, and the run is resumed."""

from __future__ import annotations

import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos.job import Job, Workshop
from chaos.same import Outcome, outcome, same
from chaos.struck import APPEARS, Strike, in_child, said

from poolscore.engine.run.directory import RUN


@dataclass
class Steps:
    """A run of a few shards in the driver's own process, begun anew as often as it takes."""

    job: Job
    log: Path
    reference: Outcome
    calls: list[str]  # of the undisturbed run

    def run(self, strike: Strike | None = None) -> int:
        return in_child(["score", str(self.job.file)], self.job.run_dir, self.log, strike)

    def anew(self) -> None:
        shutil.rmtree(self.job.run_dir, ignore_errors=True)

    def finish(self) -> str | None:
        """Resume; returns what is wrong."""
        if code := self.run():
            return f"resumed, it ends with {code}: {said(self.log)}"
        try:
            same(self.job.run_dir, self.reference)
        except AssertionError as error:
            return str(error).splitlines()[0]
        return None


@pytest.fixture(scope="module")
def steps(_workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    _workshop.pace(0)
    folder = tmp_path_factory.mktemp("steps")
    config = _workshop.config(str(folder / "run"), executor="local", shard_rows=300)
    config["passes"]["split"] = False  # nothing to trace: a run takes a third of the time
    job = Job(folder, config)
    there = Steps(job, folder / "calls", Outcome(0, None, None, b""), [])  # type: ignore[arg-type]
    assert there.run() == 0, said(there.log)
    there.calls = there.log.read_text().splitlines()
    there.reference = outcome(job.run_dir)
    return there


def _kind(call: str) -> str:
    """What a call is about, whatever its number and its random part: a part, a record, a compaction, …"""
    return re.sub(r"[0-9a-f]{8}|\d+", "#", call)


def _killed_at_each(steps: Steps, calls: list[str], match: str, after: bool, each_kind: bool = False) -> None:
    """Require that a run is right which was killed at one of the calls, and resumed. `each_kind`: at the first of each
    kind only."""
    wrong = []
    kinds = [_kind(call) for call in calls]
    for nth, call in enumerate(calls, 1):
        if each_kind and kinds[nth - 1] in kinds[: nth - 1]:
            continue
        steps.anew()
        killed = steps.run(Strike(nth, match, after))
        found = steps.finish() if killed == -9 else f"it was not killed, but ended with {killed}: {said(steps.log)}"
        if found is not None:
            wrong.append(f"{nth}. {call}: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("each_kind", [True, pytest.param(False, marks=pytest.mark.chaos)])
def test_the_driver_is_killed_after_each_thing_that_appears(steps: Steps, each_kind: bool) -> None:
    appears = [call for call in steps.calls if re.match(APPEARS, call)]
    assert any(RUN in call for call in appears)
    assert any(re.search(r"_log/\d+/\d+-\d+", call) for call in appears), "no compaction"
    _killed_at_each(steps, appears, APPEARS, True, each_kind)


@pytest.mark.chaos
def test_the_driver_is_killed_before_every_call(steps: Steps) -> None:
    _killed_at_each(steps, steps.calls, "", after=False)


@pytest.mark.chaos
@pytest.mark.parametrize("round_", range(10))
def test_the_driver_is_killed_again_and_again(steps: Steps, rng: random.Random, round_: int) -> None:
    steps.anew()
    killed_before = []
    for _ in range(8):
        killed_before.append(rng.randint(1, 12))
        if steps.run(Strike(killed_before[-1])) == 0:
            break
    assert steps.finish() is None, f"killed before calls {killed_before}"
