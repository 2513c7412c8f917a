"""What fires by itself: new partitions, drift, age, lost champions, failed runs. One sensor per kind, for all models.

https://docs.dagster.io/guides/automate/sensors

Each tick reads all models in batched calls, asks `retrain_assets.policy.decide`, and obeys. Dagster
stores run requests and the cursor together before it submits anything, so a daemon that is killed
resumes the tick: nothing is lost, and the run keys see to it that nothing comes twice.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from retrain_assets.orchestration.alerting import repair_message, send_logged
from retrain_assets.orchestration.keys import (
    Tag,
    asset_key,
    asset_keys,
    monitor_keys,
    retrain_keys,
    stages_of,
)
from retrain_assets.orchestration.observe import (
    IN_PROGRESS,
    Latest,
    ModelState,
    full_history,
    observe,
)
from retrain_assets.orchestration.platform import Platform
from retrain_assets.policy import Decision, History, Trigger, decide, unmeasured
from retrain_assets.settings import Settings
from retrain_assets.spec.code import training_code
from retrain_assets.spec.model import ModelSpec

__all__ = ["build_sensors", "retrain_request"]

_MAX_REQUESTS_PER_TICK = 25  # run-key look-ups are serial in the daemon
_MAX_PARTITIONS_PER_RUN = 100
_MAX_MODELS_PER_RUN = 10
_MAX_LATE_PARTITIONS = 50
_RECONCILE_SECONDS = 60
_RETRY_AFTER_SECONDS = (60, 600, 3600)
_BY_ITSELF: tuple[Trigger, ...] = ("first", "performance", "cost", "age", "new_data", "change")
_RANGE_START, _RANGE_END = (
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
)


@dataclass(frozen=True)
class _Group:
    """Neighbouring partitions for one monitor run, or one version of an unpartitioned source."""

    keys: tuple[str, ...]
    attempt: int = 1


def build_sensors(specs: Mapping[str, ModelSpec], settings: Settings) -> list[dg.SensorDefinition]:
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
            *(key for spec in specs.values() for key in asset_keys(spec.name, stages_of(spec)))
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

    @dg.sensor(
        name="champion_sensor",
        description=_champions.__doc__,
        minimum_interval_seconds=max(settings.sensor_interval_seconds, _RECONCILE_SECONDS),
        default_status=status,
        required_resource_keys={"platform"},
    )
    def champion_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return _champions(context, specs)

    return [arrivals, drift_sensor, freshness_sensor, champion_sensor, failure_alerts]


# ---------------------------------------------------------------------------------- arrivals


def _arrivals(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SensorResult | dg.SkipReason:
    """Requests the monitor run (raw_data, features, drift_report, guard_report) for every partition that a source
    has and that was not ingested. Models with the same new partitions share a run; a backlog of
    neighbouring partitions is one run, and so is what arrives while a monitor run is going on. A
    partition whose run failed is asked for again after 1, 10 and 60 minutes; a source that cannot be
    asked is logged and asked again."""
    from retrain_assets.errors import RetrainError

    cursor: dict[str, Any] = json.loads(context.cursor) if context.cursor else {}
    requests: list[dg.RunRequest] = []
    failures: list[str] = []
    busy = _queues_in_progress(context.instance)
    for members in _batches(specs):
        if len(requests) >= _MAX_REQUESTS_PER_TICK:
            break
        if _queue(members[0]) in busy:
            # What arrives meanwhile is one range run afterwards, however fast the source is.
            continue
        wanted: dict[_Group, list[str]] = {}
        for name in members:
            try:
                groups, cursor[name] = _news(context, specs[name], cursor.get(name))
            except RetrainError as error:
                failures.append(str(error))
                context.log.error(f"{name}: the source cannot be asked what it has: {error}")
                continue
            for group in groups:
                wanted.setdefault(group, []).append(name)
        for group, names in wanted.items():
            chosen = [specs[name] for name in names]
            requests.append(_monitor_request(group, chosen, members[0]))
    if not requests:
        return dg.SkipReason("; ".join(failures) or "no source has a new partition")
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursor, sort_keys=True))


def _queue(first_model: str) -> str:
    return f"monitor:{first_model}"


def _queues_in_progress(instance: dg.DagsterInstance) -> set[str]:
    """Queues that have a monitor run which has not ended."""
    runs = instance.get_runs(
        filters=dg.RunsFilter(statuses=IN_PROGRESS, tags={Tag.KIND: "monitor"})
    )
    return {run.tags[Tag.QUEUE] for run in runs if Tag.QUEUE in run.tags}


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
) -> tuple[list[_Group], Any]:
    """What one source has that was not ingested yet, in runs of neighbours, and the new cursor.

    The cursor is the last key asked for (`through`), the latest keys before it that the source did
    not have then (`missing`: files come late and out of order), and the keys whose run has not
    delivered a report so far (`asked`: how often, and when). Without partitions it is the source's
    version.
    """
    from retrain_assets.data.sources import available_partitions, source_version

    if spec.scheme is None:
        version = source_version(spec.source)
        new = version is not None and version != seen
        return ([_Group((f"version {version}",))] if new else []), version
    now = datetime.now(UTC)
    through = seen["through"] if seen else None
    missing = set(seen["missing"]) if seen else set()
    groups, asked = _again(context, spec, seen["asked"] if seen else {}, now.timestamp())
    after = through and (spec.scheme.shift(min(missing), -1) if missing else through)
    keys = available_partitions(spec.source, spec.scheme, now, after=after)
    new_keys = [key for key in keys if through is None or key > through or key in missing]
    if not keys:
        return groups, {**seen, "asked": asked} if seen else seen
    if through is None:
        done = context.instance.get_materialized_partitions(asset_key(spec.name, "drift_report"))
        new_keys = [key for key in new_keys if key not in done]
        missing = set(spec.scheme.between(spec.scheme.key_of(spec.scheme.first), keys[-1]))
    elif keys[-1] > through:
        missing |= set(spec.scheme.between(through, keys[-1]))
    late = sorted(missing - set(keys) - {through})[-_MAX_LATE_PARTITIONS:]
    groups += [_Group(tuple(run)) for run in spec.scheme.runs(new_keys, _MAX_PARTITIONS_PER_RUN)]
    asked |= {key: (1, now.timestamp()) for key in new_keys}
    cursor = {"through": max(through or keys[-1], keys[-1]), "missing": late, "asked": asked}
    return groups, cursor


def _again(
    context: dg.SensorEvaluationContext,
    spec: ModelSpec,
    asked: Mapping[str, tuple[int, float]],
    now: float,
) -> tuple[list[_Group], dict[str, tuple[int, float]]]:
    """Partitions whose run ended without a drift report, to be asked for again, and the rest.

    A partition that got as far as any of its run was held up by another of the same range (a bad
    day): these go again together and at once. The others failed themselves and go again alone, after
    ever longer waits, since a source comes back and data is mended; when `_RETRY_AFTER_SECONDS` is
    used up, a person decides.
    """
    if not asked or spec.scheme is None:
        return [], {}
    done = context.instance.get_materialized_partitions(asset_key(spec.name, "drift_report"))
    open_ = {
        key: (int(times), float(at))
        for key, (times, at) in asked.items()
        if key not in done and times <= len(_RETRY_AFTER_SECONDS)
    }
    if not open_:
        return [], {}
    reached: set[str] = set()
    for stage in ("features", "raw_data"):
        keys = context.instance.get_materialized_partitions(asset_key(spec.name, stage))
        reached = reached or (set(keys) & set(open_))
    held_up = [key for key, (times, _) in sorted(open_.items()) if times == 1 and key in reached]
    alone = [
        [key]
        for key, (times, at) in sorted(open_.items())
        if key not in held_up and now - at >= _RETRY_AFTER_SECONDS[times - 1]
    ][:_MAX_REQUESTS_PER_TICK]
    whole = spec.scheme.runs(held_up, _MAX_PARTITIONS_PER_RUN)
    due = [key for run in (*whole, *alone) for key in run]
    groups = [_Group(tuple(run), attempt=open_[run[-1]][0] + 1) for run in (*whole, *alone)]
    return groups, open_ | {key: (open_[key][0] + 1, now) for key in due}


def _monitor_request(group: _Group, specs: Sequence[ModelSpec], queue: str) -> dg.RunRequest:
    keys, names = group.keys, [spec.name for spec in specs]
    selection = [
        key
        for spec in specs
        for key in monitor_keys(spec.name, guarded=spec.gate.guard is not None)
    ]
    unpartitioned = keys[0].startswith("version ")
    tags = {
        Tag.KIND: "monitor",
        Tag.TRIGGER: "arrival",
        # One at a time and in order: look-backs and alarms read what the run before has written.
        Tag.QUEUE: _queue(queue),
        **({Tag.MODEL: names[0]} if len(names) == 1 else {Tag.MODELS: ",".join(names)}),
    }
    if len(keys) > 1:
        tags |= {_RANGE_START: keys[0], _RANGE_END: keys[-1]}
    return dg.RunRequest(
        run_key=f"monitor|{','.join(names)}|{keys[0]}..{keys[-1]}|{group.attempt}",
        asset_selection=selection,
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
    waiting: list[str] = []
    for name, state in states.items():
        latest = state.latest.get("drift_report")
        if latest is None or latest.storage_id <= cursor.get(name, 0):
            continue
        if state.spec.retrain.conditions_needed > 1:
            continue  # what takes several conditions is decided where all of them are looked at
        if len(requests) >= _MAX_REQUESTS_PER_TICK:
            break
        alarmed = _alarmed_report(context, state, cursor.get(name), latest)
        decision = Decision("wait", None, ("no alarm",))
        if alarmed is not None:
            moment = str(alarmed.storage_id) if state.spec.scheme else _content(state)
            decision, request = retrain_request(
                context.instance,
                state,
                platform,
                alarmed.partition,
                only=("drift",),
                alarm=True,
                drift_score=_score(alarmed.metadata),
                run_key=moment,
            )
            if request is not None:
                requests.append(request)
            else:
                waiting.append(f"{name}: {', '.join(decision.reasons)}")
        if decision.action != "hold":
            cursor[name] = latest.storage_id
        elif name not in cursor:
            # Without a cursor only the latest report counts, and a newer one would hide this one.
            cursor[name] = latest.storage_id - 1
    text = json.dumps(cursor, sort_keys=True)
    if not requests:
        context.update_cursor(text)
        return dg.SkipReason(_first_few(waiting) or "no new report raises the alarm")
    return dg.SensorResult(run_requests=requests, cursor=text)


def _content(state: ModelState) -> str:
    """Fingerprint of an unpartitioned feature table: a retraining reads and writes it again, so that
    its storage id would change with every attempt."""
    features = state.latest.get("features")
    return str(features.metadata.get("fingerprint")) if features else ""


def _first_few(lines: Sequence[str], limit: int = 5) -> str:
    """Lines for a skip reason, which the UI shows on one line."""
    more = f"; and {len(lines) - limit} more" if len(lines) > limit else ""
    return "; ".join(lines[:limit]) + more


def _alarmed_report(
    context: dg.SensorEvaluationContext, state: ModelState, after: int | None, latest: Latest
) -> Latest | None:
    """The newest report past the cursor that raises the alarm.

    "Latest" would hide an earlier partition where two land between ticks. Without a cursor only the
    latest counts: old alarms were answered by whoever answered then. A report that was measured
    against a former champion raises no alarm about the present one.
    """
    if after is None:
        return latest if _alarms(state, latest.metadata) else None
    key = asset_key(state.spec.name, "drift_report")
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, after_storage_id=after), limit=1000
    )
    for record in found.records:  # newest first
        materialization = record.asset_materialization
        if materialization is None:
            continue
        values = {name: value.value for name, value in materialization.metadata.items()}
        if _alarms(state, values):
            return Latest(record.storage_id, record.partition_key, record.timestamp, values)
    return None


def _alarms(state: ModelState, report: Mapping[str, object]) -> bool:
    present = f"champion v{state.champion.version}" if state.champion else None
    reference = str(report.get("reference"))
    stale = reference.startswith("champion v") and reference != present
    return bool(report.get("alarm")) and not stale


def _score(report: Mapping[str, object]) -> float | None:
    score = report.get("drift_score")
    return float(score) if isinstance(score, int | float) else None


# ------------------------------------------------------- first champion, and conditions but drift


def _freshness(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SensorResult | dg.SkipReason:
    """Trains the first champion as soon as there is enough data, and retrains a model whose
    champion's data is older than `retrain.max_age`, that has `retrain.on_new_partitions` new ones, or
    whose code or spec changed (`retrain.on_change`); and decides about the models that are retrained
    only when several conditions hold at once."""
    platform: Platform = context.resources.platform
    states = observe(context.instance, platform.ledger, specs.values())
    requests: list[dg.RunRequest] = []
    waiting: list[str] = []
    for state in states.values():
        features = state.latest.get("features")
        if features is None:
            continue
        if len(requests) >= _MAX_REQUESTS_PER_TICK:
            break
        moment = features.partition or _content(state)
        if state.vacancy is not None:  # the first champion of this data was asked for before
            moment += f"|after {state.vacancy.sequence}"
        report = state.latest.get("drift_report")
        jointly = state.spec.retrain.conditions_needed > 1
        decision, request = retrain_request(
            context.instance,
            state,
            platform,
            features.partition,
            only=(*_BY_ITSELF, "drift") if jointly else _BY_ITSELF,
            run_key=moment,
            alarm=_alarms(state, report.metadata) if jointly and report else None,
            drift_score=_score(report.metadata) if jointly and report else None,
        )
        if request is not None:
            requests.append(request)
        elif decision.trigger is not None:
            waiting.append(f"{state.spec.name}: {', '.join(decision.reasons)}")
        elif fields := unmeasured(state.spec.retrain):
            waiting.append(
                f"{state.spec.name}: {', '.join(fields)}: only replay measures this so far"
            )
    if not requests:
        return dg.SkipReason(_first_few(waiting) or "no champion needs to be retrained")
    return dg.SensorResult(run_requests=requests)


def _attempt(instance: dg.DagsterInstance, key: str) -> int | None:
    """Which attempt at a retraining is due now: 1 the first time, None where none is.

    A run that failed before there was a candidate (the registry was away, say) is tried again after
    ever longer waits. A rejection never gets here: its candidate is the last retraining.
    """
    records = instance.get_run_records(filters=dg.RunsFilter(tags={Tag.REQUEST: key}), limit=10)
    if not records:
        return 1
    if len(records) > len(_RETRY_AFTER_SECONDS):
        return None
    waited = datetime.now(UTC).timestamp() - records[0].create_timestamp.timestamp()
    return len(records) + 1 if waited >= _RETRY_AFTER_SECONDS[len(records) - 1] else None


def retrain_request(
    instance: dg.DagsterInstance,
    state: ModelState,
    platform: Platform,
    partition: str | None,
    *,
    only: tuple[Trigger, ...],
    run_key: str,
    alarm: bool | None = None,
    drift_score: float | None = None,
) -> tuple[Decision, dg.RunRequest | None]:
    """Decide about one model, and the run to request if the answer is to retrain.

    The cheap state of a tick knows the partition written last; before a run is requested, the
    stored partitions are listed, so that a backfill of old days neither counts as new data nor
    hides that there is too little of it.

    Args:
        partition: the newest feature partition as far as the tick knows.
        only: triggers that the caller answers for; the others are somebody else's.
        run_key: what makes this request unique, beside the model and the trigger.
        alarm: whether a new drift report raises the alarm; None where the caller does not look.
        drift_score: that report's score.
    """
    spec = state.spec
    needed = state.evidence(partition, partitions=0).needed

    def ask(key: str | None, partitions: int, new: int | None, past: History) -> Decision:
        evidence = state.evidence(
            key, partitions=partitions, alarm=alarm, drift_score=drift_score, new_partitions=new
        )
        if "schedule" in only:
            evidence = dataclasses.replace(evidence, asked="schedule")
        return decide(spec.retrain, evidence, past, state.now(key))

    decision = ask(partition, needed, state.new_partitions(partition), state.history())
    if decision.trigger is not None and decision.trigger not in only:
        return Decision(
            "wait", None, (f"the trigger '{decision.trigger}' has its own sensor",)
        ), None
    if decision.action != "retrain":
        return decision, None
    past, count, new = full_history(instance, state), needed, None
    if spec.scheme is not None:
        stored = platform.store.partitions(spec.name, "features")
        if not stored:
            return Decision("wait", decision.trigger, ("no feature partition is stored",)), None
        partition, count = max(stored), len(stored)
        new = state.new_partitions(partition, stored)
    decision = ask(partition, count, new, past)
    if decision.action != "retrain":
        return decision, None
    key = f"retrain|{spec.name}|{decision.trigger}|{run_key}"
    if "change" in decision.fired:  # several changes may come on the same data
        key += f"|{training_code(spec)}"
    attempt = _attempt(instance, key)
    if attempt is None:
        waits = ("but its run for this data has failed and is not due again",)
        return Decision("wait", decision.trigger, decision.reasons + waits), None
    tags = {
        Tag.KIND: "retrain",
        Tag.MODEL: spec.name,
        Tag.REQUEST: key,
        Tag.TRIGGER: str(decision.trigger),
        Tag.REASON: ", ".join(decision.reasons)[:200],
        Tag.QUEUE: f"retrain:{spec.name}",
    }
    return decision, dg.RunRequest(
        run_key=key if attempt == 1 else f"{key}|{attempt}",
        asset_selection=retrain_keys(spec.name, partitioned=spec.scheme is not None),
        partition_key=partition,
        tags=tags,
    )


# ------------------------------------------------------------------- the registry follows the ledger


def _champions(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SkipReason:
    """Makes the aliases of the model registry follow the ledger of promotions, where somebody moved
    or deleted an alias, a version or a model by hand; says what it did, once. While the registry
    cannot be reached nothing is changed. Requests no runs."""
    from retrain_assets.errors import RetrainError
    from retrain_assets.promotion.reconcile import reconcile

    platform: Platform = context.resources.platform
    told: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
    settled = [event for event, kind in told.items() if kind in ("no_previous", "known")]
    try:
        repairs = reconcile(
            list(specs), registry=platform.registry, ledger=platform.ledger, settled=settled
        )
    except RetrainError as error:
        context.log.error(str(error))
        return dg.SkipReason(f"nothing was changed: {error}")
    for repair in repairs:
        message = repair_message(repair, platform.settings.dagster_url)
        if message is not None and repair.event not in told:
            context.log.warning(f"{repair.model}: {repair.text}")
            send_logged(message, specs[repair.model], context.log)
    # Only what could not be mended: what was, and is done again, is told again.
    lasting = {"no_previous", "known", "unresolved"}
    context.update_cursor(
        json.dumps({repair.event: repair.kind for repair in repairs if repair.kind in lasting})
    )
    new = [f"{repair.model}: {repair.text}" for repair in repairs if repair.text]
    return dg.SkipReason(_first_few(new) or "the registry says what the ledger says")


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
