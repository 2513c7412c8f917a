"""The opt-in run launcher in a real `dagster dev`: scoped, terminated, killed, and across a restart."""

import logging
import os
import signal
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from e2e.dev_server import ROOT, DevServer

from retrain_assets.orchestration.keys import Tag
from retrain_assets.orchestration.retries import REPORTED_AGAIN

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_SECONDS = 150
"""How long anything may take on a busy machine."""

SOURCE = '''
import time
from pathlib import Path

import pandas as pd


def load(window, gate):
    """Rows, as soon as the file `gate` exists."""
    while not Path(gate).exists():
        time.sleep(0.1)
    return pd.DataFrame({"x": range(50), "y": [0, 1] * 25})
'''


def spec(name: str, gate: Path) -> str:
    return textwrap.dedent(
        f"""
        name: {name}
        partitions: none
        source: {{python: "slow:load", options: {{gate: "{gate}"}}}}
        target: y
        task: binary
        train: {{holdout: 0.2}}
        retrain: {{schedule: "0 0 1 1 *"}}
        """
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scoped")
    (folder / "slow.py").write_text(SOURCE)
    (folder / "definitions.py").write_text((ROOT / "definitions.py").read_text())
    (folder / "workspace.yaml").write_text((ROOT / "workspace.yaml").read_text())
    (folder / "model_specs").mkdir()
    for name in ("first", "second"):
        (folder / "model_specs" / f"{name}.yaml").write_text(spec(name, folder / "gate"))
    home = folder / ".retrain" / "dagster"
    home.mkdir(parents=True)
    instance = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    instance["run_launcher"] = {
        "module": "retrain_assets.orchestration.launcher",
        "class": "ScopedRunLauncher",
    }
    instance["run_monitoring"] |= {"poll_interval_seconds": 2}
    (home / "dagster.yaml").write_text(yaml.safe_dump(instance))
    return folder


@pytest.fixture(autouse=True)
def _closed_gate(project: Path) -> None:
    (project / "gate").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[DevServer]:
    running = DevServer.start(project)
    try:
        running.wait_until_ready()
        yield running
    finally:
        (project / "gate").touch()  # a run that a failed test leaves behind would wait for ever
        running.kill()


@pytest.fixture
def instance(project: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(project / ".retrain" / "dagster")) as found:
        yield found


def launch(server: DevServer, model: str) -> str:
    """Materialize the model's raw data, as the UI does; the id of the run."""
    data = server.graphql(
        f"""mutation {{ launchRun(executionParams: {{ mode: "default", selector: {{
          repositoryLocationName: "retrain_assets", repositoryName: "__repository__",
          jobName: "__ASSET_JOB", assetSelection: [{{path: ["{model}", "raw_data"]}}] }} }}) {{
            __typename ... on LaunchRunSuccess {{ run {{ runId }} }}
            ... on PythonError {{ message }} }} }}"""
    )
    run_id: str = data["launchRun"]["run"]["runId"]
    return run_id


def process_of(server: DevServer, instance: dg.DagsterInstance, run_id: str) -> int:
    """The run's process, once the source is waiting in it."""

    def look() -> int | None:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        if run.status != dg.DagsterRunStatus.STARTED or Tag.PROCESS not in run.tags:
            return None
        return int(run.tags[Tag.PROCESS].split(" ")[1])

    return server.wait_for("the run's process", look, _SECONDS)


def ended(server: DevServer, instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    def look() -> dg.DagsterRunStatus | None:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.status if run.is_finished else None

    return server.wait_for("the run's end", look, _SECONDS)


def tried_again(server: DevServer, instance: dg.DagsterInstance, run_id: str) -> str:
    """The run that Dagster made of one that died."""

    def look() -> str | None:
        again = instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run_id}))
        return again[0].run_id if again else None

    # Once in a while Dagster misses one, and `retry_sensor` waits before it reports it again.
    return server.wait_for("the second attempt", look, _SECONDS)


def test_a_run_builds_its_own_model_only_and_succeeds(
    server: DevServer, instance: dg.DagsterInstance, project: Path
) -> None:
    run_id = launch(server, "first")
    pid = process_of(server, instance, run_id)
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"RETRAIN_MODELS=first" in environment
    (project / "gate").touch()
    assert ended(server, instance, run_id) == dg.DagsterRunStatus.SUCCESS


def test_a_terminated_run_is_canceled_and_its_process_gone(
    server: DevServer, instance: dg.DagsterInstance
) -> None:
    run_id = launch(server, "first")
    pid = process_of(server, instance, run_id)
    server.graphql(
        f'mutation {{ terminateRun(runId: "{run_id}") {{ __typename ... on PythonError {{ message }} }} }}'
    )
    assert ended(server, instance, run_id) == dg.DagsterRunStatus.CANCELED
    server.wait_for(
        "its end", lambda: None if Path(f"/proc/{pid}/cwd").exists() else True, _SECONDS
    )


def test_a_run_whose_process_was_killed_fails_and_is_tried_again(
    server: DevServer, instance: dg.DagsterInstance, project: Path
) -> None:
    run_id = launch(server, "second")
    os.kill(process_of(server, instance, run_id), signal.SIGKILL)
    assert ended(server, instance, run_id) == dg.DagsterRunStatus.FAILURE
    (project / "gate").touch()
    second = tried_again(server, instance, run_id)
    assert ended(server, instance, second) == dg.DagsterRunStatus.SUCCESS


def test_a_run_whose_failure_dagster_passed_over_is_tried_again(
    server: DevServer, instance: dg.DagsterInstance, project: Path
) -> None:
    """Its daemon reads the event of the failure while the run's state says that it still runs."""
    run_id = launch(server, "second")
    pid = process_of(server, instance, run_id)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    failure = dg.DagsterEvent(dg.DagsterEventType.RUN_FAILURE.value, run.job_name, message="lost")
    cursor = "EVENT_LOG_CONSUMER_CURSOR-PIPELINE_FAILURE"
    before = instance.daemon_cursor_storage.get_cursor_values({cursor})
    instance.event_log_storage.store_event(
        dg.EventLogEntry(None, logging.ERROR, "", run_id, time.time(), dagster_event=failure)
    )

    def passed() -> bool | None:
        now = instance.daemon_cursor_storage.get_cursor_values({cursor})
        return True if now != before else None

    server.wait_for("the daemon to pass the event", passed, _SECONDS)
    instance.run_storage.handle_run_event(run_id, failure)
    instance.add_run_tags(run_id, {"dagster/will_retry": "true"})
    os.kill(pid, signal.SIGKILL)
    (project / "gate").touch()
    second = tried_again(server, instance, run_id)
    assert ended(server, instance, second) == dg.DagsterRunStatus.SUCCESS
    failures = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert [entry.get_dagster_event().message for entry in failures] == ["lost", REPORTED_AGAIN]


def test_a_run_outlives_a_restart_of_dagster(
    server: DevServer, instance: dg.DagsterInstance, project: Path
) -> None:
    run_id = launch(server, "first")
    pid = process_of(server, instance, run_id)
    assert server.stop() == []
    assert Path(f"/proc/{pid}/cwd").exists()
    restarted = DevServer.start(project)
    try:
        restarted.wait_until_ready()
        (project / "gate").touch()
        assert ended(restarted, instance, run_id) == dg.DagsterRunStatus.SUCCESS
    finally:
        restarted.kill()
