"""A loop that is killed, interrupted, or whose training dies, goes on to the same curves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import TESTS, taking_ctrl_c
from loop_workshop import Workshop

from poolscore.engine.errors import InterruptedRun, StoppedError

LOOP = {"control": "random", "seeds": [2], "stop": {"rounds": 2}}
REPEATED = {"count": 4, "split": False}  # which is quicker to set up
STAGES = [  # each of them is reached by the next process after the one before was killed
    "before loop.json",
    "before labelled.parquet",
    "after labelled.parquet",
    "before trained.json",
    "after trained.json",
    "after scores/part-00000",
    "after selection.parquet",
    "before scored.json",
    "after scored.json",
    "before labels.parquet",
    "after labels.parquet",
    "before round.json",
    "after round.json",
    "after excluded.parquet",
    "training",  # which kills it
    "after curve.csv",
    "before selection.parquet",
    "after report.html",
    "after round.json",
]


def gone(pid: int) -> bool:
    """Whether a process has ended, within seconds."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_killed_at_every_stage_it_makes_the_same_curve(tmp_path: Path) -> None:
    whole, killed = (Workshop.make(tmp_path / name) for name in ("whole", "killed"))
    whole.loop(LOOP, passes=REPEATED)
    loop = {**LOOP, "train": "loop_parts:train_kills_its_loop", "keep": "last"}
    (killed.folder / "config.json").write_text(json.dumps(killed.data(loop, passes=REPEATED)))
    words = [sys.executable, str(TESTS / "loop_killed.py"), str(killed.folder / "config.json"), *STAGES]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == STAGES, done.stderr
    assert gone(int((killed.folder / "loop" / "pid").read_text())), "a training ends with its loop"
    result = killed.loop(loop, passes=REPEATED)
    assert (result.exit_code, len(result.points)) == (0, 6)
    assert killed.curve == whole.curve
    for arm in ("bald", "random"):
        for number in range(3):
            a, b = (shop.round(number, arm, 2) / "labelled.parquet" for shop in (whole, killed))
            assert pq.read_table(a).equals(pq.read_table(b))
        assert (whole.round(0, arm, 2) / "run" / "scores").exists()
        assert [(killed.round(n, arm, 2) / "run" / "scores").exists() for n in range(3)] == [False, True, False]
    trained = killed.trained
    assert len(trained) - len(set(trained)) == 1, "only the training before 'before trained.json' was done twice"


def test_a_training_that_dies_is_repeated(tmp_path: Path) -> None:
    shop = Workshop.make(tmp_path)
    loop = {"train": "loop_parts:train_killed"}
    with pytest.raises(
        StoppedError, match=r"was killed by SIGKILL in bald, seed 0, round 1 \(last words\); see"
    ) as error:
        shop.loop(loop)
    assert error.value.exit_code == 4
    result = shop.loop(loop)
    assert [point.labels for point in result.points] == [6, 11, 16]
    assert "trained with seed 1" in (shop.round(1) / "train.log").read_text()
    assert shop.trained == ["bald 0 6", "bald 1 11", "bald 2 16"]


def test_ctrl_c_ends_the_training(tmp_path: Path) -> None:
    shop = Workshop.make(tmp_path)
    pid = shop.folder / "loop" / "pid"

    def interrupt() -> None:
        while not pid.exists() or not pid.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with taking_ctrl_c(), pytest.raises(InterruptedRun, match=r"interrupted while training \(bald, seed 0, round 0\)"):
        shop.loop({"train": "loop_parts:train_slowly"})
    assert gone(int(pid.read_text()))


def test_a_labelling_program_ends_with_its_loop(tmp_path: Path) -> None:
    shop = Workshop.make(tmp_path)
    words = [sys.executable, "-P", "-m", "poolscore.jobs.loop.tied"]
    program = [sys.executable, str(TESTS / "loop_parts.py"), str(shop.write_truth(wait=1)), "tasks", "answers"]
    env = {**os.environ, "POOLSCORE_ROUND": "0", "POOLSCORE_SEED": "0"}
    tied = subprocess.Popen([*words, *program], stdin=subprocess.PIPE, start_new_session=True, env=env)
    pid = shop.folder / "pid"
    while not pid.exists() or not pid.read_text():
        time.sleep(0.05)
    assert tied.stdin is not None
    tied.stdin.close()  # as the end of the loop does it
    assert tied.wait(30) == -signal.SIGKILL
    assert gone(int(pid.read_text().split()[0]))
