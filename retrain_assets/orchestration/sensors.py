"""What fires by itself: new partitions, drift, age, lost champions, failed runs. One sensor per kind, for all models.

https://docs.dagster.io/guides/automate/sensors

Each tick reads all models in batched calls, asks `retrain_assets.policy.decide`, and obeys. Dagster
stores run requests and the cursor together before it submits anything, so a daemon that is killed
resumes the tick: nothing is lost, and the run keys see to it that nothing comes twice.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from retrain_assets.orchestration.alerting import repair_message, send_logged
from retrain_assets.orchestration.deciding import RETRY_AFTER_SECONDS, Answer, answer, recorded
from retrain_assets.orchestration.keys import (
    Tag,
    asset_key,
    asset_keys,
    monitor_keys,
    stages_of,
)
from retrain_assets.orchestration.kubernetes import run_tags
from retrain_assets.orchestration.observe import (
    IN_PROGRESS,
    Latest,
    ModelState,
    observe,
)
from retrain_assets.orchestration.platform import Platform
from retrain_assets.policy import Trigger
from retrain_assets.settings import Settings
from retrain_assets.spec.model import ModelSpec

__all__ = ["build_sensors"]

_MAX_REQUESTS_PER_TICK = 25  # run-key look-ups are serial in the daemon
_MAX_PARTITIONS_PER_RUN = 100
_MAX_MODELS_PER_RUN = 10
_MAX_LATE_PARTITIONS = 50
_RECONCILE_SECONDS = 60
_BY_ITSELF: tuple[Trigger, ...] = (
    "first", "follow_up", "performance", "cost", "age", "new_data", "change",
)  # fmt: skip
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
    ever longer waits, since a source comes back and data is mended; when `RETRY_AFTER_SECONDS` is
    used up, a person decides.
    """
    if not asked or spec.scheme is None:
        return [], {}
    done = context.instance.get_materialized_partitions(asset_key(spec.name, "drift_report"))
    open_ = {
        key: (int(times), float(at))
        for key, (times, at) in asked.items()
        if key not in done and times <= len(RETRY_AFTER_SECONDS)
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
        if key not in held_up and now - at >= RETRY_AFTER_SECONDS[times - 1]
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
        # Models with requests of their own are never batched.
        **(run_tags(specs[0], selection) if len(specs) == 1 else {}),
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
    is raised, if their policy agrees. A model whose retraining is in flight is asked again later, and
    so is one whose run failed before its candidate was judged: after 1, 10 and 60 minutes."""
    from retrain_assets.errors import LedgerError

    platform: Platform = context.resources.platform
    cursor: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
    answers: list[Answer] = []
    try:
        states = observe(context.instance, platform.ledger, specs.values())
        for name, state in states.items():
            latest = state.latest.get("drift_report")
            if latest is None or latest.storage_id <= cursor.get(name, 0):
                continue
            if state.spec.retrain.conditions_needed > 1:
                continue  # what takes several conditions is decided where all of them are looked at
            if _requested(answers) >= _MAX_REQUESTS_PER_TICK:
                break
            alarmed = _alarmed_report(context, state, cursor.get(name), latest)
            found = None if alarmed is None else _answer_to(context, state, platform, alarmed)
            if found is not None:
                answers.append(found)
            if found is None or not found.asked_again:
                cursor[name] = latest.storage_id
            elif name not in cursor:
                # Without a cursor only the latest report counts, and a newer one would hide this one.
                cursor[name] = latest.storage_id - 1
        requests = recorded(platform.decisions, answers)
    except LedgerError as error:
        return _undecided(context, error)
    text = json.dumps(cursor, sort_keys=True)
    if not requests:
        context.update_cursor(text)
        waiting = [f"{one.model}: {', '.join(one.decision.reasons)}" for one in answers]
        return dg.SkipReason(_first_few(waiting) or "no new report raises the alarm")
    return dg.SensorResult(run_requests=requests, cursor=text)


def _answer_to(
    context: dg.SensorEvaluationContext, state: ModelState, platform: Platform, alarmed: Latest
) -> Answer:
    return answer(
        context.instance,
        state,
        platform,
        alarmed.partition,
        only=("drift",),
        report=alarmed,
        run_key=str(alarmed.storage_id) if state.spec.scheme else _content(state),
    )


def _requested(answers: Sequence[Answer]) -> int:
    return sum(one.request is not None for one in answers)


def _undecided(context: dg.SensorEvaluationContext, error: Exception) -> dg.SkipReason:
    """A tick without the ledger: nothing is requested that is not on record, and the cursor stays."""
    context.log.error(str(error))
    return dg.SkipReason(f"nothing was decided: {error}")


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
        return latest if state.alarms(latest) else None
    key = asset_key(state.spec.name, "drift_report")
    landed = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, after_storage_id=after), limit=1000
    )
    for record in landed.records:  # newest first
        materialization = record.asset_materialization
        if materialization is None:
            continue
        values = {name: value.value for name, value in materialization.metadata.items()}
        found = Latest(record.storage_id, record.partition_key, record.timestamp, values)
        if state.alarms(found):
            return found
    return None


# ------------------------------------------------------- first champion, and conditions but drift


def _freshness(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SensorResult | dg.SkipReason:
    """Trains the first champion as soon as there is enough data, and retrains a model whose
    champion performs worse than `retrain.on_performance` allows, has come to cost more than
    `retrain.cost`, whose data is older than `retrain.max_age`, that has `retrain.on_new_partitions` new
    ones, whose code or spec changed (`retrain.on_change`), or that is due a `retrain.follow_up`; and
    decides about the models that are
    retrained only when several conditions hold at once. Puts on record why the others wait."""
    from retrain_assets.errors import LedgerError

    platform: Platform = context.resources.platform
    answers: list[Answer] = []
    try:
        states = observe(context.instance, platform.ledger, specs.values())
        for state in states.values():
            if _requested(answers) >= _MAX_REQUESTS_PER_TICK:
                break
            features, report = state.latest.get("features"), state.latest.get("drift_report")
            if features is None:
                continue
            moment = features.partition or _content(state)
            if state.vacancy is not None:  # the first champion of this data was asked for before
                moment += f"|after {state.vacancy.sequence}"
            jointly = state.spec.retrain.conditions_needed > 1
            found = answer(
                context.instance,
                state,
                platform,
                features.partition,
                only=(*_BY_ITSELF, "drift") if jointly else _BY_ITSELF,
                report=report,
                run_key=moment,
            )
            # Between features and report of a partition nothing is known yet that is worth a row.
            seen = report is not None and report.partition == features.partition
            answers.append(found if seen or found.decision.trigger else found.unrecorded())
        requests = recorded(platform.decisions, answers)
    except LedgerError as error:
        return _undecided(context, error)
    if not requests:
        waiting = [
            f"{one.model}: {', '.join(one.decision.reasons)}"
            for one in answers
            if one.decision.trigger is not None
        ]
        return dg.SkipReason(_first_few(waiting) or "no champion needs to be retrained")
    return dg.SensorResult(run_requests=requests)


# ------------------------------------------------------------------- the registry follows the ledger


def _champions(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SkipReason:
    """Makes the aliases of the model registry follow the ledger of promotions, where somebody moved
    or deleted an alias, a version or a model by hand; says what it did, once. Gives renamed models the champion
    and history of their former name. While the registry
    cannot be reached nothing is changed. Requests no runs."""
    from retrain_assets.errors import RetrainError
    from retrain_assets.promotion.reconcile import reconcile
    from retrain_assets.promotion.rename import adopt_all

    platform: Platform = context.resources.platform
    former = {name: spec.renamed_from for name, spec in specs.items() if spec.renamed_from}
    told: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
    settled = [event for event, kind in told.items() if kind in ("no_previous", "known")]
    try:
        for name in adopt_all(
            former, registry=platform.registry, ledger=platform.ledger, store=platform.store
        ):
            context.log.info(f"{name}: has the champion and the history of {former[name]}")
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
