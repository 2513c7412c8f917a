"""What fires by itself: new partitions, drift, age, failed runs. One sensor per kind, for all models.

https://docs.dagster.io/guides/automate/sensors

Each tick reads all models in batched calls, asks `retrain_assets.policy.decide`, and obeys. Dagster
stores run requests and the cursor together before it submits anything, so a daemon that is killed
resumes the tick: nothing is lost, and the run keys see to it that nothing comes twice.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from retrain_assets.orchestration.keys import Tag, asset_key, asset_keys, monitor_keys, retrain_keys
from retrain_assets.orchestration.observe import ModelState, observe
from retrain_assets.orchestration.platform import Platform
from retrain_assets.policy import Decision, decide
from retrain_assets.settings import Settings
from retrain_assets.spec.model import ModelSpec

__all__ = ["build_sensors", "retrain_request"]

_MAX_REQUESTS_PER_TICK = 25  # run-key look-ups are serial in the daemon
_MAX_PARTITIONS_PER_RUN = 100
_MAX_MODELS_PER_RUN = 10
_MAX_LATE_PARTITIONS = 50
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def build_sensors(
    specs: Mapping[str, ModelSpec], settings: Settings
) -> list[dg.SensorDefinition]:
    """The sensors of the code location."""
    if not specs:
        return []
    status = (
        dg.DefaultSensorStatus.RUNNING if settings.automation else dg.DefaultSensorStatus.STOPPED
    )
    common: dict[str, Any] = {
        "minimum_interval_seconds": settings.sensor_interval_seconds,
        "default_status": status,
        "asset_selection": dg.AssetSelection.assets(
            *(key for name in specs for key in asset_keys(name))
        ),
        "required_resource_keys": {"platform"},
    }

    @dg.sensor(name="arrivals", description=_arrivals.__doc__, **common)
    def arrivals(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return _arrivals(context, specs)

    @dg.sensor(name="drift_sensor", description=_drift.__doc__, **common)
    def drift_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return _drift(context, specs)

    @dg.sensor(name="freshness_sensor", description=_freshness.__doc__, **common)
    def freshness_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return _freshness(context, specs)

    @dg.run_failure_sensor(
        name="failure_alerts",
        description="Sends failed runs to the alert targets of their models.",
        default_status=status,
        minimum_interval_seconds=settings.sensor_interval_seconds,
    )
    def failure_alerts(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        return _failure(context, specs, settings)

    return [arrivals, drift_sensor, freshness_sensor, failure_alerts]


# ---------------------------------------------------------------------------------- arrivals


def _arrivals(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SensorResult | dg.SkipReason:
    """Requests the monitor run (raw_data, features, drift_report) for every partition that a source
    has and that was not ingested. Models with the same new partitions share a run; a backlog of
    neighbouring partitions is one run. A source that cannot be asked is logged and asked again."""
    from retrain_assets.errors import RetrainError

    cursor: dict[str, Any] = json.loads(context.cursor) if context.cursor else {}
    requests: list[dg.RunRequest] = []
    failures: list[str] = []
    for members in _batches(specs):
        wanted: dict[tuple[str, ...], list[str]] = {}
        for name in members:
            try:
                groups, cursor[name] = _news(context, specs[name], cursor.get(name))
            except RetrainError as error:
                failures.append(str(error))
                context.log.error(f"{name}: the source cannot be asked what it has: {error}")
                continue
            for group in groups:
                wanted.setdefault(tuple(group), []).append(name)
        requests += [_monitor_request(keys, names, members[0]) for keys, names in wanted.items()]
    if not requests:
        return dg.SkipReason("; ".join(failures) or "no source has a new partition")
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursor, sort_keys=True))


def _batches(specs: Mapping[str, ModelSpec]) -> list[list[str]]:
    """Models that may share a run: the same partitions, at most ten."""
    alike: dict[Any, list[str]] = {}
    for name, spec in specs.items():
        alike.setdefault(spec.scheme or name, []).append(name)
    return [
        names[i : i + _MAX_MODELS_PER_RUN]
        for names in alike.values()
        for i in range(0, len(names), _MAX_MODELS_PER_RUN)
    ]


def _news(
    context: dg.SensorEvaluationContext, spec: ModelSpec, seen: Any
) -> tuple[list[list[str]], Any]:
    """What one source has that was not asked for yet, in runs of neighbours, and the new cursor.

    The cursor is the last key asked for, and the latest keys before it that the source did not have
    then: files come late and out of order. Without partitions it is the source's version.
    """
    from retrain_assets.data.sources import available_partitions, source_version

    if spec.scheme is None:
        version = source_version(spec.source)
        return ([[f"version {version}"]] if version not in (None, seen) else []), version
    through = seen["through"] if seen else None
    missing = set(seen["missing"]) if seen else set()
    after = through and (spec.scheme.shift(min(missing), -1) if missing else through)
    keys = available_partitions(spec.source, spec.scheme, datetime.now(UTC), after=after)
    new = [key for key in keys if through is None or key > through or key in missing]
    if not keys:
        return [], seen
    if through is None:
        done = context.instance.get_materialized_partitions(asset_key(spec.name, "features"))
        new = [key for key in new if key not in done]
        missing = set(spec.scheme.between(spec.scheme.key_of(spec.scheme.first), keys[-1]))
    elif keys[-1] > through:
        missing |= set(spec.scheme.between(through, keys[-1]))
    late = sorted(missing - set(keys) - {through})[-_MAX_LATE_PARTITIONS:]
    latest = max(through or keys[-1], keys[-1])
    runs = spec.scheme.runs(new, _MAX_PARTITIONS_PER_RUN)
    return runs, {"through": latest, "missing": late}


def _monitor_request(keys: Sequence[str], names: Sequence[str], queue: str) -> dg.RunRequest:
    unpartitioned = keys[0].startswith("version ")
    tags = {
        Tag.KIND: "monitor",
        Tag.TRIGGER: "arrival",
        Tag.MODELS: ",".join(names),
        # One at a time and in order: look-backs and alarms read what the run before has written.
        Tag.QUEUE: f"monitor:{queue}",
    }
    if len(names) == 1:
        tags[Tag.MODEL] = names[0]
    if len(keys) > 1:
        tags |= {_RANGE_START: keys[0], _RANGE_END: keys[-1]}
    return dg.RunRequest(
        run_key=f"monitor|{','.join(names)}|{keys[0]}..{keys[-1]}",
        asset_selection=[key for name in names for key in monitor_keys(name)],
        partition_key=keys[0] if len(keys) == 1 and not unpartitioned else None,
        tags=tags,
    )


# ------------------------------------------------------------------------------------- drift


def _drift(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SensorResult | dg.SkipReason:
    """Reads the drift reports that landed since the last tick and retrains the models whose alarm
    is raised, if their policy agrees. A model whose retraining is in flight is asked again later."""
    platform: Platform = context.resources.platform
    cursor: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
    states = observe(context.instance, platform.ledger, specs.values())
    requests: list[dg.RunRequest] = []
    for name, state in states.items():
        latest = state.latest.get("drift_report")
        if latest is None or latest.storage_id <= cursor.get(name, 0):
            continue
        if len(requests) >= _MAX_REQUESTS_PER_TICK:
            break
        alarmed = _alarmed_report(context, name, cursor.get(name), latest)
        decision = Decision("wait", None, ("no alarm",))
        if alarmed is not None:
            storage_id, partition = alarmed
            decision, request = retrain_request(
                state, platform, partition, alarm=True, run_key=f"drift|{storage_id}"
            )
            context.log.info(f"{name}: {decision.action}: {', '.join(decision.reasons)}")
            requests += [request] if request else []
        if decision.action != "hold":
            cursor[name] = latest.storage_id
    text = json.dumps(cursor, sort_keys=True)
    if not requests:
        context.update_cursor(text)
        return dg.SkipReason("no new report that calls for a retraining")
    return dg.SensorResult(run_requests=requests, cursor=text)


def _alarmed_report(
    context: dg.SensorEvaluationContext, name: str, after: int | None, latest: Any
) -> tuple[int, str | None] | None:
    """The newest report past the cursor that raises the alarm: its storage id and partition.

    "Latest" would hide an earlier partition where two land between ticks. Without a cursor only the
    latest counts: old alarms were answered by whoever answered then.
    """
    if after is None:
        return (latest.storage_id, latest.partition) if latest.metadata.get("alarm") else None
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset_key(name, "drift_report"), after_storage_id=after),
        limit=1000,
    )
    for record in found.records:  # newest first
        materialization = record.asset_materialization
        if materialization is None:
            continue
        alarm = materialization.metadata.get("alarm")
        if alarm is not None and alarm.value:
            return record.storage_id, record.partition_key
    return None


# ----------------------------------------------------------------------------- age, first champion


def _freshness(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SensorResult | dg.SkipReason:
    """Trains the first champion as soon as there is enough data, and retrains a model whose
    champion's data is older than `retrain.max_age`."""
    platform: Platform = context.resources.platform
    states = observe(context.instance, platform.ledger, specs.values())
    requests: list[dg.RunRequest] = []
    for state in states.values():
        features = state.latest.get("features")
        if features is None:
            continue
        if len(requests) >= _MAX_REQUESTS_PER_TICK:
            break
        moment = features.partition or str(features.storage_id)
        decision, request = retrain_request(
            state, platform, features.partition, run_key=f"age|{moment}"
        )
        if decision.trigger is not None:
            context.log.info(f"{state.spec.name}: {decision.action}: {', '.join(decision.reasons)}")
        requests += [request] if request else []
    if not requests:
        return dg.SkipReason("every champion is young enough")
    return dg.SensorResult(run_requests=requests)


def retrain_request(
    state: ModelState,
    platform: Platform,
    partition: str | None,
    *,
    run_key: str,
    alarm: bool = False,
    asked: Any = None,
) -> tuple[Decision, dg.RunRequest | None]:
    """Decide about one model, and the run to request if the answer is to retrain.

    The cheap state of a tick knows the partition written last; before a run is requested, the
    stored partitions are listed, so that a backfill of old days neither counts as new data nor
    hides that there is too little of it.
    """
    import dataclasses

    spec = state.spec
    needed = state.evidence(partition, partitions=0).needed

    def ask(key: str | None, partitions: int) -> Decision:
        evidence = state.evidence(key, partitions=partitions, alarm=alarm)
        evidence = dataclasses.replace(evidence, asked=asked)
        return decide(spec.retrain, evidence, state.history(), state.now(key))

    decision = ask(partition, needed)
    if decision.action != "retrain":
        return decision, None
    if spec.scheme is not None:
        stored = platform.store.partitions(spec.name, "features")
        if not stored:
            return Decision("wait", decision.trigger, ("no feature partition is stored",)), None
        partition = max(stored)
        decision = ask(partition, len(stored))
        if decision.action != "retrain":
            return decision, None
    tags = {
        Tag.KIND: "retrain",
        Tag.MODEL: spec.name,
        Tag.TRIGGER: str(decision.trigger),
        Tag.REASON: ", ".join(decision.reasons)[:200],
        Tag.QUEUE: f"retrain:{spec.name}",
    }
    return decision, dg.RunRequest(
        run_key=f"retrain|{spec.name}|{run_key}",
        asset_selection=retrain_keys(spec.name, partitioned=spec.scheme is not None),
        partition_key=partition,
        tags=tags,
    )


# ------------------------------------------------------------------------------- failed runs


def _failure(
    context: dg.RunFailureSensorContext, specs: Mapping[str, ModelSpec], settings: Settings
) -> dg.SkipReason | None:
    """One message per failed run and model; rejections were reported by the run itself."""
    from retrain_assets.alerts.message import Message
    from retrain_assets.alerts.send import send

    run = context.dagster_run
    failed = list(_failed_steps(context))
    names = sorted({key.path[0] for key in run.asset_selection or ()} & set(specs))
    reported = []
    for name in names:
        targets = specs[name].alerts
        errors = [text for step, text, rejected in failed if step.startswith(f"{name}__")
                  and not rejected]  # fmt: skip
        if not targets or (failed and not errors):
            continue
        body = "\n\n".join(errors) or context.failure_event.message or "the run failed"
        url = f"{settings.dagster_url}/runs/{run.run_id}"
        message = Message(
            kind="run_failed", model=name, title=f"{name}: run failed", body=body, url=url
        )
        for delivery in send(message, targets):
            reported.append(delivery.target)
            if not delivery.delivered:
                context.log.warning(f"alert not sent to {delivery.target}: {delivery.error}")
    return None if reported else dg.SkipReason("nothing to report")


def _failed_steps(context: dg.RunFailureSensorContext) -> Iterator[tuple[str, str, bool]]:
    """(step key, message, whether it is a rejection) of every failed step."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        user = data.user_failure_data
        rejected = user is not None and "retrain/rejected" in user.metadata
        text = (user.description if user else None) or (
            data.error.message if data.error else event.message
        )
        yield event.step_key or "", text or "", rejected
