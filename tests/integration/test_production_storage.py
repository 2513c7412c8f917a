"""PostgreSQL for Dagster, MLflow and the ledger, an object store for tables and models: no shared disk."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
import s3fs
import sqlalchemy as sa
import yaml
from integration.object_store import ObjectStore
from integration.postgres import PASSWORD, USER, PostgresServer
from orchestration.harness import World, days, succeeded

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@contextmanager
def mlflow_server(folder: Path, database: str, artifacts: str) -> Iterator[str]:
    """An MLflow server that keeps model files in the object store and passes them on itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", folder / "mlflow.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--workers", "1", "--backend-store-uri", database, "--artifacts-destination", artifacts],
            cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 240
        while True:
            assert server.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=2):
                    break
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.3)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


def dagster_yaml(server: PostgresServer) -> str:
    database = sa.make_url(server.create_database("dagster")).database
    return yaml.safe_dump(
        {
            "telemetry": {"enabled": False},
            "storage": {
                "postgres": {
                    "postgres_db": {
                        "username": USER, "password": PASSWORD, "hostname": "127.0.0.1",
                        # SQLAlchemy 2.1 takes plain postgresql:// for psycopg 3.
                        "scheme": "postgresql+psycopg2", "db_name": database, "port": server.port,
                    }
                }
            },
        }
    )  # fmt: skip


@pytest.mark.usefixtures("object_store_environment")
def test_pods_without_a_common_disk_work_as_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: PostgresServer,
    object_store: ObjectStore,
) -> None:
    bucket = object_store.create_bucket("production")
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text(dagster_yaml(postgres_server))
    monkeypatch.setenv("RETRAIN_STORAGE", f"{bucket}/tables")
    monkeypatch.setenv("RETRAIN_LEDGER_URL", postgres_server.create_database("ledger"))
    database = postgres_server.create_database("mlflow")
    with (
        mlflow_server(tmp_path, database, f"{bucket}/models") as url,
        dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance,
    ):
        monkeypatch.setenv("RETRAIN_MLFLOW_URI", url)
        monitoring = World(tmp_path, instance)
        monitoring.add()
        succeeded(monitoring.ingest(*days(1, 6)))
        # What another pod would have: the same servers, and nothing of the first one's disk.
        shutil.rmtree(tmp_path / "home", ignore_errors=True)
        retraining = monitoring.restarted()
        succeeded(retraining.loop.tick("freshness_sensor"))
        assert retraining.champion().version == "1"
        assert retraining.platform.registry.aliases("churn")["champion"] == "1"
        left = sorted(path.name for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert left == [], "a step has written to a disk that other pods do not have"
    stored = s3fs.S3FileSystem(**object_store.options).find(bucket)
    assert {path.split("/")[1] for path in stored} == {"tables", "models"}
