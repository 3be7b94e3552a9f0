"""`make gpu`: order, budget and what is done, with parts that are made up; one real part in its process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_row_stats
import gpu
from gpu_parts.listed import PARTS
from gpu_parts.part import Part, Result, figure, tell, told

ENVIRONMENT = {"commit": ""}


def made_up(seconds: int) -> Part:
    return Part("made up", seconds, lambda device, folder: {"ok": True, "figures": []})


class Clock:
    """Parts take as long as is said."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[tuple[str, float]] = []

    def run(self, name: str, left: float) -> None:
        self.ran.append((name, left))
        self.now += {"a": 50.0, "b": 10.0, "c": 5.0}[name]


def test_no_part_is_started_that_does_not_fit() -> None:
    clock = Clock()
    parts = {"a": made_up(20), "b": made_up(60), "c": made_up(10)}
    became = gpu.run_parts(list(parts), parts, lambda name: False, clock.run, 60, lambda: clock.now)
    assert became == {"a": "ran", "b": "left", "c": "ran"}  # a took longer than was guessed
    assert clock.ran == [("a", 60), ("c", 10)]


def test_a_part_that_is_done_takes_nothing_of_the_budget() -> None:
    clock = Clock()
    parts = {"a": made_up(60), "b": made_up(60)}
    became = gpu.run_parts(list(parts), parts, lambda name: name == "a", clock.run, 60, lambda: clock.now)
    assert became == {"a": "done before", "b": "ran"}


def test_results_count_with_the_same_hardware_and_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "sources", lambda: "one")
    results = gpu.Results(tmp_path, "H")
    assert not results.done("bits")
    results.write("bits", {"ok": True, "figures": []}, ENVIRONMENT, 1.0)
    assert results.done("bits")
    assert not results.done("soak")
    assert not gpu.Results(tmp_path, "other").done("bits")
    monkeypatch.setattr(gpu, "sources", lambda: "two")
    assert not gpu.Results(tmp_path, "H").done("bits")


def test_the_newest_result_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = gpu.Results(tmp_path, "H")
    for day, ok in (("01", True), ("02", False)):
        monkeypatch.setattr(gpu.time, "strftime", lambda form, day=day: f"2026-01-{day}-000000")
        results.write("bits", {"ok": ok, "figures": []}, ENVIRONMENT, 1.0)
    assert not results.done("bits")


def test_what_is_missing_may_come_later_and_other_files_are_no_results(tmp_path: Path) -> None:
    results = gpu.Results(tmp_path, "H")
    (tmp_path / "onnx_H_2099-01-01-000000.json").write_text('{"environment": {}}')
    assert results.last("onnx") is None
    results.write("onnx", {"ok": True, "left_out": "no provider", "figures": []}, ENVIRONMENT, 1.0)
    assert not results.done("onnx")
    assert results.tried("onnx")


def test_a_part_that_failed_has_its_turn_behind_those_that_had_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = gpu.Results(tmp_path, "cpu")
    results.write("kernels", {"ok": False, "figures": []}, ENVIRONMENT, 1.0)
    results.write("bits", {"ok": False, "figures": [], "cut_short": True}, ENVIRONMENT, 1.0)  # no time was left
    ran: list[str] = []
    monkeypatch.setattr(gpu, "in_a_process", lambda name, *rest: ran.append(name))
    parts = [word for name in ("kernels", "bits", "soak") for word in ("--part", name)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--out", str(tmp_path), *parts])
    monkeypatch.setattr(gpu.signal, "signal", lambda *_: None)
    monkeypatch.setenv("PYTHONPATH", "")
    assert gpu.main() == 1
    assert ran == ["bits", "soak", "kernels"]
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[1].strip(":") for line in lines] == ["kernels", "bits", "soak"]  # the most important first


def test_the_commit_where_there_is_no_git(tmp_path: Path) -> None:
    results = gpu.Results(tmp_path, "H")
    for given, expected in ((None, "unknown"), ("abc\n", "abc")):
        if given:
            (tmp_path / "COMMIT").write_text(given)
        results.write("bits", {"ok": True, "figures": []}, ENVIRONMENT, 1.0)
        found = results.last("bits")
        assert found is not None
        assert found["environment"]["commit"] == expected
        for file in tmp_path.glob("bits*"):
            file.unlink()


def test_the_table_says_what_is_left_and_what_failed(tmp_path: Path) -> None:
    results = gpu.Results(tmp_path, "H")
    good: Result = {"ok": True, "figures": [figure("rows", 5, "rows/s", 7, ">= 4")]}
    results.write("bits", good, ENVIRONMENT, 1.0)
    results.write("soak", {"ok": False, "figures": [], "error": "it hangs\nsomewhere"}, ENVIRONMENT, 1.0)
    results.write("cpu", {"ok": False, "figures": []}, ENVIRONMENT, 1.0)
    lines = gpu.table({"bits": "ran", "soak": "done before", "cpu": "left"}, results).splitlines()
    assert lines[1].startswith("ok   bits")
    assert lines[2].split() == ["rows", "5", "rows/s", "7", ">=", "4"]
    assert lines[3].startswith("FAIL soak")
    assert lines[3].endswith("it hangs")
    assert lines[4].startswith("LEFT cpu")


def test_a_part_ends_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "part.py"
    script.write_text(
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setattr(gpu, "environment", lambda: ENVIRONMENT)
    results = gpu.Results(tmp_path / "out", "H")
    gpu.in_a_process("bits", "cpu", results, seconds=3)
    found = results.last("bits")
    assert found is not None
    assert found["result"]["error"] == "was not done in time"
    assert not results.tried("bits")  # 3 seconds are less than it may take
    started = Path("/proc") / (tmp_path / "pid").read_text()
    assert not started.exists() or (started / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"


def test_a_part_that_raises_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: str, folder: Path) -> Result:
        raise ValueError("no luck")

    monkeypatch.setitem(PARTS, "bits", Part("made up", 1, fails))
    monkeypatch.setattr(gpu, "environment", lambda: ENVIRONMENT)
    gpu.child("bits", "cpu", tmp_path)
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["result"] == {"ok": False, "figures": [], "error": "ValueError: no luck"}


def test_what_a_part_measured_before_it_failed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: str, folder: Path) -> Result:
        tell(folder, {"ok": True, "figures": [figure("rate", 5.0)]})
        raise ValueError("no memory")

    monkeypatch.setitem(PARTS, "bits", Part("fails", 10, fails))
    gpu.child("bits", "cpu", tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())["result"]
    assert result == {"ok": False, "figures": [figure("rate", 5.0)], "error": "ValueError: no memory"}
    assert told(tmp_path / "elsewhere") == {"figures": []}
    assert told(tmp_path / "work")["ok"]  # what is read where a part is killed


def test_a_shape_that_fails_keeps_no_other_from_the_roofline(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(shape_NTC: tuple[int, int, int], *others: object, with_torch: bool) -> Result:
        if shape_NTC[2] == 2:
            raise RuntimeError("out of memory")
        return {"shape_NTC": shape_NTC}

    monkeypatch.setattr(bench_row_stats, "compare", compare)
    monkeypatch.setattr(bench_row_stats, "copy_bandwidth", lambda device, repeats: 1.0)
    found = bench_row_stats.roofline("cpu", 1, ((1, 1, 2), (1, 1, 3)))["shapes"]
    assert [one.get("error") for one in found] == ["RuntimeError('out of memory')"] * 2 + [None] * 2
