"""What a deployment needs around it and a cluster test has on the host: PostgreSQL, an object store.

Both listen where pods reach them. Belongs here: starting and stopping the servers. Does not: what
they hold.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from integration.postgres import PASSWORD, USER, binaries, identity

__all__ = ["ObjectStore", "Postgres", "free_port"]

_START_SECONDS = 60.0


def free_port(host: str) -> int:
    """A port of `host` that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Postgres:
    """A server on `host` with the databases `dagster`, `ledger` and `mlflow`; may be restarted."""

    def __init__(self, host: str) -> None:
        self.host, self.port = host, free_port(host)
        # Not tmp_path: its parents are closed to the user that the server runs as.
        self._folder = Path(tempfile.mkdtemp(prefix="retrain-k8s-postgres-"))
        self._as = identity()
        if self._as:
            os.chown(self._folder, self._as["user"], self._as["group"])
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        data = self._folder / "data"
        subprocess.run(
            [
                str(binaries() / "initdb"), "-D", str(data), "-U", USER, "-A", "scram-sha-256",
                f"--pwfile={password}", "-E", "UTF8", "--locale=C", "--no-sync",
            ],
            check=True, capture_output=True, cwd=self._folder, **self._as,
        )  # fmt: skip
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all all all scram-sha-256\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        for database in ("dagster", "ledger", "mlflow"):
            self._create(database)

    def url(self, database: str) -> str:
        """SQLAlchemy URL for psycopg2."""
        return sa.URL.create(
            "postgresql+psycopg2", USER, PASSWORD, self.host, self.port, database
        ).render_as_string(hide_password=False)

    def start(self) -> None:
        """Start it (again)."""
        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    str(binaries() / "postgres"), "-D", str(self._folder / "data"),
                    "-p", str(self.port), "-c", f"listen_addresses={self.host}",
                    "-c", "unix_socket_directories=", "-c", "shared_buffers=64MB",
                    "-c", "max_connections=300", "-c", "fsync=off",
                ],
                stdout=log, stderr=subprocess.STDOUT, cwd=self._folder, start_new_session=True,
                **self._as,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        engine = sa.create_engine(self.url("postgres"), poolclass=sa.NullPool)
        while True:
            try:
                engine.connect().close()
            except sa.exc.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise AssertionError((self._folder / "log").read_text()) from None
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """A fast shutdown: open sessions are cut."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)

    def remove(self) -> None:
        """End it for good."""
        self.stop()
        shutil.rmtree(self._folder)

    def _create(self, database: str) -> None:
        engine = sa.create_engine(
            self.url("postgres"), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{database}"')


class ObjectStore:
    """moto's S3 server on `host` with the bucket `retrain`, in memory, in a process of its own."""

    key_id, secret = "test-key", "test-secret"

    def __init__(self, host: str) -> None:
        self.host, self.port = host, free_port(host)
        self.url = f"http://{host}:{self.port}"
        self._folder = Path(tempfile.mkdtemp(prefix="retrain-k8s-store-"))
        log = self._folder / "log"
        command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(self.port)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with suppress(OSError), socket.create_connection((host, self.port), 1):
                break
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(log.read_text())
            time.sleep(0.1)
        self.filesystem().mkdir("retrain")

    def filesystem(self) -> Any:
        """The store, as a client of its own."""
        import s3fs

        return s3fs.S3FileSystem(
            key=self.key_id, secret=self.secret, endpoint_url=self.url, skip_instance_cache=True
        )

    def remove(self) -> None:
        """End it, and what it holds."""
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self._folder)
