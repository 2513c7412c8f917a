"""An S3-compatible object store over HTTP for tests: the fixture `object_store`.

Belongs here: starting and stopping OpenStack Swift with its S3 interface (`swift_server`), and a proxy
in front of it that fails. Does not: what is stored.
"""

from __future__ import annotations

import http.client
import random
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from integration.ports import free_port

__all__ = [
    "FailingProxy", "ObjectStore", "failing_proxy", "object_store", "object_store_environment", "swift",
]  # fmt: skip

_PYTHON = "/usr/bin/python3"  # the one that Debian's packages of Swift are for
_PACKAGES = "swift-proxy swift-account swift-container swift-object"
_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class ObjectStore:
    """A running store.

    Attributes:
        endpoint: its URL.
        key, secret: credentials of a user that may do everything.
    """

    endpoint: str
    key: str = "retrain:tests"
    secret: str = "Correct-Horse-7"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which every S3 client finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def options(self) -> dict[str, Any]:
        """The same as options of s3fs."""
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    def create_bucket(self, purpose: str) -> str:
        """Make a bucket, of a name that no other test has; returns its URL once the server knows it for good."""
        import s3fs

        name = f"{purpose}-{uuid.uuid4().hex}"
        store = s3fs.S3FileSystem(**self.options)
        store.mkdir(name)
        deadline = time.monotonic() + 60
        while True:
            try:
                store.pipe_file(f"{name}/known", b"")
                break
            except FileNotFoundError:
                assert time.monotonic() < deadline, f"bucket {name} is not there after 60 s"
                time.sleep(0.5)
        store.rm_file(f"{name}/known")
        return f"s3://{name}"


@contextmanager
def swift(address: str = "127.0.0.1") -> Iterator[ObjectStore]:
    """A store on a free port of `address`, gone with its objects at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="retrain-swift-"))
    port = free_port(address)
    log = folder / "log"
    script = Path(__file__).with_name("swift_server.py")
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [_PYTHON, "-P", str(script), address, str(port), str(folder)],
            stdout=subprocess.PIPE, stderr=errors,
            env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            process.wait(10)
            pytest.fail(f"Swift did not start (apt-get install {_PACKAGES}):\n{log.read_text()}")
        yield ObjectStore(f"http://{address}:{port}")
    finally:
        process.kill()
        process.communicate(timeout=10)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """One store for the test session."""
    with swift() as running:
        yield running


@pytest.fixture
def object_store_environment(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Every S3 client that a test makes finds the store, and no later test finds such a client."""
    import s3fs

    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    # fsspec keeps filesystems for ever, with the address that the environment had at first.
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@dataclass
class FailingProxy:
    """What a proxy has done so far.

    Attributes:
        url: its address.
        asked: requests that came.
        failed: how many of them it has spoiled.
        slow_from: bytes of a body after which it reads no further; None for never.
        reached: set when a body has been held up there.
    """

    url: str
    share: float
    asked: int = 0
    failed: int = 0
    slow_from: int | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    dice: random.Random = field(default_factory=lambda: random.Random(7))


class _ProxyServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str, share: float) -> None:
        super().__init__(("127.0.0.1", 0), _FailingHandler)
        self.target = target
        self.state = FailingProxy(f"http://127.0.0.1:{self.server_port}", share)
        self._lock = threading.Lock()

    def fate(self) -> str | None:
        """What is to go wrong with the next request."""
        with self._lock:
            self.state.asked += 1
            if self.state.dice.random() >= self.state.share:
                return None
            self.state.failed += 1
            return self.state.dice.choice(["error", "closed", "lost", "half"])


class _FailingHandler(BaseHTTPRequestHandler):
    server: _ProxyServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        return

    def _body(self) -> bytes | None:
        length = int(self.headers.get("Content-Length") or 0)
        held = self.server.state.slow_from
        if held is None or length <= held:
            return self.rfile.read(length)
        self.rfile.read(held)
        self.server.state.reached.set()
        time.sleep(0.2)
        while self.rfile.read(1):  # until the killed client's connection is closed
            time.sleep(0.2)
        return None

    def _answer(self) -> None:
        fate, body = self.server.fate(), self._body()
        if body is None or fate == "closed":
            self._hang_up()
        elif fate == "error":
            self.send_error(503)
        else:
            answer, content = self._upstream(body)
            if fate == "lost":
                self._hang_up()
            else:
                self._pass_on(answer, content, half=fate == "half")

    def _upstream(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content

    def _pass_on(self, answer: http.client.HTTPResponse, content: bytes, *, half: bool) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (*_HOP, "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815


@contextmanager
def failing_proxy(upstream: ObjectStore, share: float = 0.2) -> Iterator[FailingProxy]:
    """A proxy that spoils a share of the requests: an error, a closed connection, a lost answer to what
    was done, half an answer."""
    server = _ProxyServer(urlsplit(upstream.endpoint).netloc, share)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
