"""The MLflow run that stands for a Dagster run: parent of the candidates that it trains.

https://docs.dagster.io/integrations/libraries/mlflow

dagster-mlflow's resource makes one MLflow run per Dagster run and finds it again when the run is
retried. It never ends that run under the in-process executor, so this does; and it is imported only
by a run that trains, since it costs two CPU seconds.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dagster as dg

from retrain_assets.orchestration.platform import Platform

__all__ = ["parent_run"]


@contextmanager
def parent_run(
    context: dg.AssetExecutionContext, platform: Platform, experiment: str
) -> Iterator[str]:
    """Id of the MLflow run that stands for this Dagster run in `experiment`."""
    platform.registry.ensure_experiment(experiment)
    config = {
        "experiment_name": experiment,
        "mlflow_tracking_uri": platform.settings.mlflow_uri,
        "extra_tags": {"retrain/model": experiment},
    }
    with ExitStack() as stack:
        with warnings.catch_warnings():
            # The resource is beta and declares itself with deprecated decorators.
            warnings.simplefilter("ignore")
            from dagster_mlflow import mlflow_tracking

            resources = stack.enter_context(
                dg.build_resources(
                    {"mlflow": mlflow_tracking},
                    instance=context.instance,
                    resource_config={"mlflow": {"config": config}},
                    dagster_run=context.run,
                    log_manager=context.log,
                )
            )
        mlflow = resources.mlflow
        run_id: str = mlflow.active_run().info.run_id
        status = "FAILED"
        try:
            yield run_id
            status = "FINISHED"
        finally:
            mlflow.end_run(status)
