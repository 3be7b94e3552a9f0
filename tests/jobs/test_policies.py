"""The storage policies of jobs/cluster allow what a driver and a worker ask of S3, and a worker to write parts alone.
Requests are those of a real job, as they arrive at a server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from urllib.parse import parse_qs, unquote, urlsplit

import nets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TESTS, write_pool
from pyarrow import fs
from s3_server import Proxy, S3Server, proxy_before

from poolscore.engine.config import Config, parse_config
from poolscore.engine.errors import DONE
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.run.task import LookAgain
from poolscore.engine.score import score_pool
from poolscore.engine.storage.filesystem import locate
from poolscore.engine.worker.worker import ShardWorker

RECIPES = TESTS.parent / "jobs" / "cluster"


@dataclass(frozen=True)
class Request:
    """What IAM decides on."""

    action: str
    resource: str
    new: bool = False  # it may write over nothing (If-None-Match)

    @classmethod
    def of(cls, seen: str, new: bool) -> Request:
        """From method and path of an HTTP request, path-style."""
        method, _, target = seen.partition(" ")
        bucket, _, key = unquote(urlsplit(target).path).removeprefix("/").partition("/")
        if not key:
            assert method in ("GET", "HEAD"), seen
            assert not set(parse_qs(urlsplit(target).query)) - {"list-type", "prefix", "delimiter", "max-keys"}, seen
            return cls("s3:ListBucket", f"arn:aws:s3:::{bucket}")
        actions = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}
        return cls(actions[method], f"arn:aws:s3:::{bucket}/{key}", new)


class Policy:
    """A policy of the recipes, for the buckets of a test."""

    def __init__(self, role: str, **buckets: str) -> None:
        text = (RECIPES / f"policy-{role}.json").read_text()
        for name, uri in buckets.items():
            text = text.replace(f"example-{name}", uri.removeprefix("s3://"))
        self.statements = json.loads(text)["Statement"]

    def allows(self, request: Request) -> bool:
        return any(
            request.action in _list(one["Action"])
            and any(fnmatchcase(request.resource, pattern) for pattern in _list(one["Resource"]))
            and (request.new or "Condition" not in one)
            for one in self.statements
        )


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True)
class Night:
    """A job that is done, and what was asked of storage."""

    config: Config
    photos: str
    runs: str
    proxy: Proxy
    of_driver: Sequence[Request]

    def refused(self, role: str, asked: Sequence[Request]) -> list[Request]:
        policy = Policy(role, photos=self.photos, runs=self.runs)
        return [request for request in asked if not policy.allows(request)]


def requests_at(proxy: Proxy) -> list[Request]:
    """Of everything since the last look."""
    seen, proxy.seen[:] = list(proxy.seen), []
    return [Request.of(one, one in proxy.new) for one in seen]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, digits: pa.Table, s3_server: S3Server) -> Iterator[Night]:
    """A pool with a broken picture, and weights, in a bucket; the run in another one."""
    folder, table = tmp_path_factory.mktemp("night"), digits.slice(0, 100)
    images = table["image"].to_pylist()
    images[3] = b"no picture"
    write_pool(folder / "pool", table.set_column(table.schema.get_field_index("image"), "image", pa.array(images)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(nets.cnn().state_dict(), folder / "weights.pt")
    photos, runs = s3_server.new_bucket(), s3_server.new_bucket()
    at = locate(f"{photos}/")
    fs.copy_files(str(folder), at.path.rstrip("/"), fs.LocalFileSystem(), at.filesystem)
    config = parse_config(
        {
            "pool": {"uri": f"{photos}/pool", "input": "image", "decode": {"mode": "L"}, "id": "id"},
            "model": {"source": "nets:cnn", "path": str(TESTS), "task": "multiclass"}
            | {"weights": f"{photos}/weights.pt"},
            "passes": {"count": 3},
            "select": {"k": 5},
            "run": {"dir": f"{runs}/night/1", "executor": "local", "verify_rows": 0}
            | {"shard_rows": 50, "max_bad_fraction": 0.5},
        }
    )
    with proxy_before(os.environ["AWS_ENDPOINT_URL"]) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert score_pool(config).exit_code == DONE
        yield Night(config, photos, runs, proxy, requests_at(proxy))


def test_the_driver_needs_no_more_than_its_policy(night: Night) -> None:
    assert night.refused("driver", night.of_driver) == []
    assert {request.action.removeprefix("s3:") for request in night.of_driver} == {
        "ListBucket",
        "GetObject",
        "PutObject",
        "DeleteObject",
    }
    pool = [request for request in night.of_driver if night.photos.removeprefix("s3://") in request.resource]
    assert {request.action for request in pool} == {"s3:ListBucket", "s3:GetObject"}


def test_a_worker_needs_no_more_than_its_policy(night: Night) -> None:
    """It reads, and writes parts; it deletes nothing, and touches neither journal nor run.json."""
    run, prepared = RunDirectory(night.config.run.dir), prepare_job(night.config)
    row = pq.read_table(pa.BufferReader(run.storage.read(run.reports()[0].scores))).slice(0, 1).to_pylist()[0]
    ids, keys = np.array([row["row_id"]], np.int64), np.array([row["key"]], np.uint64)
    again = LookAgain(prepared.plan.shards[0], ids, keys)
    requests_at(night.proxy)
    worker = ShardWorker(replace(prepared.job, run_id=run.info["id"]))
    try:
        report = worker.score(prepared.plan.shards[0])
        looked = worker.look_again(again)
    finally:
        worker.close()
    asked = requests_at(night.proxy)
    assert night.refused("worker", asked) == []
    written = {request.resource.split("/", 1)[1] for request in asked if request.action == "s3:PutObject"}
    assert written == {f"night/1/{name}" for name in (report.scores, report.errors, looked.part.name)}
    assert report.errors is not None
    for request in asked:
        if request.action == "s3:PutObject":  # what is there is nobody's to write over
            assert night.refused("worker", [replace(request, new=False)])


def test_the_only_condition_of_the_policies_is_the_one_that_is_understood_here() -> None:
    conditions = [one.get("Condition") for role in ("driver", "worker") for one in Policy(role).statements]
    assert [one for one in conditions if one is not None] == [{"Null": {"s3:if-none-match": "false"}}]


@pytest.mark.parametrize("name", ["run.json", "_log/000001/000000.json", "selection.parquet", "_SUCCESS"])
def test_the_workers_policy_leaves_the_drivers_objects_alone(name: str) -> None:
    worker, driver = (Policy(role, runs="runs", photos="photos") for role in ("worker", "driver"))
    for action in ("s3:PutObject", "s3:DeleteObject"):
        request = Request(action, f"arn:aws:s3:::runs/night/1/{name}")
        assert driver.allows(request)
        assert not worker.allows(request)
        assert not driver.allows(replace(request, resource="arn:aws:s3:::photos/pool/part-0.parquet"))
