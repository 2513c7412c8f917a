"""One deployment: from nothing to the first promotion, what its pods may do, and a fleet of recommenders that ask
for their first training at once, on a node with two GPUs."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from k8s.cluster import IMAGE, ROOT, Deployment, wait_until
from k8s.recommenders import SIZE, fleet, fleet_files

from retrain_assets.promotion.ledger import Ledger

pytestmark = [pytest.mark.k8s, pytest.mark.timeout(4000)]

MODEL = "flight_delay"
FINISHED = ("SUCCESS", "FAILURE", "CANCELED")
FLEET_SECONDS = 300 + 60 * SIZE  # a machine with nothing else to do takes 17 s per model
GPUS = 2


@dataclass(frozen=True)
class Promoted:
    """What the sensors did until the first promotion.

    Attributes:
        monitor: the run that ingested sixty days.
        retrain: the run that trained and promoted.
    """

    monitor: dict[str, Any]
    retrain: dict[str, Any]


def finished(deployed: Deployment, kind: str, seconds: float) -> dict[str, Any]:
    """The model's first run of a kind, once it has ended."""

    def look() -> dict[str, Any] | None:
        runs = [
            run
            for run in deployed.runs()
            if (run["tags"].get("retrain/model"), run["tags"].get("retrain/kind")) == (MODEL, kind)
        ]
        return runs[-1] if runs and runs[-1]["status"] in FINISHED else None

    return wait_until(f"a {kind} run of {MODEL} has ended", seconds, look)


def sensor_asks(deployed: Deployment, sensor: str) -> None:
    """Turn a sensor on until it has asked for runs of the model: every day would be one more."""
    before = len(deployed.runs())
    deployed.automate(sensor, True)

    def asked() -> bool:
        new = deployed.runs()[: len(deployed.runs()) - before]
        return any(run["tags"].get("retrain/model") == MODEL for run in new)

    wait_until(f"{sensor} asks for a run of {MODEL}", 240, asked)
    deployed.automate(sensor, False)


@pytest.fixture(scope="module")
def promoted(deployed: Deployment) -> Promoted:
    started = time.monotonic()
    sensor_asks(deployed, "arrivals")
    monitor = finished(deployed, "monitor", 900)
    assert monitor["status"] == "SUCCESS", deployed.step_output(monitor["runId"])
    sensor_asks(deployed, "freshness_sensor")
    retrain = finished(deployed, "retrain", 900)
    assert retrain["status"] == "SUCCESS", deployed.step_output(retrain["runId"])
    print(f"first promotion {time.monotonic() - started:.0f} s after the sensors were turned on")
    for run in (monitor, retrain):
        waited = run["startTime"] - run["creationTime"]
        took = run["endTime"] - run["startTime"]
        print(f"{run['tags']['retrain/kind']}: first step after {waited:.1f} s, then {took:.1f} s")
    return Promoted(monitor, retrain)


def test_the_sensors_alone_bring_the_first_promotion(
    deployed: Deployment, promoted: Promoted
) -> None:
    champion = Ledger(deployed.postgres.url("ledger")).champion(MODEL)
    assert champion is not None
    assert champion.version == "1"


def test_runs_are_jobs_that_clean_up_after_themselves(
    deployed: Deployment, promoted: Promoted
) -> None:
    jobs = {job["metadata"]["name"]: job for job in deployed.get("jobs")}
    job = jobs[f"dagster-run-{promoted.retrain['runId']}"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert job["spec"]["activeDeadlineSeconds"] == 172800
    assert job["spec"]["backoffLimit"] == 0
    pod = job["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "retrain-run"
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["requests"] == {"cpu": "250m", "memory": "512Mi"}


def test_output_of_steps_is_readable_when_their_pods_are_gone(
    deployed: Deployment, promoted: Promoted
) -> None:
    run_id = promoted.retrain["runId"]
    pods = f"dagster/run-id={run_id}"
    deployed.kubectl("delete", "jobs", "-l", pods, "--cascade=foreground")
    assert not deployed.get("pods", "-l", pods)
    output = deployed.step_output(run_id)
    assert "training on 2013-01-01 to " in output
    assert "version 1 registered" in output
    (key,) = [
        path
        for path in deployed.store.filesystem().find(f"retrain/logs/{run_id}")
        if path.endswith(".err")
    ]
    download = f"{deployed.url}/logs/{key.removeprefix('retrain/logs/').replace('.err', '/err')}"
    with urllib.request.urlopen(download, timeout=30) as answer:
        assert "version 1 registered" in answer.read().decode()


ALLOWED = {
    "retrain-daemon": {
        ("create", "jobs"), ("list", "jobs"), ("delete", "jobs"), ("get", "jobs/status"),
        ("get", "pods"), ("list", "pods"), ("delete", "pods"), ("get", "pods/log"), ("list", "events"),
    },
    "retrain-webserver": {("delete", "jobs"), ("list", "pods"), ("delete", "pods")},
    "retrain-code": set(),
    "retrain-mlflow": set(),
    "retrain-dashboard": set(),
}  # fmt: skip
ALLOWED["retrain-run"] = ALLOWED["retrain-daemon"]
ASKED = sorted(
    set().union(*ALLOWED.values())
    | {
        ("get", "secrets"), ("list", "secrets"), ("get", "configmaps"), ("create", "pods"),
        ("create", "pods/exec"), ("create", "deployments"), ("patch", "deployments"),
        ("update", "jobs"), ("watch", "pods"), ("create", "rolebindings"), ("list", "nodes"),
        ("create", "serviceaccounts/token"), ("impersonate", "serviceaccounts"),
    }
)  # fmt: skip


@pytest.mark.parametrize("account", sorted(ALLOWED))
def test_an_account_may_do_what_it_needs_and_no_more(deployed: Deployment, account: str) -> None:
    user = f"--as=system:serviceaccount:{deployed.namespace}:{account}"
    reviews = "\n---\n".join(
        "apiVersion: authorization.k8s.io/v1\nkind: SelfSubjectAccessReview\nspec: "
        f"{{resourceAttributes: {_attributes(deployed.namespace, verb, resource)}}}"
        for verb, resource in ASKED
    )
    answers = deployed.kubectl(
        "create", user, "-f", "-", "-o", "jsonpath={.status.allowed} ", stdin=reviews
    ).split()
    allowed = {asked for asked, answer in zip(ASKED, answers, strict=True) if answer == "true"}
    assert allowed == ALLOWED[account]
    elsewhere = deployed.cluster.kubectl(
        "auth", "can-i", "create", "jobs", "-n", "default", user, check=False
    )
    assert elsewhere.strip() == "no"


def _attributes(namespace: str, verb: str, resource: str) -> str:
    groups = {
        "jobs": "batch", "deployments": "apps", "rolebindings": "rbac.authorization.k8s.io",
    }  # fmt: skip
    name, _, part = resource.partition("/")
    return (
        f"{{namespace: {namespace}, verb: {verb}, group: '{groups.get(name, '')}', "
        f"resource: {name}, subresource: '{part}'}}"
    )


def test_a_run_ends_at_the_push_of_a_button(deployed: Deployment, promoted: Promoted) -> None:
    before = {run["runId"] for run in deployed.runs()}
    with deployed.store.frozen():  # the run waits for it
        sensor_asks(deployed, "arrivals")
        run_id = next(
            run["runId"]
            for run in deployed.runs()
            if run["runId"] not in before and run["tags"].get("retrain/model") == MODEL
        )
        wait_until("the run has started", 300, lambda: deployed.status(run_id) == "STARTED")
        ended = deployed.graphql(
            "mutation($id: String!) { terminateRun(runId: $id) { __typename"
            " ... on TerminateRunFailure { message } ... on PythonError { message } } }",
            id=run_id,
        )["terminateRun"]
    job = f"dagster-run-{run_id}"
    assert ended["__typename"] == "TerminateRunSuccess", ended
    wait_until(
        "its Job is gone",
        240,
        lambda: job not in {found["metadata"]["name"] for found in deployed.get("jobs")},
    )
    wait_until("the run has ended", 240, lambda: deployed.status(run_id) in FINISHED)
    assert deployed.status(run_id) == "CANCELED"


@pytest.mark.usefixtures("undisturbed")
def test_a_budget_keeps_one_of_two_webservers(deployed: Deployment) -> None:
    """An eviction that would leave none is refused; a drain asks again until it is not."""
    webservers = "app.kubernetes.io/component=webserver"
    deployed.kubectl("scale", "deployment/retrain-webserver", "--replicas=2")
    try:
        deployed.kubectl("rollout", "status", "deployment/retrain-webserver", "--timeout=480s")
        budget = "poddisruptionbudget/retrain-webserver"
        wait_until(
            "the budget counts both", 120,
            lambda: deployed.kubectl("get", budget, "-o", "jsonpath={.status.currentHealthy}") == "2",
        )  # fmt: skip
        pods = deployed.get("pods", "-l", webservers, "--sort-by=.metadata.creationTimestamp")
        old, new = (pod["metadata"]["name"] for pod in pods)
        deployed.cluster.evict(deployed.namespace, new)
        with pytest.raises(AssertionError, match="disruption budget"):
            deployed.cluster.evict(deployed.namespace, old)
    finally:
        deployed.kubectl("scale", "deployment/retrain-webserver", "--replicas=1")


def test_other_specs_are_served_by_new_pods_that_know_what_was(
    deployed: Deployment, promoted: Promoted
) -> None:
    """Every pod holds nothing: a new one goes on where the old one stopped."""
    deployed.serve(fleet_files())
    assert deployed.step_output(promoted.monitor["runId"])


# -- the fleet --------------------------------------------------------------------------------------


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


@pytest.mark.usefixtures("undisturbed")
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

    wait_until(f"{SIZE} models have a champion", FLEET_SECONDS, all_have_a_champion)
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

    def status(home: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "retrain_assets.cli", "status", "--json", "--specs", str(specs),
             *arguments],
            env={**os.environ, **fleet_deployed.environment(), "DAGSTER_HOME": str(tmp_path),
                 "RETRAIN_HOME": str(tmp_path / home)},
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def champions(status: dict[str, Any]) -> list[str]:
        return sorted(row["model"] for row in status["models"] if row["champion"] and row["value"])

    now = status("reader", "--max-age", "0")
    assert len(champions(now)) >= SIZE
    fleet_deployed.automate("fleet_status_sensor", True)
    try:

        def left_by_the_sensor() -> list[str]:
            found = status("another")
            shutil.rmtree(tmp_path / "another", ignore_errors=True)  # what it has read itself
            return champions(found) if found["confirmed_at"] > found["as_of"] else []

        seen = wait_until("the sensor has confirmed its snapshot", 180, left_by_the_sensor)
        assert seen == champions(now)
    finally:
        fleet_deployed.automate("fleet_status_sensor", False)
