"""Dagster's own retries of runs whose process died (`run_retries`), and those of them that it loses.

https://docs.dagster.io/deployment/execution/run-retries

Belongs here: which failed runs wait for their retry, and so are not over yet, and reporting a failure again
whose retry does not come. Does not: retrainings that are asked for again after a failure (`deciding`).

Dagster stores the event of a failure before the run's state and the tag that says whether it will retry,
and its daemon passes each event once: when it looks between the two, the run is never tried again
(https://github.com/dagster-io/dagster/issues/33741). A second report of the same failure brings the run
before the daemon again, which makes no second retry where there is one already. Run failure sensors of
others see such a failure twice.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import dagster as dg

from retrain_assets.orchestration.keys import Tag
from retrain_assets.orchestration.observe import runs_in_progress

__all__ = ["REPORTED_AGAIN", "RETRIED_BY", "awaits_retry", "retries", "unfinished"]

RETRIED_BY = "dagster/auto_retry_run_id"
_WILL_RETRY = "dagster/will_retry"

REPORTED_AGAIN = (
    "Dagster has not tried this run again as it said it would: the failure is reported again"
)
_PATIENCE = timedelta(seconds=30)
"""Dagster's daemon looks every 5 s, later where it has many runs to start again."""
_LOOKED_BACK = timedelta(hours=1)
_RETRIED_WITHIN = timedelta(minutes=2)
"""How long after the death of a run's process Dagster's own retry is waited for."""


def awaits_retry(run: dg.DagsterRun, instance: dg.DagsterInstance) -> bool:
    """Whether Dagster said of a failed run that it will try it again, and has not so far."""
    # Dagster notes whether it will just after the failure.
    undecided = "true" if instance.run_retries_enabled else "false"
    return RETRIED_BY not in run.tags and run.tags.get(_WILL_RETRY, undecided) == "true"


def unfinished(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that have not ended, and those which died just now and which Dagster is about to try again.

    The reads follow the life of a run, so that one which goes from one state to the next between two
    of them is in the later one.
    """
    found = list(runs_in_progress(instance))
    died = instance.get_runs(
        filters=dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE],
            updated_after=datetime.now(UTC) - _RETRIED_WITHIN,
        )
    )
    found += [run for run in died if awaits_retry(run, instance)]
    if retried := [run.tags[RETRIED_BY] for run in died if RETRIED_BY in run.tags]:
        again = instance.get_runs(filters=dg.RunsFilter(run_ids=retried))
        found += [run for run in again if not run.is_finished]
    return found


def retries(context: dg.SensorEvaluationContext, models: Collection[str]) -> dg.SkipReason:
    """Sees to it that a run whose process died is tried again: reports its failure to Dagster a second
    time, once, where 30 s later there is no retry."""
    now = datetime.now(UTC)
    failed = context.instance.get_run_records(
        filters=dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - _LOOKED_BACK
        )
    )
    lost = [record.dagster_run for record in failed if _is_lost(record, context, models, now)]
    for run in lost:
        # Only then the tag: if this process dies in between, the report is repeated, not left out.
        context.instance.report_run_failed(run, REPORTED_AGAIN)
        context.instance.add_run_tags(run.run_id, {Tag.RETRY_REPORTED: run.run_id})
        context.log.warning(f"run {run.run_id}: {REPORTED_AGAIN}")
    return dg.SkipReason(
        f"reported again: {', '.join(run.run_id for run in lost)}"
        if lost
        else "no failed run waits for its retry"
    )


def _is_lost(
    record: dg.RunRecord,
    context: dg.SensorEvaluationContext,
    models: Collection[str],
    now: datetime,
) -> bool:
    run = record.dagster_run
    return (
        awaits_retry(run, context.instance)
        # A retry inherits the tags of the run that it tries again.
        and run.tags.get(Tag.RETRY_REPORTED) != run.run_id
        and record.update_timestamp.replace(tzinfo=record.update_timestamp.tzinfo or UTC)
        < now - _PATIENCE
        and any(key.path[0] in models for key in run.asset_selection or ())
    )
