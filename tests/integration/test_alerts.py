"""Alerts through Apprise to a real SMTP server and a real HTTP endpoint, and to broken ones."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message as Mail
from email.policy import default as mail_policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from retrain_assets.alerts.message import Message
from retrain_assets.alerts.send import Delivery, send

SECRET = "T0ken-hunter2"
MESSAGE = Message(
    "rejected", "churn", "candidate v7 rejected",
    "**roc_auc** 0.81 is below 0.83\n\n- gate: min_gain", "http://dagster/runs/42",
)  # fmt: skip


class _Inbox:
    """Handler of aiosmtpd that keeps what arrives."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], Mail]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        mail = message_from_bytes(envelope.content, policy=mail_policy)
        self.mails.append((envelope.rcpt_tos, mail))
        return "250 OK"


@pytest.fixture
def smtp() -> Iterator[tuple[int, _Inbox]]:
    inbox = _Inbox()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(inbox, hostname="127.0.0.1", port=port)
    controller.start()
    yield port, inbox
    controller.stop()


class _Endpoint(BaseHTTPRequestHandler):
    """Keeps what is posted; answers 401 under /refused and drips for ever under /drip."""

    received: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/drip"):
            self.send_response(200)
            self.end_headers()
            self._drip()
            return
        self.received.append((self.path, json.loads(body)))
        self.send_response(401 if self.path.startswith("/refused") else 200)
        self.end_headers()

    def _drip(self) -> None:
        for _ in range(40):
            try:
                self.wfile.write(b".")
            except OSError:
                return
            time.sleep(0.5)

    def log_message(self, *args: Any) -> None:
        return


@pytest.fixture
def http() -> Iterator[tuple[int, list[tuple[str, dict[str, Any]]]]]:
    received: list[tuple[str, dict[str, Any]]] = []
    handler = type("Endpoint", (_Endpoint,), {"received": received})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, received
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def silent() -> Iterator[int]:
    """Port of a server that accepts connections and never answers."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    yield listener.getsockname()[1]
    listener.close()


def deliver(monkeypatch: pytest.MonkeyPatch, urls: str, message: Message = MESSAGE) -> Delivery:
    monkeypatch.setenv("RETRAIN_ALERT_OPS", urls)
    (delivery,) = send(message, ["ops"])
    return delivery


def test_a_mail_arrives_with_subject_text_and_link(
    smtp: tuple[int, _Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, inbox = smtp
    url = f"mailto://127.0.0.1:{port}?from=retrain@example.com&to=ops@example.com"
    assert deliver(monkeypatch, url) == Delivery("ops", True)
    ((recipients, mail),) = inbox.mails
    assert recipients == ["ops@example.com"]
    assert mail["Subject"] == "churn: candidate v7 rejected"
    html = next(part for part in mail.walk() if part.get_content_type() == "text/html")
    text = html.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "<strong>roc_auc</strong> 0.81 is below 0.83" in text
    assert 'href="http://dagster/runs/42"' in text


def test_an_http_endpoint_gets_title_body_and_severity(
    http: tuple[int, list[tuple[str, dict[str, Any]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, received = http
    assert deliver(monkeypatch, f"json://127.0.0.1:{port}/hook").delivered
    ((path, content),) = received
    assert path.startswith("/hook")
    assert content["title"] == "churn: candidate v7 rejected"
    assert "0.81 is below 0.83" in content["message"]
    assert "http://dagster/runs/42" in content["message"]
    assert content["type"] == "warning"


def test_several_urls_of_one_target_are_all_served_and_all_must_accept(
    http: tuple[int, list[tuple[str, dict[str, Any]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, received = http
    good = f"json://127.0.0.1:{port}/one json://127.0.0.1:{port}/two"
    assert deliver(monkeypatch, good).delivered
    assert sorted(path.rstrip("/") for path, _ in received) == ["/one", "/two"]
    mixed = f"json://127.0.0.1:{port}/one, json://127.0.0.1:{port}/refused"
    delivery = deliver(monkeypatch, mixed)
    assert not delivery.delivered
    assert delivery.error == ("alert target ops: JSON answered HTTP 401; check RETRAIN_ALERT_OPS")
    assert len(received) == 4


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ("json://127.0.0.1:9/hook/{0}", "JSON could not be reached"),
        ("json://user:{0}@127.0.0.1:9/?token={0}", "JSON could not be reached"),
        (
            "mailto://u:{0}@127.0.0.1:9?from=a@example.com&to=b@example.com",
            "E-?[Mm]ail could not be",
        ),
        ("nosuchservice://{0}", "RETRAIN_ALERT_OPS holds something that is not an Apprise URL"),
        ("{0}", "RETRAIN_ALERT_OPS holds something that is not an Apprise URL"),
        ("json://[{0}", "RETRAIN_ALERT_OPS holds something that is not an Apprise URL"),
        ("slack://{0}", "RETRAIN_ALERT_OPS holds something that is not an Apprise URL"),
        ("json://127.0.0.1:PORT/refused/{0}?a={0}", "JSON answered HTTP 401"),
    ],
)
def test_a_target_that_is_down_or_wrong_never_raises_and_gives_no_secret_away(
    urls: str,
    message: str,
    http: tuple[int, list[tuple[str, dict[str, Any]]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("apprise", "urllib3", "urllib3.connectionpool", "requests"):
        caplog.set_level(logging.DEBUG - 1, logger=name)
    delivery = deliver(monkeypatch, urls.format(SECRET).replace("PORT", str(http[0])))
    assert not delivery.delivered
    assert delivery.error is not None
    import re

    assert re.search(message, delivery.error)
    out, err = capfd.readouterr()
    everything = delivery.error + caplog.text + out + err
    assert SECRET.lower() not in everything.lower()


def test_a_delivered_message_leaves_no_url_in_debug_logs_either(
    http: tuple[int, list[tuple[str, dict[str, Any]]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    assert deliver(monkeypatch, f"json://127.0.0.1:{http[0]}/{SECRET}").delivered
    assert SECRET not in caplog.text
    logging.getLogger("apprise").warning("logged outside of a sending")
    logging.getLogger("urllib3.connectionpool").warning("this too")
    assert "logged outside of a sending" in caplog.text
    assert "this too" in caplog.text


def test_a_server_that_never_answers_costs_a_bounded_time_and_holds_up_no_other_target(
    silent: int,
    http: tuple[int, list[tuple[str, dict[str, Any]]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RETRAIN_ALERT_WEB", f"json://127.0.0.1:{silent}/?rto=300")
    monkeypatch.setenv(
        "RETRAIN_ALERT_MAIL", f"mailto://127.0.0.1:{silent}?from=a@example.com&to=b@example.com"
    )
    monkeypatch.setenv("RETRAIN_ALERT_DRIP", f"json://127.0.0.1:{http[0]}/drip")
    monkeypatch.setenv("RETRAIN_ALERT_OPS", f"json://127.0.0.1:{http[0]}/ok")
    started = time.monotonic()
    found = send(MESSAGE, ["web", "mail", "drip", "ops"])
    assert time.monotonic() - started < 15
    assert [delivery.delivered for delivery in found] == [False, False, False, True]
    assert found[2].error is not None
    assert "did not answer within 10 seconds" in found[2].error
    assert [path.rstrip("/") for path, _ in http[1]] == ["/ok"]


def test_a_service_that_never_ends_does_not_keep_the_process_alive(
    http: tuple[int, list[tuple[str, dict[str, Any]]]],
) -> None:
    program = (
        "from retrain_assets.alerts import send as s\n"
        "from retrain_assets.alerts.message import Message\n"
        "s._TIMEOUT_SECONDS = 1.0\n"
        "print(s.send(Message('drift', 'm', 't', 'b'), ['ops'])[0].error)\n"
    )
    started = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={"RETRAIN_ALERT_OPS": f"json://127.0.0.1:{http[0]}/drip", "PATH": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "did not answer within 1 second" in run.stdout
    assert time.monotonic() - started < 15
