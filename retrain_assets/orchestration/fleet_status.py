"""The asset `fleet_status`: all models at one glance in the Dagster UI, what needs a person first.

https://docs.dagster.io/guides/automate/sensors

Belongs here: the asset, and the sensor that keeps it and the snapshot up to date. Does not: rows (`status`),
the table (`fleet.markdown`), who believes a snapshot (`fleet.snapshot`, `fleet.shared_snapshot`).

The sensor reports the materialization itself instead of requesting a run, which would cost 5 CPU
seconds to start for a second of reading, and whose own end would ask for the next.
"""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from retrain_assets.fleet.shared_snapshot import SharedSnapshot
from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.orchestration.platform import Platform
from retrain_assets.orchestration.status import read_fleet
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import SpecSet

__all__ = ["FLEET_STATUS", "fleet_status_asset", "fleet_status_sensor"]

FLEET_STATUS = dg.AssetKey(["fleet_status"])

_ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]
_IN_PROGRESS = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_AT_MOST_EVERY_SECONDS = 60.0
_AT_LEAST_EVERY_SECONDS = 600.0
"""Ages, freshness and the runs of a week change with the clock alone."""
_REPORTED_EVERY_SECONDS = 3600.0
_SHARE_OF_TIME = 0.03

_TEXT = """All models, what needs a person first: the same rows as `retrain status` and `retrain dashboard`.

Renewed after runs have ended (at most every minute, less often where reading a large fleet takes long)
and every hour, by the sensor `fleet_status_sensor`; materialize it to renew it now. What `retrain status` shows
is renewed whenever a run or a decision has happened, and every ten minutes. The plots count models
by state. `trends` shows the last 20 drift scores of each model; the dashed line is 0.5, every feature at
its threshold."""


def fleet_status_asset(specs: SpecSet, specs_key: str) -> dg.AssetsDefinition:
    """The asset, materialized by hand; otherwise the sensor reports it."""

    @dg.asset(
        key=FLEET_STATUS,
        group_name="fleet",
        kinds={"report"},
        description=_TEXT,
        required_resource_keys={"platform"},
    )
    def fleet_status(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        snapshot = _read(context, specs, specs_key)
        return dg.MaterializeResult(metadata=_metadata(snapshot))

    return fleet_status


def fleet_status_sensor(specs: SpecSet, specs_key: str, settings: Settings) -> dg.SensorDefinition:
    """The sensor that renews `fleet_status` without a run."""

    @dg.sensor(
        name="fleet_status_sensor",
        description=(
            "Renews the asset fleet_status when runs have ended, at most once a minute, and every hour."
        ),
        minimum_interval_seconds=max(settings.sensor_interval_seconds, 10),
        default_status=(
            dg.DefaultSensorStatus.RUNNING
            if settings.automation
            else dg.DefaultSensorStatus.STOPPED
        ),
        required_resource_keys={"platform"},
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return _tick(context, specs, specs_key, time.time())

    return sensor


def _tick(
    context: dg.SensorEvaluationContext, specs: SpecSet, specs_key: str, now: float
) -> dg.SensorResult | dg.SkipReason:
    """One look at whether anything has happened; the snapshot is confirmed, or all is read again.

    The cursor says what had happened when all was read, when that was, how long it took, and of which
    run's end the asset tells, since when.
    """
    from retrain_assets.errors import RetrainError

    before: dict[str, Any] = {"at": 0.0, "took": 0.0, "ended": "", "reported": 0.0}
    before |= json.loads(context.cursor) if context.cursor else {}
    since = now - before["at"]
    try:
        # Looked at before all is read: what happens meanwhile is seen by the next tick.
        happened = _happened(context, specs_key)
        known = happened is not None and happened == before.get("happened")
        if known and since < _AT_LEAST_EVERY_SECONDS and _confirm(context, before["as_of"], now):
            return dg.SkipReason("nothing has happened since")
        if since < max(_AT_MOST_EVERY_SECONDS, before["took"] / _SHARE_OF_TIME):
            return dg.SkipReason("renewed a moment ago")
        began, ended = time.process_time(), _last_ended(context.instance)
        snapshot = _read(context, specs, specs_key)
    except RetrainError as error:
        context.log.error(str(error))
        return dg.SkipReason(f"the status cannot be read: {error}")
    after = {
        **before,
        "happened": happened,
        "at": now,
        "as_of": snapshot.as_of.isoformat(),
        "took": round(time.process_time() - began, 3),
    }
    if ended == before["ended"] and now - before["reported"] < _REPORTED_EVERY_SECONDS:
        reason = dg.SkipReason("no run has ended since; the snapshot is renewed")
        return dg.SensorResult(skip_reason=reason, cursor=json.dumps(after))
    return dg.SensorResult(
        asset_events=[dg.AssetMaterialization(FLEET_STATUS, metadata=_metadata(snapshot))],
        cursor=json.dumps({**after, "ended": ended, "reported": now}),
    )


def _confirm(context: dg.SensorEvaluationContext, as_of: str, now: float) -> bool:
    """Whether there is a snapshot to confirm: who changes a champion by hand removes it."""
    platform: Platform = context.resources.platform
    moment = datetime.fromtimestamp(now, UTC)
    return SharedSnapshot(platform.ledger).confirm(datetime.fromisoformat(as_of), moment)


def _happened(context: dg.SensorEvaluationContext, specs_key: str) -> list[Any] | None:
    """What changes with every run and every row of the ledger; None while a run is in progress.

    What is reported to Dagster without a run is not seen.
    """
    running = dg.RunsFilter(statuses=_IN_PROGRESS)
    if context.instance.get_run_records(filters=running, limit=1):
        return None
    platform: Platform = context.resources.platform
    changed = [
        [one.dagster_run.run_id, one.dagster_run.status.value, one.update_timestamp.isoformat()]
        for one in context.instance.get_run_records(limit=1, order_by="update_timestamp")
    ]
    return [specs_key, *changed, *platform.ledger.newest_ids()]


def _last_ended(instance: dg.DagsterInstance) -> str:
    """Id of the run that ended last."""
    records: Sequence[dg.RunRecord] = instance.get_run_records(
        filters=dg.RunsFilter(statuses=_ENDED), limit=1, order_by="update_timestamp"
    )
    return records[0].dagster_run.run_id if records else ""


def _read(
    context: dg.AssetExecutionContext | dg.SensorEvaluationContext, specs: SpecSet, specs_key: str
) -> Snapshot:
    platform: Platform = context.resources.platform
    snapshot = read_fleet(context.instance, platform, specs, specs_key)
    SharedSnapshot(platform.ledger).leave(snapshot)
    return snapshot


def _metadata(snapshot: Snapshot) -> dict[str, Any]:
    """The table, the trends, and numbers that plot."""
    from retrain_assets.fleet.markdown import fleet_markdown, trend_picture
    from retrain_assets.fleet.status import STATES

    rows = snapshot.rows
    counts = {f"state/{state}": sum(row.state == state for row in rows) for state in STATES}
    trends = trend_picture(rows)
    return {
        "models": len(rows),
        **counts,
        "stale": sum(row.freshness == "fail" for row in rows),
        "below_bound": sum(row.meets is False for row in rows),
        "compute_seconds_last_week": round(sum(row.week_seconds for row in rows)),
        "fleet": dg.MetadataValue.md(fleet_markdown(rows, snapshot.as_of)),
        **({"trends": dg.MetadataValue.md(trends)} if trends else {}),
    }
