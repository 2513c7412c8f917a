"""A fleet of recommenders asks for its first training at once, on a node with two GPUs."""

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from k8s.cluster import ROOT, Deployment, wait_until
from k8s.recommenders import SIZE, fleet, fleet_files

from retrain_assets.promotion.ledger import Ledger

pytestmark = [
    pytest.mark.k8s,
    pytest.mark.timeout(4000),
]

SECONDS = 300 + 60 * SIZE  # a machine with nothing else to do takes 17 s per model
GPUS = 2


@pytest.fixture(scope="module")
def fleet_deployed(deployed: Deployment) -> Deployment:
    """The deployment with the fleet's specs alone, and no sensor that is on."""
    if deployed.specs != fleet_files():
        deployed.serve(fleet_files())
    return deployed


def lived(pod: dict[str, Any]) -> tuple[datetime, datetime]:
    """When the pod's container started and ended."""
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    return datetime.fromisoformat(state["startedAt"]), datetime.fromisoformat(state["finishedAt"])


def ended_pods(deployment: Deployment) -> list[dict[str, Any]] | None:
    """Pods of runs, once all of them have ended: the process ends a little after its run."""
    pods = deployment.get("pods", "-l", "app.kubernetes.io/component in (run_worker, step_worker)")
    phases = {pod["status"]["phase"] for pod in pods}
    return pods if phases <= {"Succeeded", "Failed"} else None


def most_at_a_time(spans: list[tuple[datetime, datetime]]) -> int:
    """How many of the half-open spans overlap at most."""
    return max(sum(start <= at < end for start, end in spans) for at, _ in spans)


def gpus(pod: dict[str, Any]) -> int:
    limits = pod["spec"]["containers"][0]["resources"].get("limits", {})
    return int(limits.get("nvidia.com/gpu", 0))


def wait_for_a_gpu(deployment: Deployment) -> set[str]:
    """Runs of which the UI says that they are queued for the pool `gpu`."""
    queued = deployment.graphql(
        "query { runsOrError(filter: {statuses: [QUEUED]}) { ... on Runs { results {"
        " runId rootConcurrencyKeys hasConcurrencyKeySlots hasUnconstrainedRootNodes } } } }"
    )["runsOrError"]["results"]
    return {
        run["runId"]
        for run in queued
        if run["rootConcurrencyKeys"] == ["gpu"]
        and not run["hasConcurrencyKeySlots"]
        and not run["hasUnconstrainedRootNodes"]
    }


def test_every_model_of_the_fleet_is_trained_and_the_gpus_are_never_overcommitted(
    fleet_deployed: Deployment,
) -> None:
    names = [f"rec_{row['market']}" for row in fleet()["for_each"]]
    with_gpu = [row for row in fleet()["for_each"] if row.get("resources.candidate_model.gpu")]
    ledger = Ledger(fleet_deployed.postgres.url("ledger"))
    waited: set[str] = set()
    began, began_at = time.monotonic(), time.time()
    fleet_deployed.automate("arrivals", True)
    fleet_deployed.automate("freshness_sensor", True)

    def all_have_a_champion() -> bool:
        runs = [run for run in fleet_deployed.runs() if run["creationTime"] >= began_at]
        waited.update(wait_for_a_gpu(fleet_deployed))
        failed = [run for run in runs if run["status"] == "FAILURE"]
        assert not failed, fleet_deployed.step_output(failed[0]["runId"])
        busy = [run for run in runs if run["status"] not in ("SUCCESS", "CANCELED")]
        return not busy and all(ledger.champion(name) is not None for name in names)

    wait_until(f"{SIZE} models have a champion", SECONDS, all_have_a_champion)
    print(
        f"{SIZE} champions after {time.monotonic() - began:.0f} s; {len(waited)} waited for a GPU"
    )
    for sensor in ("arrivals", "freshness_sensor"):
        fleet_deployed.automate(sensor, False)
    pods = wait_until("every pod of a run has ended", 300, lambda: ended_pods(fleet_deployed))
    spans = [lived(pod) for pod in pods if gpus(pod)]
    assert len(spans) == len(with_gpu)
    assert 1 <= most_at_a_time(spans) <= GPUS
    assert waited, "nothing has waited for a GPU, or the UI does not say so"


def test_output_of_every_step_is_readable_without_any_pod(fleet_deployed: Deployment) -> None:
    fleet_deployed.kubectl("delete", "jobs", "--all", "--cascade=foreground", "--timeout=120s")
    for run in fleet_deployed.runs():
        if run["tags"].get("retrain/kind") == "retrain":
            assert "registered" in fleet_deployed.step_output(run["runId"])


def test_status_works_from_outside_the_cluster(fleet_deployed: Deployment, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "k8s/base/dagster.yaml").read_text())
    specs = tmp_path / "specs"
    specs.mkdir()
    for name, content in fleet_files().items():
        (specs / name).write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "retrain_assets.cli", "status", "--json", "--specs", str(specs)],
        env={**os.environ, **fleet_deployed.environment(), "DAGSTER_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"champion') >= SIZE
