"""Servers that tests may kill and start again: PostgreSQL, and MLflow on it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from contracts.test_registry_contract import wait_until_healthy
from integration.ports import free_port
from integration.postgres import PostgresServer, new_cluster, start_process, wait_for


class Postgres:
    """A PostgreSQL server of its own on a fixed port."""

    def __init__(self) -> None:
        self._folder = new_cluster("retrain-faults-")
        self.server = PostgresServer(free_port(), self._folder / "log")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it (again), which recovers what was committed before a kill."""
        self._process = start_process(self._folder, self.server.port, "shared_buffers=32MB")
        wait_for(self.server, self._process)

    def kill(self) -> None:
        """SIGKILL the server with all its processes; backends lead no group of their own sessions."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        os.kill(self._process.pid, signal.SIGKILL)
        for child in map(int, children):
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(30)

    def remove(self) -> None:
        """End it for good."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._folder)


class MlflowServer:
    """`mlflow server` with one worker on a fixed port."""

    def __init__(self, folder: Path, database: str) -> None:
        self._folder = folder
        self._database = database
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it (again)."""
        log = self._folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
                    "--port", str(self._port), "--workers", "1",
                    "--backend-store-uri", self._database,
                    "--artifacts-destination", str(self._folder / "store"),
                ],
                cwd=self._folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        wait_until_healthy(self._process, self.url, log)

    def kill(self) -> None:
        """SIGKILL the server with its worker."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
