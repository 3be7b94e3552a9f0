"""What several tests share: Ray without token and statistics, pools of real digits, configurations."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before Ray is imported anywhere: no usage statistics, no token file in the user's home, no shared state.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from s3_server import S3Server, only_loopback, running

from poolscore.engine.config import Config, parse_config
from poolscore.engine.keys import keys_of
from poolscore.engine.pool.read import Blocks, Rows

only_loopback(os.environ)  # before Ray starts workers, which take these settings over

TESTS = Path(__file__).parent
ROWS_PER_GROUP = 50


LONGEST = ("test_interpreter.py", "test_nodes.py", "test_driver_steps.py", "test_storage_fails.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of few but long tests first: where two processes share the files, one would be left alone with the last."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-seed", default="0", help="of the random choices in tests/chaos")


def pytest_report_header(config: pytest.Config) -> str:
    return f"--chaos-seed {config.getoption('--chaos-seed')}"


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def digits() -> pa.Table:
    """1,797 real handwritten digits: id, image (PNG), label."""
    from poolscore.jobs.demo import read_digits

    pictures, labels = read_digits()
    return pa.table(
        {
            "id": [f"digit-{i:04d}" for i in range(len(labels))],
            "image": pa.array([png(p) for p in pictures], pa.binary()),
            "label": labels,
        }
    )


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; tests that need it are skipped where it is not."""
    folder = Path(os.environ.get("POOLSCORE_DATA", TESTS.parents[1] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set POOLSCORE_DATA")
    return folder


def rows_of(ids: list[str | None] | None = None, **columns: Any) -> Rows:
    """Rows as a shard's reader gives them."""
    table = pa.table(columns)
    ids = ids or [f"r{i}" for i in range(table.num_rows)]
    keys = keys_of([i or "" for i in ids])
    return Rows(table, np.arange(table.num_rows, dtype=np.int64), keys, pa.array(ids, pa.string()))


def write_pool(folder: Path, table: pa.Table, files: int = 2, rows_per_group: int = ROWS_PER_GROUP) -> Path:
    """A pool of several files."""
    folder.mkdir(parents=True, exist_ok=True)
    step = -(-table.num_rows // files)
    for i in range(files):
        part = table.slice(i * step, step)
        pq.write_table(part, folder / f"part-{i}.parquet", row_group_size=rows_per_group, compression="none")
    return folder


@pytest.fixture
def digit_config(tmp_path: Path, digits: pa.Table) -> Callable[..., Config]:
    """A configuration over a pool of 600 digits and a small CNN, scored in this process; sections can be changed."""
    pool = write_pool(tmp_path / "pool", digits.slice(0, 600))
    weights = tmp_path / "weights.pt"
    import nets

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(nets.cnn().state_dict(), weights)

    def configure(**sections: dict[str, Any]) -> Config:
        base: dict[str, dict[str, Any]] = {
            "pool": {"uri": str(pool), "input": "image", "decode": {"mode": "L"}, "id": "id", "keep": ["label"]},
            "model": {
                "source": "nets:cnn",
                "path": str(TESTS),
                "weights": str(weights),
                "task": "multiclass",
                "classes": 10,
            },
            "passes": {"count": 5},
            "select": {"k": 20},
            "run": {
                "dir": str(tmp_path / "run"),
                "executor": "local",
                "batch_size": 16,
                "shard_rows": 100,
                "verify_rows": 0,  # it takes longer than the rest
            },
        }
        for name, values in sections.items():
            base[name] = {**base.get(name, {}), **values}
        return parse_config(base)

    return configure


@pytest.fixture
def two_inputs_config(tmp_path: Path) -> Callable[..., Config]:
    """A configuration over token ids and numbers, given as `tokens`, [N, 6]; the model takes both by name."""
    import nets

    def configure(tokens: NDArray[np.int64], **run: Any) -> Config:
        rng = np.random.default_rng(0)
        column = pa.FixedSizeListArray.from_arrays(pa.array(tokens.ravel(), pa.int32()), tokens.shape[1])
        numbers = {name: rng.normal(size=len(tokens)) for name in "ab"}
        write_pool(tmp_path / "pool", pa.table({"tokens": column, **numbers}))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.save(nets.TwoInputs().state_dict(), tmp_path / "two.pt")
        return parse_config(
            {
                "pool": {
                    "uri": str(tmp_path / "pool"),
                    "inputs": {
                        "tokens": {"kind": "tensor", "column": "tokens", "dtype": "int64"},
                        "numbers": {"kind": "features", "columns": ["a", "b"]},
                    },
                },
                "model": {
                    "source": "nets:TwoInputs",
                    "path": str(TESTS),
                    "weights": str(tmp_path / "two.pt"),
                    "task": "multiclass",
                    "classes": ["x", "y", "z"],
                },
                "select": {"k": 5},
                "run": {"dir": str(tmp_path / "run"), "executor": "local", "verify_rows": 0, **run},
            }
        )

    return configure


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server on loopback, where the environment says it is."""
    with running(os.environ["AWS_ENDPOINT_URL"]) as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """The URI of a bucket without objects."""
    return s3_server.new_bucket()


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One embedded Ray for all tests that run in this process."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=80_000_000,
        log_to_driver=False,
        configure_logging=True,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, digits: pa.Table) -> str:
    """A small run that is done; tests only read it or add selections."""
    import nets

    from poolscore.engine.score import score_pool

    folder = tmp_path_factory.mktemp("finished")
    write_pool(folder / "pool", digits.slice(0, 150))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(nets.cnn().state_dict(), folder / "weights.pt")
    config = parse_config(
        {
            "pool": {"uri": "pool", "input": "image", "decode": {"mode": "L"}, "id": "id", "keep": ["label"]},
            "model": {"source": "nets:cnn", "path": str(TESTS), "weights": "weights.pt", "task": "multiclass"},
            "passes": {"count": 3},
            "select": {"k": 5},
            "run": {"dir": "run", "executor": "local", "shard_rows": 50, "verify_rows": 0},
        },
        base=folder,
    )
    return score_pool(config).run_dir


def scores_of_run(run_dir: str) -> pa.Table:
    """All committed scores in the order of the pool."""
    from poolscore.engine.run.directory import RunDirectory

    run = RunDirectory(run_dir)
    parts = [pq.read_table(run.storage.path(report.scores)) for report in run.reports().values()]
    return pa.concat_tables(parts).sort_by("row_id")


def errors_of_run(run_dir: str) -> pa.Table:
    """All committed errors in the order of the pool."""
    from poolscore.engine.run.directory import RunDirectory

    run = RunDirectory(run_dir)
    parts = [pq.read_table(run.storage.path(r.errors)) for r in run.reports().values() if r.errors]
    return pa.concat_tables(parts).sort_by("row_id") if parts else pa.table({"row_id": pa.array([], pa.int64())})


@contextmanager
def taking_ctrl_c() -> Iterator[None]:
    """A job in a shell's background is started with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row_ids that anybody reads of the pool."""
    seen: list[int] = []
    following = Blocks.__next__

    def noted(self: Blocks) -> Rows:
        block = following(self)
        seen.extend(block.row_ids.tolist())
        return block

    monkeypatch.setattr(Blocks, "__next__", noted)
    return seen
