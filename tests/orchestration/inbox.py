"""A real HTTP endpoint that receives alerts: `from orchestration.inbox import Inbox, inbox`."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

__all__ = ["Inbox", "inbox"]


@dataclass
class Inbox:
    """What the endpoint has received."""

    url: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def titles(self) -> list[str]:
        return [str(message["title"]) for message in self.messages]


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """An HTTP server that the alert target `ops` names."""
    received = Inbox()

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.messages.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    received.url = f"json://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("RETRAIN_ALERT_OPS", received.url)
    yield received
    server.shutdown()
    thread.join()
    server.server_close()
