"""The time of day jumps while a run is at work."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.elsewhere import CLOCK
from chaos.job import Job, Workshop
from chaos.same import Outcome, same

DAY = 86_400


@pytest.mark.chaos
@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_the_clock_jumps(
    workshop: Workshop, tmp_path: Path, reference: Outcome, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    monkeypatch.setenv(CLOCK, str(clock))
    there = Job(tmp_path, workshop.config(str(tmp_path / "run"), deadline="8h"))  # a duration: no day goes by
    workshop.pace(0.01)
    with there.running(program=("-m", "chaos.elsewhere")) as driver:
        driver.until_journalled(3)
        clock.write_text(str(jump))
        driver.until_journalled(12)
        workshop.pace(0)
        driver.wait()
    same(there.run_dir, reference)
