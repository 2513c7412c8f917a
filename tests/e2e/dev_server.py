"""The real `dagster dev` over a copy of the repository's own files, as `make dev` starts it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import pytest
import yaml
from integration.ports import free_port

ROOT = Path(__file__).parents[2]
_READY_SECONDS = 150
# A code server that Dagster starts again while it shuts down ends when heartbeats have been missing for 30 to 60 s.
_STOP_SECONDS = 150

T = TypeVar("T")


def copy_project(folder: Path, *, seconds_per_day: float) -> None:
    """The files that `make dev` uses, with a calendar that runs faster."""
    for name in ("definitions.py", "workspace.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    fleets = shutil.ignore_patterns("recommenders.yaml", "route_delays.yaml")
    shutil.copytree(ROOT / "model_specs", folder / "model_specs", ignore=fleets)
    for path in (folder / "model_specs").glob("*.yaml"):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec["source"]["options"]["seconds_per_day"] = seconds_per_day
        path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    (folder / ".retrain" / "dagster").mkdir(parents=True)
    shutil.copyfile(ROOT / "dagster.yaml", folder / ".retrain" / "dagster" / "dagster.yaml")


def members(group: int) -> list[str]:
    """Command lines of the living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if int(state[2]) == group and state[0] != "Z":
            found.append(f"{entry.name} {command.strip()}")
    return found


@dataclass
class DevServer:
    """A running `dagster dev`.

    Attributes:
        folder: project folder; `.retrain` in it is RETRAIN_HOME, `.retrain/dagster` DAGSTER_HOME.
    """

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, folder: Path) -> "DevServer":
        """Start it; ready only after `wait_until_ready`."""
        port = free_port()
        variables = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RETRAIN_", "DAGSTER_", "PYTHONDONTWRITEBYTECODE"))
        }
        variables["RETRAIN_HOME"] = str(folder / ".retrain")
        variables["DAGSTER_HOME"] = str(folder / ".retrain" / "dagster")
        variables["RETRAIN_DAGSTER_URL"] = f"http://127.0.0.1:{port}"
        # The tests look at the instance while the server starts: two processes that make its tables
        # at the same time would break each other.
        with dg.DagsterInstance.from_config(variables["DAGSTER_HOME"]) as instance:
            instance.get_runs(limit=1)
        dagster = str(Path(sys.executable).with_name("dagster"))
        with (folder / "dev.log").open("wb") as log:
            process = subprocess.Popen(
                [dagster, "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)],
                cwd=folder,
                env=variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A test command under nohup or `&` ignores Ctrl-C, and its children would too.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        return cls(folder, port, process)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "dev.log").read_text(encoding="utf-8", errors="replace")

    def graphql(self, query: str) -> dict[str, Any]:
        """The `data` of a query; raises OSError while the server is not there."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    @property
    def home(self) -> Path:
        """RETRAIN_HOME of the server."""
        return self.folder / ".retrain"

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Within, this process sees the server's storage, ledger and calendar."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RETRAIN_HOME", str(self.home))
            yield

    def wait_for(self, what: str, look: Callable[[], T | None], seconds: float) -> T:
        """The first result of `look` that is not None; fails when the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            found = look()
            if found is not None:
                return found
            ended = self.process.poll()
            assert ended is None, f"dagster dev ended with {ended}:\n{self.log[-4000:]}"
            assert time.monotonic() < deadline, (
                f"waited {seconds:g} s for {what}:\n{self.log[-4000:]}"
            )
            time.sleep(0.5)

    def wait_until_ready(self) -> dict[str, Any]:
        """The loaded repository, with its sensors and schedules."""

        def look() -> dict[str, Any] | None:
            try:
                with urllib.request.urlopen(f"{self.url}/server_info", timeout=5):
                    pass
                data = self.graphql(
                    """{ workspaceOrError { ... on Workspace { locationEntries {
                      loadStatus locationOrLoadError {
                        ... on PythonError { message }
                        ... on RepositoryLocation { repositories { name
                          sensors { name sensorState { status } }
                          schedules { name scheduleState { status } } } } } } } } }"""
                )
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return None
            (entry,) = data["workspaceOrError"]["locationEntries"] or [{"loadStatus": "LOADING"}]
            if entry["loadStatus"] == "LOADING":
                return None
            location = entry["locationOrLoadError"]
            assert "message" not in location, location["message"]
            repository: dict[str, Any] = location["repositories"][0]
            return repository

        return self.wait_for("the code location", look, _READY_SECONDS)

    def stop(self) -> list[str]:
        """Ctrl-C; returns the processes of the group that do not end in spite of it."""
        self._signal(signal.SIGINT)
        deadline = time.monotonic() + _STOP_SECONDS
        while (left := members(self.process.pid)) and time.monotonic() < deadline:
            self.process.poll()
            time.sleep(0.2)
        return left

    def kill(self) -> None:
        """End whatever is left, for the sake of the machine."""
        self._signal(signal.SIGKILL)
        self.process.wait(30)

    def _signal(self, number: signal.Signals) -> None:
        if members(self.process.pid):
            os.killpg(self.process.pid, number)
