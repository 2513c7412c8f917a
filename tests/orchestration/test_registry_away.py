"""A model registry that goes away while a model is trained: the step waits and tries again."""

import shutil
import threading
import time
from pathlib import Path

import dagster as dg
import pytest
from faults.servers import MlflowServer
from orchestration.harness import World, days, succeeded


def messages(world: World) -> list[str]:
    """What the steps of the newest run have said."""
    runs = world.instance.get_runs(limit=1)
    return [entry.message for run in runs for entry in world.instance.all_logs(run.run_id)]


def wait_for(world: World, text: str) -> None:
    deadline = time.monotonic() + 120
    while not any(text in message for message in messages(world)):
        assert time.monotonic() < deadline, f"nobody said {text!r}"
        time.sleep(0.02)


@pytest.mark.timeout(600)
def test_a_registry_that_goes_away_in_mid_training_costs_a_retry_and_no_run(
    stored_world: World, empty_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = stored_world
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copyfile(empty_mlflow, folder / "mlflow.db")
    server = MlflowServer(folder, f"sqlite:///{folder / 'mlflow.db'}")
    monkeypatch.setenv("RETRAIN_MLFLOW_URI", server.url)
    try:
        world.add(train={"params": {"n_estimators": 3000}})
        succeeded(world.ingest(*days(1, 6)))

        def outage() -> None:
            wait_for(world, "training on ")
            server.kill()
            wait_for(world, "asking again in 5 s")
            server.start()

        thread = threading.Thread(target=outage)
        thread.start()
        done = world.restarted().loop.tick("freshness_sensor")
        thread.join()
        (run,) = succeeded(done)
        retried = [e for e in run.result.all_events if e.event_type_value == "STEP_UP_FOR_RETRY"]
        assert {event.step_key for event in retried} == {"churn__candidate_model"}
        assert world.restarted().champion().version == "1"
        runs = world.instance.get_runs(dg.RunsFilter(tags={"retrain/kind": "retrain"}))
        assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS]
    finally:
        server.kill()
