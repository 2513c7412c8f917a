"""What a spec's section `resources` means on Kubernetes: tags of steps and runs, and the pool of GPUs.

https://docs.dagster.io/deployment/oss/deployment-options/kubernetes/customizing-your-deployment

Belongs here: from `Resources` to `dagster-k8s/config`. Does not: who executes steps (`executors`),
which runs are requested (`sensors`, `deciding`), the cluster's settings (the folder k8s/).

A step has its request on its op, for a pod of its own. A run in which just one step asks for
something has the request on the run too: the run's pod is that step's pod then, which saves a pod's
start per step, and the other steps of such a run are cheap (docs/decisions/0015).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from retrain_assets.orchestration.keys import Tag
from retrain_assets.spec.model import ModelSpec
from retrain_assets.spec.resources import MemoryRetry, Resources

__all__ = [
    "GPU_POOL",
    "ISOLATED",
    "K8S_CONFIG",
    "gpu_pool",
    "more_memory",
    "op_tags",
    "resources_of",
    "run_tags",
    "with_memory",
]

GPU_POOL = "gpu"
"""Pool of every step that asks for a GPU; its limit is the number of GPUs of the fleet."""

K8S_CONFIG = "dagster-k8s/config"
"""Tag that dagster-k8s reads, on ops for the pods of steps and on runs for the pods of runs."""

ISOLATED = "retrain/isolated"
"""Tag on the ops of steps that ask for anything."""

_GPU = "nvidia.com/gpu"
_GPU_TYPE = "nvidia.com/gpu.product"


def resources_of(spec: ModelSpec, stage: str) -> Resources:
    """What a step asks for; nothing where the spec does not name it."""
    return next((asked for name, asked in spec.resources.items() if name == stage), Resources())


def op_tags(resources: Resources) -> dict[str, Any]:
    """Tags of a step's op; none for a step that asks for nothing."""
    if not resources.isolated:
        return {}
    tags: dict[str, Any] = {ISOLATED: "true"}
    if config := _config(resources):
        tags[K8S_CONFIG] = config
    return tags | _memory_retry(resources)


def gpu_pool(resources: Resources) -> str | None:
    """The pool of a step: `gpu` where it asks for one."""
    return GPU_POOL if resources.gpu else None


def run_tags(spec: ModelSpec, selection: Iterable[dg.AssetKey]) -> dict[str, str]:
    """Tags of a run of these assets of one model.

    Where exactly one of them asks for something, the run's pod gets it and executes all steps
    itself. Otherwise none: with `RETRAIN_EXECUTOR=k8s` each step that asks, or that sets `isolate`,
    then gets a pod of its own.
    """
    asking = {
        key.path[-1]: asked
        for key in selection
        if (asked := resources_of(spec, key.path[-1])).isolated
    }
    if len(asking) != 1:
        return {}
    ((stage, resources),) = asking.items()
    if resources.isolate:
        return {}
    config = _config(resources)
    container = config.setdefault("container_config", {})
    # The container's own variable wins over the deployment's.
    container["env"] = [{"name": "RETRAIN_EXECUTOR", "value": "in_process"}]
    tags = {K8S_CONFIG: json.dumps(config, sort_keys=True), Tag.RESOURCES: stage}
    return tags | _memory_retry(resources)


def more_memory(tags: Mapping[str, str], limit: str | None) -> str | None:
    """What the attempt after one that was killed at `limit` asks for; None where there is to be no more.

    Args:
        tags: of the run whose pod it was, or of the op.
        limit: of the container that was killed.
    """
    policy = tags.get(Tag.MEMORY_RETRY)
    if policy is None or limit is None:
        return None
    return MemoryRetry.model_validate_json(policy).after(limit)


def with_memory(memory: str) -> dict[str, Any]:
    """Container settings of a pod with this much memory."""
    return {"resources": {"requests": {"memory": memory}, "limits": {"memory": memory}}}


def _memory_retry(resources: Resources) -> dict[str, str]:
    policy = resources.memory_retry
    return {} if policy is None else {Tag.MEMORY_RETRY: policy.model_dump_json()}


def _config(resources: Resources) -> dict[str, Any]:
    """The value of `dagster-k8s/config`: container and pod, without what is not asked for."""
    sections = {
        "container_config": _container(resources),
        "pod_spec_config": _pod_spec(resources),
    }
    return {name: dict(section) for name, section in sections.items() if section}


def _container(resources: Resources) -> Mapping[str, Any]:
    """Requests, and limits of all but the CPU, which is better shared than idle."""
    limits: dict[str, str] = {}
    if resources.memory is not None:
        limits["memory"] = resources.memory
    if resources.ephemeral_storage is not None:
        limits["ephemeral-storage"] = resources.ephemeral_storage
    if resources.gpu:
        limits[_GPU] = str(resources.gpu)
    requests = dict(limits)
    if resources.cpu is not None:
        requests["cpu"] = f"{max(1, round(resources.cpu * 1000))}m"
    asked = {"requests": requests, "limits": limits}
    asked = {name: amounts for name, amounts in asked.items() if amounts}
    return {"resources": asked} if asked else {}


def _pod_spec(resources: Resources) -> Mapping[str, Any]:
    selector = dict(resources.node_selector)
    if resources.gpu_type is not None:
        selector[_GPU_TYPE] = resources.gpu_type
    tolerations = [toleration.model_dump(exclude_none=True) for toleration in resources.tolerations]
    spec: dict[str, Any] = {
        "node_selector": selector,
        "tolerations": tolerations,
        "priority_class_name": resources.priority,
    }
    return {name: value for name, value in spec.items() if value}
