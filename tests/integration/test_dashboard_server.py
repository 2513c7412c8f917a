"""The dashboard's server: one read at a time, honest about what it cannot read."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from integration.served import Client, served

from retrain_assets.errors import LedgerError
from retrain_assets.fleet.server import Cache, application
from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.fleet.status import StatusRow

ROOT = Path(__file__).parents[2]


class Source:
    """Counts reads, and answers what it is told."""

    def __init__(self):
        self.reads, self.busy, self.most, self.note, self.fails = 0, 0, 0, "", False
        self.slow = 0.0

    def read(self):
        self.reads += 1
        self.busy += 1
        self.most = max(self.most, self.busy)
        time.sleep(self.slow)
        self.busy -= 1
        if self.fails:
            raise LedgerError("promotion ledger: away")
        now = datetime.now(UTC)
        return Snapshot(now, "", now, (StatusRow("churn", "healthy", note=self.note),))


def eventually(ask, holds):
    """The first answer that holds; rows are renewed when they are old enough, not at once."""
    until = time.monotonic() + 20
    while not holds(answer := ask()):
        assert time.monotonic() < until, answer
        time.sleep(0.02)
    return answer


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def client(source):
    history = {"churn": {"model": "churn"}}.get
    with served(application(Cache(source.read, max_age_seconds=0.0), history)) as client:
        yield client


def test_the_page_comes_with_the_rows_and_may_load_nothing_from_elsewhere(client):
    answer = client.get("/")
    assert answer.status == 200
    assert '"model":"churn"' in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_rows_that_have_not_changed_are_not_sent_again(client, source):
    first = client.get("/status.json")
    tag = {"If_None_Match": first.headers["etag"]}
    time.sleep(0.01)
    again = client.get("/status.json", **tag)
    assert (again.status, again.text) == (304, "")
    source.note = "new"
    changed = eventually(lambda: client.get("/status.json", **tag), lambda a: a.status == 200)
    assert changed.json()["models"][0]["note"] == "new"


def test_a_failed_read_leaves_the_old_rows_with_the_reason(client, source):
    assert client.get("/healthz").text == "ok"
    source.fails = True
    found = eventually(lambda: client.get("/status.json").json(), lambda data: data["error"])
    assert (found["models"][0]["model"], found["error"]) == ("churn", "promotion ledger: away")
    assert client.get("/healthz").status == 503
    source.fails = False
    eventually(lambda: client.get("/status.json").json(), lambda data: data["error"] == "")


def test_a_server_that_has_never_read_says_so(client, source):
    source.fails = True
    for path in ("/", "/status.json", "/metrics", "/healthz"):
        answer = client.get(path)
        assert answer.status == 503, path
        assert "promotion ledger: away" in answer.text
    source.fails = False
    assert client.get("/healthz").status == 200


def test_one_model_s_history_is_found_by_its_name_only(client):
    assert client.get("/models/churn.json").json() == {"model": "churn"}
    missing = client.get("/models/nobody.json")
    assert missing.status == 404
    assert missing.json() == {"error": "no model named nobody"}


def test_metrics_speak_prometheus(client):
    answer = client.get("/metrics", Accept="text/plain")
    assert 'retrain_state{group="",model="churn",state="healthy"} 1.0' in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(client, method):
    assert client.get("/", method).status == 405


def test_many_readers_cost_one_read_and_those_with_old_rows_do_not_wait(source):
    cache = Cache(source.read, max_age_seconds=0.05)
    source.slow = 0.5
    threads = [threading.Thread(target=cache.get) for _ in range(20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert (source.reads, source.most) == (1, 1)
    cache._read_at = float("-inf")
    reader = threading.Thread(target=cache.get)
    reader.start()
    time.sleep(0.05)
    began = time.monotonic()
    cache.get()
    assert time.monotonic() - began < 0.3
    reader.join()
    assert (source.reads, source.most) == (2, 1)
    cache.get()
    assert source.reads == 2, "a slow read is repeated less often"


def test_the_command_serves_until_it_is_told_to_stop(tmp_path):
    (tmp_path / "model_specs").mkdir()
    (tmp_path / "model_specs" / "torn.yaml").write_text("name: torn\n", encoding="utf-8")
    variables = {**os.environ, "RETRAIN_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    variables.pop("DAGSTER_HOME", None)
    command = [sys.executable, "-m", "retrain_assets.cli", "dashboard", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = re.match(r"http://127\.0\.0\.1:(\d+)  ", process.stdout.readline())
            assert address is not None
            client = Client(int(address[1]))
            assert client.get("/healthz").text == "ok"
            assert client.get("/status.json").json()["models"][0]["state"] == "broken"
            taken = subprocess.run(
                [*command[:-1], address[1]], cwd=tmp_path, env=variables, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            assert taken.returncode == 2
            assert taken.stderr.startswith(f"cannot listen on 127.0.0.1, port {address[1]}: ")
        finally:
            process.terminate()
        assert process.wait(timeout=20) in (0, -signal.SIGTERM)
