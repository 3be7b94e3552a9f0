"""What a person sees where there is no terminal."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from poolscore.engine.run.errands import ErrandState
from poolscore.jobs.show import progress as moving


def test_a_long_pack_tells_where_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(moving.time, "monotonic", lambda: clock[-1])
    monkeypatch.setattr(moving, "console", Console(highlight=False))
    with moving.counting("packing") as progress:
        for now, rows, total in ((100.0, 500, None), (109.0, 900, None), (110.0, 1500, 4000), (115.0, 1700, 4000)):
            clock.append(now)
            progress(rows, total)
        clock.append(120.0)
        progress(2000, None)
    told = capsys.readouterr().out.splitlines()
    assert told == ["packing: 1,500 of 4,000 rows  100 rows/s", "packing: 2,000 rows  75 rows/s"]


def test_a_shortlist_tells_where_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(moving.time, "monotonic", lambda: clock[-1])
    monkeypatch.setattr(moving, "console", Console(highlight=False))
    progress = moving.Progress(SimpleNamespace(rows=9))  # type: ignore[arg-type]
    for now, done in ((100.0, 0), (105.0, 3), (111.0, 20), (112.0, 43)):
        clock.append(now)
        progress.shortlist(ErrandState(done, 43, 1))
    told = capsys.readouterr().out.splitlines()
    assert told == [f"shortlist: {done} of 43 tasks  1 worker" for done in (0, 20, 43)]
