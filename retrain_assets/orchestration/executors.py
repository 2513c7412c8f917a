"""The executor that `RETRAIN_EXECUTOR` names, for every run of the code location.

https://docs.dagster.io/guides/operate/run-executors
"""

import dagster as dg

from retrain_assets.errors import SettingsError
from retrain_assets.orchestration.kubernetes import ISOLATED
from retrain_assets.settings import Settings

__all__ = ["PRELOAD", "executor_of"]

PRELOAD = [
    "dagster",
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "retrain_assets.orchestration.factory",
]
"""Modules that the fork server imports once, instead of every step process."""


def executor_of(settings: Settings) -> dg.ExecutorDefinition:
    """In process (default), one forked process per step, or pods of their own for steps that ask.

    Raises:
        SettingsError: `k8s` without the package dagster-k8s.
    """
    match settings.executor:
        case "in_process":
            return dg.in_process_executor
        case "multiprocess":
            return dg.multiprocess_executor.configured(
                {"start_method": {"forkserver": {"preload_modules": PRELOAD}}}
            )
        case "k8s":
            return _pods_where_asked()


def _pods_where_asked() -> dg.ExecutorDefinition:
    """One pod per step in runs with a step that asks for resources; else in the run's own pod.

    The stock executor starts a pod for every step, each of which imports everything again.
    """
    try:
        from dagster_k8s import k8s_job_executor
    except ImportError:
        raise SettingsError(
            "RETRAIN_EXECUTOR=k8s needs the package dagster-k8s: pip install 'retrain-assets[k8s]'"
        ) from None

    from retrain_assets.orchestration.step_pods import StepPods

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        # The definition here is the run's: it holds the selected steps only.
        nodes = context.job.get_definition().nodes
        if any(ISOLATED in node.definition.tags for node in nodes):
            return StepPods(context)
        make = dg.in_process_executor.executor_creation_fn
        assert make is not None
        return make(context)

    return dg.ExecutorDefinition(
        name="k8s",
        config_schema=k8s_job_executor.config_schema.as_field(),
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=create,
    )
