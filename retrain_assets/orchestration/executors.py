"""The executor that `RETRAIN_EXECUTOR` names, for every run of the code location.

https://docs.dagster.io/guides/operate/run-executors
"""

import dagster as dg

from retrain_assets.errors import SettingsError
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
    """In process (default), one forked process per step, or one Kubernetes pod per step.

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
            try:
                from dagster_k8s import k8s_job_executor
            except ImportError:
                raise SettingsError(
                    "RETRAIN_EXECUTOR=k8s needs the package dagster-k8s: "
                    "pip install 'retrain-assets[k8s]'"
                ) from None
            return k8s_job_executor
