"""Retraining because a person asks: the job `retrain_now` and the sensor that turns it into runs.

https://docs.dagster.io/guides/operate/configuration/run-configuration

Belongs here: a request's decisions, the form in the Launchpad. Does not: whom it means (`fleet.request`), the
command line's workers (`now`), which models share a run (`batching`).

The job only checks and records what is asked for. Its success is the request, which the sensor answers
with batched runs: an op cannot request runs, and a run that carried a fleet could not be spread.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from retrain_assets.errors import LedgerError, RequestError
from retrain_assets.fleet.request import chosen
from retrain_assets.orchestration.batching import run_requests
from retrain_assets.orchestration.cursors import read_cursor, written_cursor
from retrain_assets.orchestration.deciding import Answer, asked_for
from retrain_assets.orchestration.keys import Tag
from retrain_assets.orchestration.platform import Platform
from retrain_assets.settings import Settings
from retrain_assets.spec.model import ModelSpec

__all__ = ["JOB", "RetrainNow", "on_demand_job", "on_demand_sensor", "runs_of"]

JOB = "retrain_now"
_LOOKED_BACK = timedelta(hours=1)
"""How long ago a request may be that a sensor without a cursor still answers; run keys see to it that
none is answered twice."""
_OVERLAP = timedelta(seconds=30)
"""Two runs may be recorded in another order than they ended in."""


class RetrainNow(dg.Config):
    """Which models, and on which data."""

    models: list[str] = Field(default=[], description="Names of models.")
    group: str | None = Field(default=None, description="Beside them, all models of a group.")
    all_models: bool = Field(default=False, description="All models.")
    partition: str | None = Field(
        default=None, description="Data up to this partition; by default the newest of each model."
    )


def on_demand_job(specs: Mapping[str, ModelSpec]) -> dg.JobDefinition:
    """The job, for the models of the code location."""

    @dg.op(name="ask", description="Checks that the models exist; the sensor requests their runs.")
    def ask(context: dg.OpExecutionContext, config: RetrainNow) -> None:
        try:
            found = _meant(specs, config)
        except RequestError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        tags = {Tag.KIND: "request", Tag.MODELS: ",".join(spec.name for spec in found)}
        context.instance.add_run_tags(context.run_id, tags)
        context.log.info(f"{len(found)} models are asked for; `on_demand_sensor` requests the runs")

    @dg.job(
        name=JOB,
        description="Retrain models now: some, a group, or all. They share runs, and run side by side.",
        executor_def=dg.in_process_executor,
    )
    def retrain_now() -> None:
        ask()

    return retrain_now


def _meant(specs: Mapping[str, ModelSpec], config: RetrainNow) -> list[ModelSpec]:
    return chosen(
        specs, config.models, config.group, config.partition, everything=config.all_models
    )


def on_demand_sensor(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SensorResult | dg.SkipReason:
    """Requests the runs that the job `retrain_now` was asked for: models of the same partition share
    runs, as many as may go on side by side. Each request is answered once."""
    platform: Platform = context.resources.platform
    cursor = read_cursor(context.cursor)
    asked, text = _new_requests(context.instance, cursor)
    requests: list[dg.RunRequest] = []
    waiting: list[str] = []
    try:
        for record in asked:
            found = _answered(context, platform, specs, record.dagster_run)
            requests += runs_of(platform, found, platform.settings)
            waiting += [
                f"{one.model}: {', '.join(one.decision.reasons)}"
                for one in found
                if one.wanted is None
            ]
    except LedgerError as error:
        context.log.error(str(error))
        return dg.SkipReason(f"nothing was decided: {error}")
    for reasons in waiting:
        context.log.warning(reasons)
    context.update_cursor(text)
    if requests:
        return dg.SensorResult(run_requests=requests)
    return dg.SkipReason("; ".join(waiting[:5]) or "nobody asks for a retraining")


def runs_of(platform: Platform, found: Sequence[Answer], settings: Settings) -> list[dg.RunRequest]:
    """The runs of a person's request, whose decisions are on record then."""
    platform.decisions.record([one.entry for one in found if one.entry is not None])
    return run_requests([one.wanted for one in found if one.wanted is not None], settings)


def _answered(
    context: dg.SensorEvaluationContext,
    platform: Platform,
    specs: Mapping[str, ModelSpec],
    run: dg.DagsterRun,
) -> list[Answer]:
    ops: Any = run.run_config["ops"]  # Dagster has checked its shape before it ran
    config = RetrainNow(**ops["ask"]["config"])
    try:
        meant = _meant(specs, config)
    except RequestError as error:  # the specs have changed since
        context.log.error(f"request {run.run_id}: {error}")
        return []
    return asked_for(context.instance, platform, meant, config.partition, run.run_id)


def _new_requests(
    instance: dg.DagsterInstance, cursor: Mapping[str, Any]
) -> tuple[list[dg.RunRecord], str]:
    """Runs of the job that succeeded since the last tick, the first one first, and the new cursor."""
    since = datetime.fromtimestamp(cursor["since"], UTC) if cursor else datetime.now(UTC)
    records = instance.get_run_records(
        filters=dg.RunsFilter(
            job_name=JOB,
            statuses=[dg.DagsterRunStatus.SUCCESS],
            updated_after=since - (_OVERLAP if cursor else _LOOKED_BACK),
        ),
        order_by="update_timestamp",
        ascending=True,
    )
    ended = {record.dagster_run.run_id: record.update_timestamp for record in records}
    moments = {run_id: moment.replace(tzinfo=UTC) for run_id, moment in ended.items()}
    since = max([since, *moments.values()])
    seen = [run_id for run_id, moment in moments.items() if moment >= since - _OVERLAP]
    new = [one for one in records if one.dagster_run.run_id not in cursor.get("seen", ())]
    return new, written_cursor({"since": since.timestamp(), "seen": seen})
