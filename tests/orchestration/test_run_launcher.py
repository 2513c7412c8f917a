"""The launcher of run pods, with an API server that is away and answers of one that is there."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster_k8s import K8sRunLauncher
from kubernetes.client.exceptions import ApiException

from retrain_assets.orchestration import run_launcher
from retrain_assets.orchestration.keys import Tag, retrain_keys
from retrain_assets.orchestration.kubernetes import K8S_CONFIG
from retrain_assets.orchestration.run_launcher import RetrainRunLauncher


def config_of(folder: Path) -> dict[str, Any]:
    """An API server that nobody has started."""
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "me", "user": {}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    return {
        "job_namespace": "retrain", "load_incluster_config": False, "job_image": "retrain:1",
        "kubeconfig_file": str(folder / "kubeconfig"), "service_account_name": "retrain-run",
        "dagster_home": "/home", "instance_config_map": "retrain-instance",
        "run_k8s_config": {"container_config": {"resources": {"requests": {"cpu": "250m"},
                                                              "limits": {"memory": "2Gi"}}}},
    }  # fmt: skip


@pytest.fixture
def launchers(tmp_path: Path) -> Iterator[dict[str, K8sRunLauncher]]:
    """The stock launcher and ours, on one instance."""
    with dg.DagsterInstance.ephemeral() as instance:
        made = {
            "stock": K8sRunLauncher(**config_of(tmp_path)),
            "ours": RetrainRunLauncher(**config_of(tmp_path)),
        }
        for launcher in made.values():
            launcher.register_instance(instance)
        yield made


def run_of(**tags: str) -> dg.DagsterRun:
    selection = frozenset(retrain_keys("churn", partitioned=True))
    status = dg.DagsterRunStatus.STARTED
    return dg.DagsterRun("__ASSET_JOB", asset_selection=selection, status=status, tags=tags)


def test_a_run_whose_state_cannot_be_asked_is_not_given_up(
    launchers: dict[str, K8sRunLauncher],
) -> None:
    stock = launchers["stock"].check_run_worker_health(run_of())
    ours = launchers["ours"].check_run_worker_health(run_of())
    assert stock.status.value == "UNKNOWN", "dagster-k8s has learned it: the override can go"
    assert ours.status.value == "RUNNING"
    assert "Connection refused" in str(ours.msg)


def test_a_run_whose_job_is_gone_is_given_up(
    launchers: dict[str, K8sRunLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = launchers["ours"]
    # The one answer that an API server without the Job gives.
    monkeypatch.setattr(launcher._api_client, "get_job_status", lambda **_: None)
    assert launcher.check_run_worker_health(run_of()).status.value == "UNKNOWN"


def test_a_request_of_the_spec_is_merged_with_the_deployment_s_own(
    launchers: dict[str, K8sRunLauncher],
) -> None:
    asked = {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}
    run = run_of(**{K8S_CONFIG: json.dumps(asked)})
    context = launchers["ours"].get_container_context_for_run(run)
    assert context.run_k8s_config.container_config["resources"] == {
        "requests": {"cpu": "250m"},
        "limits": {"memory": "2Gi", "nvidia.com/gpu": "1"},
    }
    env = context.run_k8s_config.container_config["env"]
    assert {"name": "RETRAIN_MODELS", "value": "churn"} in env


def test_the_job_of_a_run_that_is_given_up_while_the_cluster_is_away_is_deleted_when_it_is_back(
    launchers: dict[str, K8sRunLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_launcher, "_ASKED_AGAIN_SECONDS", 0.05)
    run, launcher = run_of()._replace(status=dg.DagsterRunStatus.STARTING), launchers["ours"]
    text = launcher.get_run_worker_debug_info(run)
    assert text is not None
    assert "The cluster cannot be asked why" in text
    assert f"Its Job dagster-run-{run.run_id} is deleted when the cluster answers" in text
    assert "active_deadline_seconds" in text
    waiting = [t for t in threading.enumerate() if t.name == f"delete dagster-run-{run.run_id}"]
    assert waiting, "nobody deletes it"
    deleted = []

    def is_not_ready_at_first(**job: str) -> None:
        deleted.append(job)
        if len(deleted) == 1:
            raise ApiException(503, "Service Unavailable")

    monkeypatch.setattr(launcher._api_client, "delete_job", is_not_ready_at_first)
    waiting[0].join(20)
    assert deleted == [{"job_name": f"dagster-run-{run.run_id}", "namespace": "retrain"}] * 2
    assert not waiting[0].is_alive()


def test_a_job_that_may_not_be_deleted_is_left_with_a_word(
    launchers: dict[str, K8sRunLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(**_: object) -> None:
        raise ApiException(403, "Forbidden")

    run, launcher = run_of()._replace(status=dg.DagsterRunStatus.STARTING), launchers["ours"]
    monkeypatch.setattr(launcher._api_client, "delete_job", refuses)
    text = launcher.get_run_worker_debug_info(run)
    assert f"Its Job dagster-run-{run.run_id} may still be there: delete it" in str(text)
    assert "Forbidden" in str(text)


def test_the_attempt_after_a_kill_gets_the_memory_that_its_tags_say(
    launchers: dict[str, K8sRunLauncher],
) -> None:
    asked = {"container_config": {"resources": {"limits": {"memory": "1Gi"}}}}
    tags = {
        K8S_CONFIG: json.dumps(asked),
        Tag.RESOURCES: "candidate_model",
        Tag.MEMORY: json.dumps({"churn__candidate_model": "2048Mi"}),
    }
    context = launchers["ours"].get_container_context_for_run(run_of(**tags))
    assert context.run_k8s_config.container_config["resources"] == {
        "requests": {"cpu": "250m", "memory": "2048Mi"},
        "limits": {"memory": "2048Mi"},
    }


def test_a_run_that_was_killed_for_memory_leaves_its_successor_more(
    launchers: dict[str, K8sRunLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = launchers["ours"]
    asked = {"container_config": {"resources": {"limits": {"memory": "1Gi"}}}}
    run = run_of(
        **{
            K8S_CONFIG: json.dumps(asked),
            Tag.RESOURCES: "candidate_model",
            Tag.MEMORY_RETRY: '{"factor": 2, "limit": "3Gi"}',
        }
    )
    launcher._instance.add_run(run)
    for name, answer in (("get_pod_names_in_job", ["pod"]), ("get_pod_debug_info", "OOMKilled")):
        monkeypatch.setattr(launcher._api_client, name, lambda *_, answer=answer, **__: answer)
    text = launcher.get_run_worker_debug_info(run)
    assert "By its memory_retry the next attempt asks for 2048Mi." in str(text)
    noted = launcher._instance.get_run_by_id(run.run_id)
    assert noted is not None
    assert json.loads(noted.tags[Tag.MEMORY]) == {"churn__candidate_model": "2048Mi"}


@pytest.mark.parametrize(
    ("event", "advice"),
    [
        (
            "Pod ephemeral local storage usage exceeds the total limit of containers 64Mi. ",
            "evicted for using more local disk than its pod may; raise "
            "resources.candidate_model.ephemeral_storage in the model's spec.",
        ),
        (
            "The node was low on resource: memory. Container dagster was using 900Mi, which exceeds its request of 0.",
            "evicted, for its node had too little left for all; set resources.candidate_model.memory",
        ),
    ],
)
def test_a_run_that_its_node_evicted_says_what_to_change(
    launchers: dict[str, K8sRunLauncher],
    monkeypatch: pytest.MonkeyPatch,
    event: str,
    advice: str,
) -> None:
    launcher = launchers["ours"]
    asked = {"container_config": {"resources": {"limits": {"ephemeral-storage": "64Mi"}}}}
    run = run_of(**{K8S_CONFIG: json.dumps(asked), Tag.RESOURCES: "candidate_model"})
    launcher._instance.add_run(run)
    said = (
        f"Pod status: Failed: {event}\n\nWarning events for pod:\nEvicted: {event}\nUnhealthy: no"
    )
    for name, answer in (("get_pod_names_in_job", ["pod"]), ("get_pod_debug_info", said)):
        monkeypatch.setattr(launcher._api_client, name, lambda *_, answer=answer, **__: answer)
    text = str(launcher.get_run_worker_debug_info(run))
    assert text.startswith(f"the run's start: {advice}")
