"""What a deployment needs around it and a cluster test has on the host: PostgreSQL, an object store.

Both listen where pods reach them. Belongs here: starting and stopping the servers. Does not: what
they hold.
"""

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from integration.ports import free_port
from integration.postgres import PASSWORD, USER, new_cluster, start_process

__all__ = ["ObjectStore", "Postgres", "free_port"]

_START_SECONDS = 60.0


class Postgres:
    """A server on `host` with the databases `dagster`, `ledger` and `mlflow`; may be restarted."""

    def __init__(self, host: str) -> None:
        self.host, self.port = host, free_port(host)
        self._folder = new_cluster("retrain-k8s-postgres-")
        (self._folder / "data" / "pg_hba.conf").write_text("host all all all md5\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self._lighten_logins()
        for database in ("dagster", "ledger", "mlflow"):
            self._create(database)

    def url(self, database: str) -> str:
        """SQLAlchemy URL for psycopg2."""
        return sa.URL.create(
            "postgresql+psycopg2", USER, PASSWORD, self.host, self.port, database
        ).render_as_string(hide_password=False)

    def start(self) -> None:
        """Start it (again)."""
        self._process = start_process(
            self._folder, self.port, "shared_buffers=64MB", "max_connections=300", "fsync=off",
            host=self.host,
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

    def _lighten_logins(self) -> None:
        """Passwords without SCRAM: Dagster logs in for every query, fifty times a second here.

        The proof of a SCRAM password is a third of what such a query costs.
        """
        self._execute("SET password_encryption = md5", f"ALTER ROLE {USER} PASSWORD '{PASSWORD}'")

    def _create(self, database: str) -> None:
        self._execute(f'CREATE DATABASE "{database}"')

    def _execute(self, *statements: str) -> None:
        engine = sa.create_engine(
            self.url("postgres"), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


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

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While the block runs it takes connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it, and what it holds."""
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self._folder)
