"""Selecting on Ray gives the bytes that selecting on threads gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_select import make_run

from poolscore.engine.errors import StoppedError
from poolscore.engine.selection import write as write_module
from poolscore.engine.selection.batch import selected
from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.write import workers_on, write_batch, write_selection
from poolscore.engine.storage.local import LocalStorage

pytestmark = pytest.mark.usefixtures("ray_session")


def test_the_bytes_are_those_of_threads(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    run = make_run(tmp_path / "run", [random.integers(0, 9, 3000).astype(float).tolist() for _ in range(5)])
    storage = LocalStorage(tmp_path)
    (tmp_path / "sent.csv").write_text("id\nr7\nr8\n")
    with workers_on("local") as workers:
        for method, k in (("topk", 100), ("topk", 150_000), ("power", 100), ("softrank", 5)):
            for name, where in (("ray", workers), ("threads", None)):
                choice = Choice.of(run.config, k=k, method=method)
                with selected([run], run.config, choice, exclude=str(tmp_path / "sent.csv"), workers=where) as batch:
                    write_selection(storage, batch, name)
            assert storage.read("ray") == storage.read("threads")


def test_caps_and_control_on_ray_are_those_on_threads(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    run = make_run(tmp_path / "run", [random.integers(0, 9, 3000).astype(float).tolist() for _ in range(5)])
    storage = LocalStorage(tmp_path)
    with workers_on("local") as workers:
        for method, k, caps in (("topk", 100, {"prediction": 20}), ("power", 9000, {"prediction": 1400})):
            for name, where in (("ray", workers), ("threads", None)):
                choice = Choice.of(run.config, k=k, method=method, max_per_group=caps, quotas={"3": 5}, control=0.1)
                with selected([run], run.config, choice, workers=where) as batch:
                    write_selection(storage, batch, name)
            assert storage.read("ray") == storage.read("threads")


def test_a_part_that_is_gone_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [[1.0, 2.0]])
    Path(run.storage.path("scores/part-00000-x.parquet")).unlink()
    with (
        workers_on("local") as workers,
        pytest.raises(StoppedError, match="cannot be read"),
        selected([run], run.config, Choice.of(run.config), workers=workers),
    ):
        pass


def test_a_large_run_on_a_cluster_is_selected_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    real = workers_on

    def seen(address: str | None):  # type: ignore[no-untyped-def]
        asked.append(address)
        return real(address)

    monkeypatch.setattr(write_module, "workers_on", seen)
    run = make_run(tmp_path / "run", [[1.0, 2.0, 3.0]])
    of_cluster = run.config.model_copy(update={"run": run.config.run.model_copy(update={"address": "local"})})
    for config, rows in ((of_cluster, 50_000_000), (of_cluster, 1000), (run.config, 50_000_000)):
        write_batch(run, config, rows)
    assert asked == ["local", None, None]
