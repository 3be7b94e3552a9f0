"""A real S3 server on loopback (moto's, in a process of its own), and what can lie between it and a client."""

from __future__ import annotations

import http.client
import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import urlsplit

SERVER = """
import os, sys, threading
from moto.server import main
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
main()
"""
_numbers = itertools.count()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def only_loopback(environment: MutableMapping[str, str]) -> None:
    """Settings by which no client finds a cloud or anybody's credentials; the server is not started by that."""
    for name in [name for name in environment if name.startswith(("AWS_", "GOOGLE_", "STORAGE_EMULATOR"))]:
        del environment[name]
    environment |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "a secret of the tests",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "3",
    }


@dataclass(frozen=True)
class S3Server:
    """Where the server is."""

    endpoint: str

    def ask(self, method: str, path: str, body: bytes | None = None) -> None:
        headers = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(self.endpoint + path, body, headers, method=method)).close()

    def new_bucket(self) -> str:
        """The URI of a bucket without objects."""
        name = f"bucket-{next(_numbers)}"
        self.ask("PUT", f"/{name}")
        return f"s3://{name}"


@contextmanager
def running(endpoint: str) -> Iterator[S3Server]:
    """Start the server and end it."""
    host, port = urlsplit(endpoint).hostname, urlsplit(endpoint).port
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, "-H", str(host), "-p", str(port)],
        stdin=subprocess.PIPE,  # ends the server when this process is gone, however it ended
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if not probe.connect_ex((host, port)):
                    break
            assert process.poll() is None, "moto's server ended at its start; is moto[s3] installed?"
            time.sleep(0.05)
        yield S3Server(endpoint)
    finally:
        process.communicate()


class Proxy(ThreadingHTTPServer):
    """Tells of every request and passes it on, but for faults: the next so many requests are answered with 503 and not
    passed on (`busy`), or are passed on and their answers are lost (`lost`)."""

    daemon_threads = True

    def __init__(self, endpoint: str, tell: Callable[[str], None], port: int = 0) -> None:
        self.server_behind = urlsplit(endpoint).netloc
        self.busy = 0
        self.lost = 0
        self.tell = tell
        self.seen: list[str] = []  # method and path of each request
        self.new: set[str] = set()  # those of them that may write over nothing
        self.signed = False  # whether any came with credentials
        self.lock = Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.seen.append(f"{self.command} {self.path}")
            if self.headers.get("If-None-Match") == "*":
                self.server.new.add(self.server.seen[-1])
            self.server.signed |= "Authorization" in self.headers
            busy, lost = self.server.busy > 0, self.server.busy == 0 and self.server.lost > 0
            self.server.busy -= busy
            self.server.lost -= lost
        self.server.tell(f"{self.command} {self.path}")
        if busy:
            self._answer(503, {}, b"<Error><Code>SlowDown</Code><Message>Please slow down</Message></Error>")
            return
        behind = http.client.HTTPConnection(self.server.server_behind)
        behind.request(self.command, self.path, body, dict(self.headers))
        answer = behind.getresponse()
        headers, data = dict(answer.headers), answer.read()
        behind.close()
        if lost:
            self.close_connection = True
            return
        self._answer(answer.status, headers, data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # as the base class calls them

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        if self.command != "HEAD":
            headers = {k: v for k, v in headers.items() if k.lower() not in ("content-length", "transfer-encoding")}
            headers["Content-Length"] = str(len(data))
        for name, value in headers.items():
            if name.lower() != "connection":
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def proxy_before(endpoint: str, tell: Callable[[str], None] = lambda request: None, port: int = 0) -> Iterator[Proxy]:
    with Proxy(endpoint, tell, port) as proxy:
        thread = Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
