"""Steps in pods of their own: dagster-k8s's executor, with what it does not know of memory.

https://docs.dagster.io/deployment/oss/deployment-options/kubernetes/customizing-your-deployment

Belongs here: why a step's pod was killed, and more memory for the next attempt. Does not: which steps get
pods (`executors`), what they ask for (`kubernetes`), the pods of runs (`run_launcher`).

dagster-k8s says of a killed pod that its Job has failed, and gives every attempt of a step the same memory.
Here the log of the run says why, and where the spec has `memory_retry`, the run may be tried again by
`run_retries`: the next attempt executes what is missing, the killed step with more memory. The tag
`retrain/memory`, which Dagster copies from attempt to attempt, carries how much.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_k8s import k8s_job_executor

from retrain_assets.orchestration.kubernetes import K8S_CONFIG, more_memory, with_memory
from retrain_assets.orchestration.run_launcher import (
    RetrainRunLauncher,
    memory_after_kills,
    memory_tag,
    out_of_memory,
)

__all__ = ["RETRY_TAG", "StepPods"]

RETRY_TAG = "dagster/retry_on_asset_or_op_failure"
"""Dagster's tag that lets `run_retries` try a run again whose step has failed."""

_JOB = "Kubernetes Job name"
"""Under which dagster-k8s's event names the Job of a step."""


class StepPods(dg.Executor):
    """`k8s_job_executor` that explains and outgrows kills for memory."""

    def __init__(self, context: dg.InitExecutorContext) -> None:
        self._context = context
        self._tags: dict[str, Mapping[str, str]] = {
            node.name: node.definition.tags for node in context.job.get_definition().nodes
        }
        self._plain = self._executor({})

    @property
    def retries(self) -> Any:
        """As its configuration says."""
        return self._plain.retries

    @property
    def step_dependency_config(self) -> Any:
        """As its configuration says."""
        return self._plain.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:
        """The events of the steps; one that was killed for memory is explained before its failure counts."""
        run: dg.DagsterRun = plan_context.dagster_run
        memory = memory_after_kills(run)
        if RETRY_TAG in run.tags and memory:
            # An earlier attempt's: other failures of this one are not to be tried again.
            plan_context.instance.add_run_tags(run.run_id, {RETRY_TAG: "false"})
        jobs: dict[str, str] = {}
        events: Iterator[Any] = self._executor(memory).execute(plan_context, execution_plan)
        for event in events:
            if event.event_type == dg.DagsterEventType.STEP_WORKER_STARTING:
                jobs[event.step_key] = str(event.event_specific_data.metadata[_JOB].value)
            elif event.event_type == dg.DagsterEventType.STEP_FAILURE and event.step_key in jobs:
                self._explain(plan_context, event.step_key, jobs[event.step_key])
            yield event

    def _executor(self, memory: Mapping[str, str]) -> dg.Executor:
        """dagster-k8s's, with this much memory for some steps."""
        make = k8s_job_executor.executor_creation_fn
        assert make is not None
        config = dict(self._context.executor_config)
        if memory:
            more = {step: {"container_config": with_memory(m)} for step, m in memory.items()}
            config["per_step_k8s_config"] = more
        return make(self._context._replace(executor_config=config))

    def _explain(self, plan_context: Any, step: str, job: str) -> None:
        """Say in the run's log why the step's pod was killed; ask for another attempt where that helps."""
        instance: dg.DagsterInstance = plan_context.instance
        launcher = instance.run_launcher
        run = instance.get_run_by_id(plan_context.run_id)  # with the tags of what else was killed
        if run is None or not isinstance(launcher, RetrainRunLauncher):
            return
        if not launcher.step_killed_for_memory(run, job):
            return
        memory, asked = memory_after_kills(run), _limit(self._tags[step])
        limit = memory.get(step) or asked or launcher.memory_limit(run)
        more = more_memory(self._tags[step], limit)
        if more is not None:
            instance.add_run_tags(
                run.run_id, memory_tag(memory | {step: more}) | {RETRY_TAG: "true"}
            )
        name = "/".join(step.rsplit("__", 1))
        plan_context.log.error(out_of_memory(run, [name], limit, more, in_spec=asked is not None))


def _limit(tags: Mapping[str, str]) -> str | None:
    """Memory that an op's own tags ask for."""
    config = json.loads(tags.get(K8S_CONFIG, "{}"))
    found: str | None = (
        config.get("container_config", {}).get("resources", {}).get("limits", {}).get("memory")
    )
    return found
