"""What `resources` of a spec becomes on Kubernetes, held against the Kubernetes client's own models."""

import json
from typing import Any

import dagster as dg
import pytest
from dagster_k8s import DagsterK8sJobConfig, construct_dagster_k8s_job
from dagster_k8s.job import get_user_defined_k8s_config

from retrain_assets.orchestration.factory import model_assets
from retrain_assets.orchestration.keys import STAGES, Tag, asset_key, monitor_keys, retrain_keys
from retrain_assets.orchestration.kubernetes import (
    K8S_CONFIG,
    gpu_pool,
    more_memory,
    op_tags,
    run_tags,
)
from retrain_assets.orchestration.run_launcher import out_of_memory, unpullable, unschedulable
from retrain_assets.spec.model import ModelSpec
from retrain_assets.spec.resources import Resources

ALL = {
    "cpu": 1.5,
    "memory": "8Gi",
    "ephemeral_storage": "20Gi",
    "gpu": 2,
    "gpu_type": "NVIDIA-H200",
    "node_selector": {"pool": "training"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "priority": "retraining",
}
RETRAIN = retrain_keys("churn", partitioned=True)


def spec(**resources: dict[str, Any]) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "churn",
            "partitions": {"every": "day", "start": "2024-01-01"},
            "source": {"files": "/data/{partition}.parquet"},
            "target": "label",
            "task": "binary",
            "train": {"window": 60, "holdout": 7},
            "resources": resources,
        }
    )


def pod_of(config: Any, **deployment: Any) -> Any:
    """The pod that dagster-k8s makes of a tag, as the Kubernetes client sends it."""
    text = config if isinstance(config, str) else json.dumps(config)
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(job_image="retrain:1", dagster_home="/home", **deployment),
        args=["true"],
        job_name="job",
        user_defined_k8s_config=get_user_defined_k8s_config({K8S_CONFIG: text}),
    )
    return job.spec.template.spec


def test_every_field_reaches_the_pod() -> None:
    pod = pod_of(op_tags(Resources.model_validate(ALL))[K8S_CONFIG])
    (container,) = pod.containers
    limits = {"memory": "8Gi", "ephemeral-storage": "20Gi", "nvidia.com/gpu": "2"}
    assert container.resources.limits == limits, "the CPU is shared, not capped"
    assert container.resources.requests == {**limits, "cpu": "1500m"}
    assert pod.node_selector == {"pool": "training", "nvidia.com/gpu.product": "NVIDIA-H200"}
    (toleration,) = pod.tolerations
    assert (toleration.key, toleration.operator, toleration.effect) == (
        "nvidia.com/gpu", "Exists", "NoSchedule",
    )  # fmt: skip
    assert pod.priority_class_name == "retraining"


@pytest.mark.parametrize("section", ["container_config", "pod_spec_config"])
def test_a_wrong_field_is_refused_by_the_models(section: str) -> None:
    config = op_tags(Resources.model_validate(ALL))[K8S_CONFIG]
    config[section]["resorces"] = {}
    with pytest.raises(Exception, match=r"Unexpected keys in model class.*resorces"):
        pod_of(config)


def test_a_wrong_field_below_is_refused_as_well() -> None:
    config = op_tags(Resources.model_validate(ALL))[K8S_CONFIG]
    config["pod_spec_config"]["tolerations"][0]["efect"] = "NoSchedule"
    with pytest.raises(Exception, match=r"Unexpected keys in model class V1Toleration.*efect"):
        pod_of(config)


def test_a_step_that_asks_for_nothing_has_no_tags_and_no_pool() -> None:
    assert op_tags(Resources()) == {}
    assert gpu_pool(Resources(memory="4Gi")) is None


def test_a_step_that_only_wants_to_be_alone_has_no_requests() -> None:
    assert K8S_CONFIG not in op_tags(Resources(isolate=True))
    assert op_tags(Resources(isolate=True))


def test_the_op_of_the_asset_has_the_request_and_the_pool() -> None:
    assets = {a.key.path[-1]: a for a in model_assets(spec(candidate_model={"gpu": 1}))}
    assert set(STAGES) <= set(assets)
    candidate, promoted = assets["candidate_model"].op, assets["promoted_model"].op
    assert json.loads(candidate.tags[K8S_CONFIG])["container_config"]["resources"]["limits"] == {
        "nvidia.com/gpu": "1"
    }
    assert (candidate.pool, promoted.pool) == ("gpu", None)
    assert promoted.tags == {}


def test_the_pod_of_a_retraining_is_the_pod_of_its_only_step_that_asks() -> None:
    tags = run_tags(spec(candidate_model={"gpu": 1, "memory": "8Gi"}), RETRAIN)
    (container,) = pod_of(tags[K8S_CONFIG], env_vars=["RETRAIN_EXECUTOR=k8s"]).containers
    assert container.resources.limits == {"memory": "8Gi", "nvidia.com/gpu": "1"}
    assert tags[Tag.RESOURCES] == "candidate_model"
    last = {variable.name: variable.value for variable in container.env}
    assert last["RETRAIN_EXECUTOR"] == "in_process", "later variables win in a container"


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"raw_data": {"memory": "8Gi"}},
        {"candidate_model": {"isolate": True}},
        {"candidate_model": {"gpu": 1}, "promoted_model": {"memory": "8Gi"}},
    ],
    ids=["nothing asked", "another run asks", "alone", "two steps ask"],
)
def test_other_retrainings_get_no_pod_of_their_own(resources: dict[str, Any]) -> None:
    assert run_tags(spec(**resources), RETRAIN) == {}


def test_a_monitor_run_gets_what_its_own_step_asks_for() -> None:
    asking = spec(features={"memory": "8Gi"}, candidate_model={"gpu": 1})
    config = json.loads(run_tags(asking, monitor_keys("churn"))[K8S_CONFIG])
    assert config["container_config"]["resources"]["limits"] == {"memory": "8Gi"}


def run(tags: dict[str, str]) -> dg.DagsterRun:
    return dg.DagsterRun("job", tags=tags, asset_selection=frozenset(RETRAIN))


def test_being_killed_for_memory_names_the_asset_the_limit_and_the_field() -> None:
    tags = run_tags(spec(candidate_model={"memory": "8Gi"}), RETRAIN)
    text = out_of_memory(run(tags), ["churn/candidate_model"], "8Gi")
    assert text.startswith(
        "churn/candidate_model: killed for using more memory than the limit of 8Gi"
    )
    assert "raise resources.candidate_model.memory" in text


def test_being_killed_without_a_request_asks_to_set_one_for_the_step_that_ran() -> None:
    text = out_of_memory(run({}), ["churn/features"], None)
    assert "set resources.features.memory" in text


def test_a_pod_that_no_node_takes_says_what_it_asks_for() -> None:
    tags = run_tags(spec(candidate_model={"gpu": 4, "cpu": 2}), RETRAIN)
    assert "candidate_model of the spec asks for (cpu 2000m, nvidia.com/gpu 4)" in unschedulable(
        run(tags)
    )


GROWING = {"memory": "8Gi", "memory_retry": {"factor": 1.5, "limit": "14Gi"}}


def test_the_next_attempt_of_a_killed_pod_asks_for_more_until_the_limit() -> None:
    tags = run_tags(spec(candidate_model=GROWING), RETRAIN)
    assert more_memory(tags, "8Gi") == "12288Mi"
    assert more_memory(tags, "12288Mi") == "14Gi"
    assert more_memory(tags, "14Gi") is None
    text = out_of_memory(run(tags), ["churn/candidate_model"], "8Gi", "12288Mi")
    assert text.endswith("By its memory_retry the next attempt asks for 12288Mi.")


def test_without_memory_retry_the_next_attempt_asks_for_the_same() -> None:
    tags = run_tags(spec(candidate_model={"memory": "8Gi"}), RETRAIN)
    assert more_memory(tags, "8Gi") is None


def test_a_step_in_a_pod_of_its_own_says_on_its_op_how_much_more_it_may_get() -> None:
    tags = op_tags(Resources.model_validate(GROWING | {"isolate": True}))
    assert more_memory(tags, "8Gi") == "12288Mi"


def test_being_killed_in_a_pod_of_its_own_asks_to_raise_what_the_spec_asks_for() -> None:
    text = out_of_memory(run({}), ["churn/candidate_model"], "8Gi", in_spec=True)
    assert "raise resources.candidate_model.memory" in text


def test_an_image_that_cannot_be_pulled_is_named_with_every_place_that_names_it() -> None:
    tags = {"dagster/image": "registry.example.com/retrain:1"}
    text = unpullable(run(tags))
    assert "The image registry.example.com/retrain:1 of the run's pod cannot be pulled" in text
    assert "RETRAIN_IMAGE" in text
    assert "tag dagster-k8s/config" not in text
    own = json.dumps({"container_config": {"image": "registry.example.com/retrain:1"}})
    assert "or the run's own tag dagster-k8s/config" in unpullable(run(tags | {K8S_CONFIG: own}))


def test_keys_of_assets_are_those_of_steps() -> None:
    assert asset_key("churn", "candidate_model").to_python_identifier() == "churn__candidate_model"
