"""Run pods on Kubernetes, by an instance's `dagster.yaml`:

    run_launcher:
      module: retrain_assets.orchestration.run_launcher
      class: RetrainRunLauncher
      config: {...}            # that of dagster_k8s.K8sRunLauncher

Belongs here: what dagster-k8s's launcher cannot know of models, or answers too soon. Does not: what a pod asks
for (`kubernetes`), how often a run is started again (the instance's `run_retries`).
"""

import json
import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig, get_job_name_from_run_id

from retrain_assets.orchestration.keys import Tag
from retrain_assets.orchestration.kubernetes import K8S_CONFIG, more_memory, with_memory
from retrain_assets.orchestration.launcher import scope_of

__all__ = ["RetrainRunLauncher"]

_log = logging.getLogger(__name__)

_ASKED_AGAIN_SECONDS = 5.0
_IMAGE = "dagster/image"
"""Tag with which dagster-k8s notes the image that a run was launched with."""


class RetrainRunLauncher(K8sRunLauncher):
    """`K8sRunLauncher` that waits for an unreachable API server and explains what stopped a pod.

    - The stock launcher answers "unknown" when it cannot ask, upon which run monitoring fails a run
      whose pod is well, and starts a second one beside it. Here a run whose state cannot be asked is
      still running; the next look, when the server answers again, finds what became of it.
    - "OOMKilled" names a container. Here the message names the asset, the limit and the field of the
      spec; and for a pod that never started, what it waited for.
    - A run that did not start in time is given up, and so is its Job here, later where the API server
      cannot be reached. The stock launcher leaves it: it would start, or call for another node, for nobody.
    """

    def get_container_context_for_run(self, dagster_run: dg.DagsterRun) -> K8sContainerContext:
        """What the run's pod is made of; with the models whose definitions its process builds."""
        context = super().get_container_context_for_run(dagster_run)
        scope = [f"{name}={value}" for name, value in scope_of(dagster_run).items()]
        context = context.merge(K8sContainerContext(env_vars=scope))
        if Tag.RESOURCES in dagster_run.tags and (memory := memory_after_kills(dagster_run)):
            (amount,) = memory.values()  # the run's pod is the pod of its only step that asks
            more = UserDefinedDagsterK8sConfig(container_config=with_memory(amount))
            context = context.merge(K8sContainerContext(run_k8s_config=more))
        return context

    def check_run_worker_health(self, run: dg.DagsterRun) -> Any:
        """The worker's state; RUNNING where the cluster cannot be asked."""
        found = super().check_run_worker_health(run)
        kind = type(found.status)
        if found.status == kind.UNKNOWN and not str(found.msg).endswith("could not be found"):
            return found._replace(status=kind.RUNNING)
        return found

    def get_run_worker_debug_info(
        self, run: dg.DagsterRun, include_container_logs: bool | None = True
    ) -> str | None:
        """What the cluster says about the pod, after one sentence about what to change.

        Run monitoring asks for it when it is about to end the run, and nothing else does.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            found: str = super().get_run_worker_debug_info(run, include_container_logs) or ""
        except (ApiException, HTTPError) as error:
            found = f"The cluster cannot be asked why: {error}"
        text = [self._advice(run, found), found]
        if run.status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED):
            text.append(self._give_up(run))
        return "\n\n".join(filter(None, text)) or None

    def _give_up(self, run: dg.DagsterRun) -> str:
        """Delete the Job of a run that never started, now or when the cluster answers; what became of it."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        name = get_job_name_from_run_id(run.run_id)  # type: ignore[no-untyped-call]
        namespace = self.get_container_context_for_run(run).namespace
        try:
            deleted = self._api_client.delete_job(job_name=name, namespace=namespace)
        except (ApiException, HTTPError) as error:
            if not _passes(error):
                return (
                    f"Its Job {name} may still be there: delete it, or wait for active_deadline_seconds of "
                    f"run_launcher in dagster.yaml. {error}"
                )
            later = threading.Thread(
                target=self._delete_later,
                args=(name, namespace),
                name=f"delete {name}",
                daemon=True,
            )
            later.start()
            return (
                f"Its Job {name} is deleted when the cluster answers. If Dagster's daemon ends before, delete it, "
                f"or wait for active_deadline_seconds of run_launcher in dagster.yaml. {error}"
            )
        return f"Its Job {name} has been deleted." if deleted else f"It has no Job {name}."

    def _delete_later(self, name: str, namespace: str) -> None:
        """Delete a Job as soon as the API server can be reached."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        while True:
            time.sleep(_ASKED_AGAIN_SECONDS)
            try:
                self._api_client.delete_job(job_name=name, namespace=namespace)
            except (ApiException, HTTPError) as error:
                if _passes(error):
                    continue
                _log.warning("Job %s of a run that was given up is not deleted: %s", name, error)
            return

    def _advice(self, run: dg.DagsterRun, found: str) -> str | None:
        if "OOMKilled" in found:
            return self._killed(run)
        if why := re.search("Evicted: (.*)", found):
            return evicted(run, self._running_steps(run), why[1])
        if "FailedScheduling" in found:
            return unschedulable(run)
        if "ErrImage" in found or "ImagePullBackOff" in found:
            return unpullable(run)
        if "DeadlineExceeded" in found:
            return (
                "The run took longer than active_deadline_seconds of run_launcher in dagster.yaml allows: raise "
                "it, or let the model read less (train.window)."
            )
        return None

    def _killed(self, run: dg.DagsterRun) -> str:
        """Why, and what the next attempt gets, which the run's tags say from then on.

        Dagster copies the tags of a failed run to the one that tries it again.
        """
        limit = self.memory_limit(run)
        more = more_memory(run.tags, limit)
        stage = run.tags.get(Tag.RESOURCES)
        if more is not None and stage is not None:
            steps = {"__".join(k.path) for k in run.asset_selection or () if k.path[-1] == stage}
            note = memory_tag(memory_after_kills(run) | dict.fromkeys(steps, more))
            self._instance.add_run_tags(run.run_id, note)
        return out_of_memory(run, self._running_steps(run), limit, more)

    def step_killed_for_memory(self, run: dg.DagsterRun, job: str) -> bool:
        """Whether the pod of a step's Job was; False as well where nothing is known of it any more."""
        namespace = self.get_container_context_for_run(run).namespace
        return any(
            "OOMKilled"
            in self._api_client.get_pod_debug_info(pod, namespace, include_container_logs=False)
            for pod in self._api_client.get_pod_names_in_job(job, namespace=namespace)
        )

    def _running_steps(self, run: dg.DagsterRun) -> list[str]:
        """Keys of the assets whose steps had started and not ended."""
        stats = self._instance.get_run_step_stats(run.run_id)
        running = [stat.step_key for stat in stats if stat.start_time and not stat.end_time]
        return ["/".join(key.rsplit("__", 1)) for key in running]

    def memory_limit(self, run: dg.DagsterRun) -> str | None:
        """Limit of the run's container; None where only the node's memory is one."""
        config = self.get_container_context_for_run(run).run_k8s_config.container_config
        resources: Mapping[str, Any] = config.get("resources") or self.resources
        limit = (resources.get("limits") or {}).get("memory")
        return None if limit is None else str(limit)


def _passes(error: Exception) -> bool:
    """Whether the API server may answer otherwise later: it is away, busy or not ready."""
    status: int | None = getattr(error, "status", None)  # none: no answer at all
    return not status or status == 429 or status >= 500


def memory_after_kills(run: dg.DagsterRun) -> dict[str, str]:
    """Memory of steps, by their keys, for which an earlier attempt of this run was killed."""
    found: dict[str, str] = json.loads(run.tags.get(Tag.MEMORY, "{}"))
    return found


def memory_tag(memory: Mapping[str, str]) -> dict[str, str]:
    """The tag that says so."""
    return {Tag.MEMORY: json.dumps(memory, sort_keys=True)}


def out_of_memory(
    run: dg.DagsterRun,
    running: list[str],
    limit: str | None,
    more: str | None = None,
    *,
    in_spec: bool = False,
) -> str:
    """Who was killed, at which limit, and what to change in the spec.

    Args:
        run: of assets of one model or several.
        running: `model/stage` of the steps that ran.
        limit: the container's limit; None where only the node's memory is one.
        more: what the next attempt asks for; None where it gets the same.
        in_spec: whether the spec asks for memory, where the run's own tags do not say.
    """
    who = _who(running)
    at = f"the limit of {limit} of its pod" if limit else "what its node had left"
    stage = _asking_stage(run, running)
    verb = "raise" if in_spec or _asks(run, "memory") else "set"
    return (
        f"{who}: killed for using more memory than {at}; {verb} resources.{stage}.memory in the "
        f"model's spec, or let it read less (train.window).{_next(more)}"
    )


def evicted(run: dg.DagsterRun, running: list[str], why: str) -> str:
    """Whom a node got rid of, why, and what to change in the spec.

    Args:
        run: of assets of one model or several.
        running: `model/stage` of the steps that ran.
        why: what the kubelet's event says.
    """
    field = "ephemeral_storage" if "ephemeral" in why else "memory"
    verb = "raise" if _asks(run, field.replace("_", "-")) else "set"
    advice = f"{verb} resources.{_asking_stage(run, running)}.{field} in the model's spec"
    if "low on resource" not in why:
        return (
            f"{_who(running)}: evicted for using more local disk than its pod may; {advice}. {why}"
        )
    return (
        f"{_who(running)}: evicted, for its node had too little left for all; {advice} to what it uses: pods "
        f"that use more than they ask for go first. {why}"
    )


def _who(running: list[str]) -> str:
    return " and ".join(running) or "the run's start"


def _asking_stage(run: dg.DagsterRun, running: list[str]) -> str:
    """The stage whose resources are the pod's, or would be."""
    asked = run.tags.get(Tag.RESOURCES)
    return asked or (running[0].rpartition("/")[2] if running else "candidate_model")


def _next(more: str | None) -> str:
    return f" By its memory_retry the next attempt asks for {more}." if more else ""


def unpullable(run: dg.DagsterRun) -> str:
    """Which image a node did not find, and where it is named."""
    return (
        f"The image {run.tags.get(_IMAGE, 'of unknown name')} of the run's pod cannot be pulled: push it, or "
        f"correct RETRAIN_IMAGE (job_image of run_launcher in dagster.yaml){_own_image(run)}; a registry that "
        "asks for a password needs image_pull_secrets there."
    )


def _own_image(run: dg.DagsterRun) -> str:
    config = json.loads(run.tags.get(K8S_CONFIG, "{}")).get("container_config", {})
    return f", or the run's own tag {K8S_CONFIG}" if "image" in config else ""


def unschedulable(run: dg.DagsterRun) -> str:
    """What a pod that no node could take had asked for, and where that is said."""
    stage = run.tags.get(Tag.RESOURCES)
    if stage is None:
        return "No node had room for the run's pod: see run_launcher.resources in dagster.yaml."
    asked = json.loads(run.tags[K8S_CONFIG])
    container = asked.get("container_config", {}).get("resources", {}).get("requests", {})
    wants = ", ".join(f"{name} {amount}" for name, amount in sorted(container.items()))
    return (
        f"No node had room for what resources.{stage} of the spec asks for ({wants or 'a node'}): ask for "
        "less, add nodes, or lower the limit of the pool `gpu` to the number of GPUs."
    )


def _asks(run: dg.DagsterRun, name: str) -> bool:
    return name in _limits(run)


def _limits(run: dg.DagsterRun) -> Mapping[str, str]:
    """What the run's own tags limit its container to; empty where the spec asks for nothing."""
    config = json.loads(run.tags.get(K8S_CONFIG, "{}")).get("container_config", {})
    limits: Mapping[str, str] = config.get("resources", {}).get("limits", {})
    return limits
