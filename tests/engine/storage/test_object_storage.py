"""What goes wrong with object storage, in plain words; and what is tried again. Through the real clients."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import Proxy, S3Server, free_port, proxy_before

from poolscore.engine.config import ModelConfig, TextDecode
from poolscore.engine.errors import ConfigError, StoppedError
from poolscore.engine.exclude import read_ids
from poolscore.engine.inputs.tokenizer import load_tokenizer, tokenizer_digest
from poolscore.engine.keys import IdSet
from poolscore.engine.model.load import load_network
from poolscore.engine.pool.cut import make_plan
from poolscore.engine.pool.find import find_files
from poolscore.engine.pool.footer import read_footer
from poolscore.engine.pool.listing import list_files
from poolscore.engine.pool.read import ShardReader
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.scores import Task
from poolscore.engine.storage import clients, filesystem, object_writer
from poolscore.engine.storage.filesystem import fetch, locate, on_disk, reason
from poolscore.engine.storage.objects import ObjectStorage

DENIED = "access is denied; look at the credentials and at the bucket's policy"


def read(uri: str) -> bytes:
    at = locate(uri)
    with at.filesystem.open_input_file(at.path) as file:
        return bytes(file.read())


def why(uri: str) -> str:
    """What a reader says of a URI that it cannot read."""
    with pytest.raises(OSError) as caught:
        read(uri)
    return reason(caught.value)


@pytest.fixture
def storage(bucket: str) -> ObjectStorage:
    storage = ObjectStorage(f"{bucket}/run")
    storage.create("a", b"data")
    return storage


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy_before(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def denied(s3_server: S3Server, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    """The server asks for permissions, and the user of the environment has none."""
    iam = boto3.client("iam", endpoint_url=s3_server.endpoint, region_name="us-east-1")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    other_settings(monkeypatch, AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"])
    s3_server.ask("POST", "/moto-api/reset-auth", b"0")
    yield storage
    s3_server.ask("POST", "/moto-api/reset-auth", b"inf")
    iam.delete_access_key(UserName="nobody", AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName="nobody")


def other_settings(monkeypatch: pytest.MonkeyPatch, **settings: str | None) -> None:
    """Clients are made once for a process: forget those of other credentials."""
    for name, value in settings.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    for module, name in ((clients, "_s3_client"), (object_writer, "_s3")):
        monkeypatch.setattr(module, name, cache(getattr(module, name).__wrapped__))


def test_a_shard_is_fetched_by_the_requests_that_were_planned(bucket: str, proxy: Proxy) -> None:
    images = [np.random.default_rng(i).bytes(100_000) for i in range(64)]
    file = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": range(64), "image": images}), file, row_group_size=32, compression="none")
    ObjectStorage(f"{bucket}/pool").create("0.parquet", file.getvalue().to_pybytes())
    plan = make_plan(find_files(f"{bucket}/pool"), 1000)
    reader = ShardReader(plan.root, ["image"], "id", IdSet())
    proxy.seen.clear()
    with reader.ahead(plan.shards[0], 1 << 30) as source:
        blocks = list(reader.blocks(plan.shards[0], 64, source))
    assert pa.concat_tables(block.table for block in blocks)["image"].to_pylist() == images
    assert [request.split()[0] for request in proxy.seen] == ["HEAD", "GET", "GET", "GET"]  # the footer, two row groups


def test_a_file_is_read_by_one_request(bucket: str, proxy: Proxy) -> None:
    content = np.random.default_rng(0).bytes(3_000_000)
    storage = ObjectStorage(f"{bucket}/run")
    storage.create("a", content)
    proxy.seen.clear()
    assert storage.read("a") == content
    assert [request.split()[0] for request in proxy.seen] == ["HEAD", "GET"]


def test_one_file_system_for_all_files_of_a_process(bucket: str) -> None:
    assert locate(f"{bucket}/a").filesystem is locate(f"{bucket}/b/c").filesystem
    assert locate("/a").filesystem is locate("b").filesystem


def test_what_is_missing(storage: ObjectStorage, bucket: str) -> None:
    with pytest.raises(FileNotFoundError):
        read(f"{bucket}/none")
    with pytest.raises(FileNotFoundError), on_disk(f"{bucket}/none"):
        pass
    missing = ObjectStorage("s3://no-such-bucket/run")
    with pytest.raises(ConfigError, match=r"^s3://no-such-bucket/run: there is no bucket 'no-such-bucket' here"):
        missing.read("run.json")
    with pytest.raises(ConfigError, match=r"^run.dir: .* cannot be written \(there is no such bucket\)"):
        missing.require_writable()
    with pytest.raises(ConfigError, match="there is no bucket"):
        missing.names("")
    with pytest.raises(StoppedError, match="there is no such bucket"):
        missing.create("a", b"")
    text = TextDecode(kind="text", length=9, tokenizer="s3://no-such-bucket/tokenizer.json")
    for look in (
        lambda: list_files("s3://no-such-bucket/pool"),
        lambda: read_ids("s3://no-such-bucket/labelled.csv", None),
        lambda: load_tokenizer(text),
        lambda: load_network(ModelConfig(source="s3://no-such-bucket/net.onnx", task=Task.BINARY)),
    ):
        with pytest.raises(ConfigError, match=r"^s3://no-such-bucket/.*: there is no bucket 'no-such-bucket' here"):
            look()


def test_what_is_denied_is_not_called_missing(denied: ObjectStorage) -> None:
    assert why(denied.path("a")) == DENIED
    assert why(denied.path("none")) == DENIED
    for act, done in (
        (lambda: denied.read("a"), "read"),
        (lambda: denied.read("none"), "read"),
        (lambda: denied.names(""), "read"),
        (lambda: denied.publish("a", lambda file: file.write(b"x")), "written"),
        (lambda: denied.create("b", b""), "written"),
        (lambda: denied.delete("a"), "deleted"),
    ):
        with pytest.raises(StoppedError, match=f"cannot be {done} .access is denied") as caught:
            act()
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^run.dir: s3://.*/run cannot be written \(access is denied"):
        denied.require_writable()
    with pytest.raises(ConfigError, match=r"^pool.uri: s3://.* cannot be listed \(access is denied"):
        find_files(denied.root)
    with pytest.raises(ConfigError, match=r"^pool.exclude: .*sent.csv cannot be read .*: access is denied"):
        read_ids(denied.path("sent.csv"), "id")


def test_unknown_and_missing_credentials(
    s3_server: S3Server, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3_server.ask("POST", "/moto-api/reset-auth", b"0")
    try:
        other_settings(monkeypatch, AWS_ACCESS_KEY_ID="unknown")
        with pytest.raises(StoppedError, match="the credentials are wrong or have expired"):
            storage.create("b", b"")
        monkeypatch.setenv("HOME", str(tmp_path))
        other_settings(monkeypatch, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
        assert "there are no credentials in the environment or in ~/.aws" in why(storage.path("a"))
        with pytest.raises(StoppedError, match="there are no credentials"):
            storage.create("b", b"")
    finally:
        s3_server.ask("POST", "/moto-api/reset-auth", b"inf")


def test_public_buckets_need_no_credentials(
    s3_server: S3Server, bucket: str, storage: ObjectStorage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}
    s3_server.ask("PUT", f"{bucket[4:]}?policy", json.dumps({"Statement": [everybody]}).encode())
    assert storage.read("a") == b"data"
    assert proxy.signed
    proxy.signed = False
    anonymous = ObjectStorage(storage.root.replace("s3://", "s3://anonymous@"))
    assert anonymous.read("a") == b"data"
    assert anonymous.create("b", b"")
    assert not proxy.signed
    other_settings(monkeypatch, AWS_NO_SIGN_REQUEST="true")
    assert storage.read("a") == b"data"
    assert not proxy.signed


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_endpoint_that_is_not_there(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    endpoint = f"http://{host}:{free_port()}"
    monkeypatch.setattr(filesystem, "REACH_SECONDS", 0.1)
    other_settings(monkeypatch, AWS_ENDPOINT_URL=endpoint, AWS_MAX_ATTEMPTS="2")
    assert why(storage.path("a")) == f"the endpoint cannot be reached: {endpoint}"
    for look in (storage.require_writable, lambda: RunDirectory(storage.root), lambda: list_files(storage.root)):
        started = time.monotonic()
        with pytest.raises(ConfigError, match=f"{storage.root}: the endpoint cannot be reached: {endpoint} [(]"):
            look()
        assert time.monotonic() - started < 1  # told at once, not after all attempts


def test_an_endpoint_that_says_nothing(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(object_writer, "SILENCE_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        other_settings(monkeypatch, AWS_ENDPOINT_URL=endpoint, AWS_MAX_ATTEMPTS="1")
        started = time.monotonic()
        assert why(storage.path("a")) == f"the endpoint cannot be reached: {endpoint}"
        with pytest.raises(StoppedError, match="the endpoint cannot be reached"):
            storage.create("b", b"")
        assert time.monotonic() - started < 15


def test_a_busy_server_is_asked_again(storage: ObjectStorage, proxy: Proxy) -> None:
    for act in (
        lambda: read(storage.path("a")) == b"data",
        lambda: storage.read("a") == b"data",
        lambda: storage.names("") == ["a"],
        lambda: storage.create("b", b""),
        lambda: storage.delete("b") is None,
    ):
        proxy.busy = 1
        assert act()
        assert proxy.busy == 0


def test_a_server_that_stays_busy_stops_the_run(storage: ObjectStorage, proxy: Proxy) -> None:
    proxy.busy = 10**6
    with pytest.raises(StoppedError, match=r"/run/a cannot be read \(the storage is too busy\); .* same command again"):
        storage.read("a")
    with pytest.raises(StoppedError, match="too busy"):
        storage.create("b", b"")


@pytest.mark.parametrize("fault", ["busy", "lost"])
def test_before_work_begins_one_lost_answer_is_no_users_mistake(
    storage: ObjectStorage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    """Also where a client asks only once, as Arrow's does where an answer is cut off."""

    def lose_the_first_get(request: str) -> None:
        if len([line for line in proxy.seen if line.startswith("PUT")]) == 2:
            setattr(proxy, fault, int(request.startswith("PUT")))

    storage.publish("pool/a.parquet", lambda file: pq.write_table(pa.table({"id": ["a"]}), file))
    storage.create("ids.csv", b"id\na\n")
    text = TextDecode(kind="text", length=9, tokenizer=storage.path("a"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(filesystem, "FIRST_PAUSE", 0.01)
    for act in (
        lambda: storage.read("a"),
        lambda: storage.names(""),
        lambda: list_files(storage.path("pool")),
        lambda: read_footer(locate(storage.root).filesystem, locate(storage.root).path, "pool/a.parquet"),
        lambda: read_ids(storage.path("ids.csv"), "id"),
        lambda: tokenizer_digest(text),
        lambda: fetch(storage.path("a"), tmp_path / "a"),
    ):
        setattr(proxy, fault, 2)
        act()
        assert getattr(proxy, fault) == 0
    proxy.seen.clear()
    proxy.tell = lose_the_first_get
    storage.require_writable()
    assert len([line for line in proxy.seen if line.startswith(("GET", "HEAD"))]) > 1


def test_storage_that_stays_busy_is_no_users_mistake(
    storage: ObjectStorage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(filesystem, "MOMENT", 0.3)
    proxy.busy = 10**6
    for look in (storage.require_writable, lambda: list_files(storage.root), lambda: read_ids(storage.path("a"), "id")):
        with pytest.raises(StoppedError, match=r"the storage is too busy.*; mend the storage, then run the same"):
            look()


def test_a_lost_answer_to_a_conditional_write_is_no_conflict(storage: ObjectStorage, proxy: Proxy) -> None:
    proxy.lost = 1
    assert storage.create("b", b"mine")
    assert [line for line in proxy.seen if line.startswith("PUT")] == [f"PUT {storage.root[4:]}/b"] * 2
    proxy.lost = 1
    assert not storage.create("a", b"mine")
    assert storage.read("a") == b"data"


def test_storage_without_conditions_is_refused(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    put = ObjectStorage._put
    monkeypatch.setattr(ObjectStorage, "_put", lambda self, name, data, new: put(self, name, data, new=False))
    with pytest.raises(ConfigError, match="overwrites in spite of If-None-Match"):
        storage.require_writable()
    assert storage.names("") == ["a"]


def test_writing_needs_a_package_and_reading_does_not(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    other_settings(monkeypatch)
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(ConfigError, match=r"pip install 'poolscore\[s3\]'"):
        storage.require_writable()
    assert (storage.read("a"), storage.names("")) == (b"data", ["a"])


def test_ids_to_leave_out_lie_in_the_bucket(storage: ObjectStorage) -> None:
    storage.publish("ids.parquet", lambda file: pq.write_table(pa.table({"id": ["a", "b"], "x": [1, 2]}), file))
    storage.create("ids.csv", b"id,x\na,1\nb,2\n")
    storage.create("b.CSV", b"a\nb\n")
    for name in ("ids.parquet", "ids.csv", "b.CSV"):
        assert read_ids(storage.path(name), "id").sorted() == [b"a", b"b"]
    with pytest.raises(ConfigError, match="there is no file s3://"):
        read_ids(storage.path("none.csv"), "id")
