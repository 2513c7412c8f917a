"""Tables on an S3-compatible store over HTTP that fails: requests, uploads, and the server itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pyarrow as pa
import pytest
from integration.object_store import ObjectStore, failing_proxy

from retrain_assets.data.tables import TableStore
from retrain_assets.errors import TableError

TABLE = pa.table({"x": [1, 2, 3]})


@pytest.fixture
def base(object_store: ObjectStore) -> str:
    return object_store.create_bucket("faults") + "/store"


def test_every_fifth_request_failing_is_not_noticed(object_store: ObjectStore, base: str) -> None:
    keys = [f"2024-01-{n:02d}" for n in range(1, 21)]
    with failing_proxy(object_store, share=0.2) as proxy:
        store = TableStore(base, replace(object_store, endpoint=proxy.url).options)
        for n, key in enumerate(keys):
            store.write("churn", "raw", key, pa.table({"x": [n]}))
            store.write_profile("churn", "raw", key, b"profile")
        assert store.partitions("churn", "raw") == keys
        assert store.read("churn", "raw", keys)["x"].to_pylist() == list(range(20))
        store.remove_profile("churn", "raw", keys[0])
        assert [store.profile_exists("churn", "raw", key) for key in keys[:2]] == [False, True]
    assert proxy.failed >= 0.1 * proxy.asked, "the proxy did not do its part"
    direct = TableStore(base, object_store.options)
    assert direct.read("churn", "raw", keys)["x"].to_pylist() == list(range(20))


_WRITER = """
import json, os, sys
import pyarrow as pa
from retrain_assets.data.tables import TableStore
base, options, size = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
data = pa.table({"x": [os.urandom(size)]})
TableStore(base, options).write("churn", "raw", sys.argv[4], data)
"""


@pytest.mark.parametrize(
    ("size", "keys"),
    [(8 * 2**20, ["2024-01-01", "2024-01-02"]), (110 * 2**20, ["2024-01-02"])],
    ids=["one put", "in parts"],
)
def test_a_writer_killed_in_mid_upload_leaves_what_was_there(
    object_store: ObjectStore, base: str, size: int, keys: list[str]
) -> None:
    store = TableStore(base, object_store.options)
    before = store.write("churn", "raw", "2024-01-01", TABLE)
    with failing_proxy(object_store, share=0) as proxy:
        proxy.slow_from = 3 * 2**20
        options = json.dumps(replace(object_store, endpoint=proxy.url).options)
        for key in keys:
            proxy.reached.clear()
            writer = subprocess.Popen(
                [sys.executable, "-c", _WRITER, base, options, str(size), key], env=os.environ
            )
            try:
                assert proxy.reached.wait(60), "the upload has not begun"
            finally:
                writer.send_signal(signal.SIGKILL)
                writer.wait(10)
    assert store.partitions("churn", "raw") == ["2024-01-01"]
    assert store.read("churn", "raw", ["2024-01-01"]).equals(TABLE)
    assert store.fingerprints("churn", "raw", ["2024-01-01"]) == {"2024-01-01": before.sha256}
    assert not store.exists("churn", "raw", "2024-01-02")


def test_a_table_that_is_uploaded_in_parts_is_read_back(
    object_store: ObjectStore, base: str
) -> None:
    store = TableStore(base, object_store.options)
    data = pa.table({"x": [os.urandom(110 * 2**20)]})
    stored = store.write("churn", "raw", None, data)
    assert stored.size_bytes > 100 * 2**20, "small objects are one put"
    assert store.fingerprints("churn", "raw", [None]) == {"all": stored.sha256}


def test_a_store_that_is_away_is_an_error_that_names_it(base: str) -> None:
    away = {"endpoint_url": "http://127.0.0.1:1", "key": "k", "secret": "s"}
    options = {**away, "config_kwargs": {"retries": {"total_max_attempts": 1}}}
    store = TableStore(base, options)
    with pytest.raises(TableError, match=r"raw/2024-01-01\.parquet: cannot be written: .*127"):
        store.write("churn", "raw", "2024-01-01", TABLE)
    with pytest.raises(TableError, match=r"cannot be read: .*127"):
        store.read("churn", "raw", ["2024-01-01"])
    with pytest.raises(TableError, match=r"cannot be listed: .*127"):
        store.partitions("churn", "raw")
    with pytest.raises(TableError, match=r"cannot be looked for: .*127"):
        store.exists("churn", "raw", "2024-01-01")
    with pytest.raises(TableError, match=r"cannot be removed: .*127"):
        store.remove_profile("churn", "raw", "2024-01-01")
