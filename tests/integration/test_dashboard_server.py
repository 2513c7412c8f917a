"""The dashboard's server: one read at a time, honest about what it cannot read."""

import threading
import time
from datetime import UTC, datetime

import pytest
from integration.served import served

from retrain_assets.errors import LedgerError
from retrain_assets.fleet.server import Cache, application
from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.fleet.status import StatusRow


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
    time.sleep(0.01)
    changed = client.get("/status.json", **tag)
    assert changed.status == 200
    assert changed.json()["models"][0]["note"] == "new"


def test_a_failed_read_leaves_the_old_rows_with_the_reason(client, source):
    assert client.get("/healthz").text == "ok"
    source.fails = True
    time.sleep(0.01)
    found = client.get("/status.json").json()
    assert (found["models"][0]["model"], found["error"]) == ("churn", "promotion ledger: away")
    assert client.get("/healthz").status == 503
    source.fails = False
    time.sleep(0.01)
    assert client.get("/status.json").json()["error"] == ""


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
    source.slow = 0.2
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
    assert time.monotonic() - began < 0.1
    reader.join()
    assert (source.reads, source.most) == (2, 1)
    cache.get()
    assert source.reads == 2, "a slow read is repeated less often"
