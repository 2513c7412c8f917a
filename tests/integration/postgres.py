"""A private PostgreSQL server for tests; the fixture `postgres_server` is there in all of them.

Belongs here: starting and stopping the server. Does not: tables, data.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from integration.ports import free_port

__all__ = [
    "PASSWORD",
    "USER",
    "PostgresServer",
    "binaries",
    "identity",
    "new_cluster",
    "postgres_server",
    "start_process",
    "wait_for",
]

USER = "retrain"
PASSWORD = "Tr0ub4dor&3"
_START_SECONDS = 60.0


@dataclass(frozen=True)
class PostgresServer:
    """A running server on the loopback interface.

    Attributes:
        port: TCP port.
        log: file that the server logs into.
    """

    port: int
    log: Path

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        """SQLAlchemy URL for psycopg2."""
        return sa.URL.create(
            "postgresql+psycopg2", USER, password, "127.0.0.1", self.port, database
        ).render_as_string(hide_password=False)

    def create_database(self, purpose: str) -> str:
        """Create an empty database, of a name that no other test has, and return its URL."""
        name = f"{purpose}_{uuid.uuid4().hex}"
        engine = sa.create_engine(self.url(), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        return self.url(name)


def binaries() -> Path:
    """Folder with initdb and postgres; fails, never skips, where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    pytest.fail("PostgreSQL is not installed: no initdb in /usr/lib/postgresql/*/bin or on PATH")


def identity() -> dict[str, Any]:
    """Arguments of subprocess that leave root, which PostgreSQL refuses to run as."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def new_cluster(prefix: str) -> Path:
    """A new folder with an empty database cluster in its `data`; whoever asks removes it.

    Not in pytest's folder: its parents are closed to the user that the server runs as.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    who = identity()
    if who:
        os.chown(folder, who["user"], who["group"])
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    subprocess.run(
        [
            str(binaries() / "initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "scram-sha-256",
            f"--pwfile={password}", "-E", "UTF8", "--locale=C", "--no-sync",
        ],
        check=True, capture_output=True, cwd=folder, **who,
    )  # fmt: skip
    return folder


def start_process(
    folder: Path, port: int, *settings: str, host: str = "127.0.0.1"
) -> subprocess.Popen[bytes]:
    """The server over the cluster in `folder`, which logs into its file `log`; may be a restart.

    Args:
        settings: `name=value`, as of postgresql.conf.
    """
    (folder / "data" / "postmaster.pid").unlink(missing_ok=True)
    given = (f"listen_addresses={host}", "unix_socket_directories=", *settings)
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [
                str(binaries() / "postgres"), "-D", str(folder / "data"), "-p", str(port),
                *(part for setting in given for part in ("-c", setting)),
            ],
            stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True, **identity(),
        )  # fmt: skip


def wait_for(server: PostgresServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    engine = sa.create_engine(server.url(), poolclass=sa.NullPool)
    while time.monotonic() < deadline and process.poll() is None:
        try:
            engine.connect().close()
        except sa.exc.OperationalError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"PostgreSQL did not start:\n{server.log.read_text()}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server of this test session, on a free port, in a folder that is removed afterwards."""
    folder = new_cluster("retrain-postgres-")
    server = PostgresServer(free_port(), folder / "log")
    process = start_process(
        folder, server.port, "fsync=off", "shared_buffers=32MB",
        # Not UTC, so that code which relies on the server's zone is found out.
        "timezone=America/New_York",
    )  # fmt: skip
    try:
        wait_for(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown: open sessions are cut
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder)
