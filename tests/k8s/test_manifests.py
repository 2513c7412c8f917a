"""What kustomize makes of the overlays, against the models of the Kubernetes client."""

from typing import Any

import pytest
import yaml
from k8s.cluster import ROOT, Cluster

pytestmark = pytest.mark.k8s


@pytest.fixture(params=["local", "production", "gpu"])
def objects(request: pytest.FixtureRequest, bare_cluster: Cluster) -> list[dict[str, Any]]:
    text = bare_cluster.kubectl("kustomize", str(ROOT / "k8s/overlays" / request.param))
    return list(yaml.safe_load_all(text))


def check(found: dict[str, Any]) -> None:
    """Fail where the object has a field that Kubernetes does not, or lacks one that it needs."""
    import kubernetes.client
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

    model = getattr(kubernetes.client, f"V1{found['kind']}")
    k8s_model_from_dict(model, k8s_snake_case_dict(model, found))


def test_every_field_is_one_that_kubernetes_knows(objects: list[dict[str, Any]]) -> None:
    """A server ignores what it does not know; the client's models do not."""
    for found in objects:
        check(found)


def test_a_field_that_kubernetes_does_not_know_is_caught() -> None:
    with pytest.raises(Exception, match="replica"):
        check({"kind": "Deployment", "spec": {"replica": 1, "selector": {}, "template": {}}})


def test_every_container_is_bounded_probed_and_without_privileges(
    objects: list[dict[str, Any]],
) -> None:
    deployments = [found for found in objects if found["kind"] == "Deployment"]
    assert {d["metadata"]["name"] for d in deployments} == {
        "retrain-webserver", "retrain-daemon", "retrain-code", "retrain-mlflow",
        "retrain-dashboard",
    }  # fmt: skip
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["serviceAccountName"] == deployment["metadata"]["name"]
        assert all("livenessProbe" in container for container in pod["containers"])
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert container["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_secrets_are_referred_to_and_never_there(objects: list[dict[str, Any]]) -> None:
    assert not [found for found in objects if found["kind"] == "Secret"]
    for found in objects:
        if found["kind"] == "ConfigMap":
            names = {name.lower() for name in found["data"]}
            assert not [name for name in names if "password" in name or "secret" in name]


def test_every_pod_that_serves_has_a_network_policy(objects: list[dict[str, Any]]) -> None:
    policies = {f["metadata"]["name"] for f in objects if f["kind"] == "NetworkPolicy"}
    services = {f["metadata"]["name"] for f in objects if f["kind"] == "Service"}
    assert services | {"retrain-default"} == policies
