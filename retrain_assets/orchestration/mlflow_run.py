"""The MLflow run that stands for a Dagster run: parent of the candidates that it trains.

https://docs.dagster.io/integrations/libraries/mlflow

dagster-mlflow's resource makes one MLflow run per Dagster run and finds it again when the run is
retried. It never ends that run under the in-process executor, so this does; and it is imported only
by a run that trains, since it costs two CPU seconds.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg

from retrain_assets.errors import RegistryError
from retrain_assets.orchestration.platform import Platform

__all__ = ["parent_run"]


@contextmanager
def parent_run(
    context: dg.AssetExecutionContext, platform: Platform, experiment: str
) -> Iterator[str]:
    """Id of the MLflow run that stands for this Dagster run in `experiment`.

    Raises:
        RegistryError: the run cannot be started, or cannot be ended after all else went well.
    """
    platform.registry.ensure_experiment(experiment)
    with ExitStack() as stack:
        mlflow = _resource(context, platform, experiment, stack)
        run_id: str = mlflow.active_run().info.run_id
        ending = f"ending the run of {experiment}"
        try:
            yield run_id
        except BaseException:
            # What went wrong is what the step fails with; that the registry is away now as well is not.
            try:
                with platform.registry.translated(ending):
                    mlflow.end_run("FAILED")
            except RegistryError as error:
                context.log.warning(str(error))
            raise
        with platform.registry.translated(ending):
            mlflow.end_run("FINISHED")


def _resource(
    context: dg.AssetExecutionContext, platform: Platform, experiment: str, stack: ExitStack
) -> Any:
    """dagster-mlflow's resource, which has started or found the run."""
    config = {
        "experiment_name": experiment,
        "mlflow_tracking_uri": platform.settings.mlflow_uri,
        "extra_tags": {"retrain/model": experiment},
    }
    with warnings.catch_warnings():
        # The resource is beta and declares itself with deprecated decorators.
        warnings.simplefilter("ignore")
        from dagster_mlflow import mlflow_tracking

        try:
            resources = stack.enter_context(
                dg.build_resources(
                    {"mlflow": mlflow_tracking},
                    instance=context.instance,
                    resource_config={"mlflow": {"config": config}},
                    dagster_run=context.run,
                    log_manager=context.log,
                )
            )
        except dg.DagsterResourceFunctionError as error:
            with platform.registry.translated(f"starting the run of {experiment}"):
                raise error.user_exception from None
    return resources.mlflow
