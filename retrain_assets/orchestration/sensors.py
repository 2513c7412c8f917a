"""What fires by itself: new partitions, drift, age, lost champions, failed runs. One sensor per kind, for all models.

https://docs.dagster.io/guides/automate/sensors

Each tick reads all models in batched calls, asks `retrain_assets.policy.decide`, and obeys. Dagster
stores run requests and the cursor together before it submits anything, so a daemon that is killed
resumes the tick: nothing is lost, and the run keys see to it that nothing comes twice.
"""

import gc
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import dagster as dg

from retrain_assets.orchestration.alerting import repair_message, send_logged
from retrain_assets.orchestration.arrivals import arrivals
from retrain_assets.orchestration.cursors import read_cursor, written_cursor
from retrain_assets.orchestration.deciding import BY_ITSELF, Answer, Question, answers, recorded
from retrain_assets.orchestration.keys import (
    RANGE_START,
    asset_key,
    asset_keys,
    models_of,
    stages_of,
)
from retrain_assets.orchestration.observe import Latest, ModelState, observe, plain
from retrain_assets.orchestration.on_demand import on_demand_sensor
from retrain_assets.orchestration.platform import Platform
from retrain_assets.orchestration.retries import REPORTED_AGAIN, retries
from retrain_assets.orchestration.suspects import Suspects
from retrain_assets.orchestration.turns import Turn
from retrain_assets.settings import Settings
from retrain_assets.spec.model import ModelSpec

__all__ = ["build_sensors"]

_MAX_RETRAININGS_PER_TICK = 15
"""Models; the others follow in the next tick, before everybody else."""
_MAX_LOOKED_BACK = 10
"""Models per tick whose reports before the latest are read, one by one; the others are looked at again."""
_WRITING = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)
_RECONCILE_SECONDS = 60
_RETRIES_SECONDS = 20


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

    @dg.sensor(name="arrivals", description=arrivals.__doc__, **common)
    def arrivals_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        _settled()
        return arrivals(context, specs)

    @dg.sensor(name="drift_sensor", description=_drift.__doc__, **common)
    def drift_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        _settled()
        return _drift(context, specs)

    @dg.sensor(name="freshness_sensor", description=_freshness.__doc__, **common)
    def freshness_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        _settled()
        return _freshness(context, specs)

    @dg.sensor(name="on_demand_sensor", description=on_demand_sensor.__doc__, **common)
    def asked_by_people(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return on_demand_sensor(context, specs)

    @dg.run_failure_sensor(
        name="failure_alerts",
        description="Sends failed runs to the alert targets of their models.",
        default_status=status,
        minimum_interval_seconds=settings.sensor_interval_seconds,
    )
    def failure_alerts(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        return _failure(context, specs, settings)

    return [
        arrivals_sensor,
        drift_sensor,
        freshness_sensor,
        asked_by_people,
        _champion_sensor(specs, settings, status),
        failure_alerts,
        _retry_sensor(specs, settings, status),
    ]


@cache
def _settled() -> None:
    """Once per process, before its first tick: what a code server has loaded by then it keeps. To look through it
    for garbage again and again would cost a tick in seven 0.2 CPU seconds more with 1,000 models."""
    gc.collect()
    gc.freeze()


def _champion_sensor(
    specs: Mapping[str, ModelSpec], settings: Settings, status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    @dg.sensor(
        name="champion_sensor",
        description=_champions.__doc__,
        minimum_interval_seconds=max(settings.sensor_interval_seconds, _RECONCILE_SECONDS),
        default_status=status,
        required_resource_keys={"platform"},
    )
    def champion_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return _champions(context, specs)

    return champion_sensor


def _retry_sensor(
    specs: Mapping[str, ModelSpec], settings: Settings, status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    @dg.sensor(
        name="retry_sensor",
        description=retries.__doc__,
        minimum_interval_seconds=max(settings.sensor_interval_seconds, _RETRIES_SECONDS),
        default_status=status,
    )
    def retry_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return retries(context, specs.keys())

    return retry_sensor


# ------------------------------------------------------------------------------------- drift


def _drift(
    context: dg.SensorEvaluationContext, specs: Mapping[str, ModelSpec]
) -> dg.SensorResult | dg.SkipReason:
    """Reads the drift reports that landed since the last tick and retrains the models whose alarm
    is raised, if their policy agrees. A model whose retraining is in flight is asked again later, and
    so is one whose run failed before its candidate was judged: after 1, 10 and 60 minutes. Where most
    models of a group begin to drift within an hour, the data is suspected: one alert, and their drift
    retrainings are held."""
    from retrain_assets.errors import LedgerError

    platform: Platform = context.resources.platform
    cursor = read_cursor(context.cursor)
    read: dict[str, int] = {n: at for n, at in cursor.get("read", {}).items() if n in specs}
    turn, suspects = Turn.stored(cursor), Suspects.stored(cursor)
    try:
        chosen = turn.choose(context.instance, specs)
        states = observe(
            context.instance, platform.ledger, (specs[n] for n in chosen), running=turn.running
        )
        began = suspects.update(states, specs, platform.settings)
        asking, unread = _alarmed(context, states, read, turn.sole_runs)
        questions = [
            Question(states[name], one.partition, ("drift",), one,
                     suspect_data=suspects.text(states[name].spec, platform.settings))
            for name, one in asking.items()
        ]  # fmt: skip
        found = answers(context.instance, platform, questions, limit=_MAX_RETRAININGS_PER_TICK)
        requests = recorded(platform, [one for one in found if one is not None])
    except LedgerError as error:
        return _undecided(context, error)
    turn.again(open_=unread)  # before the open questions, some of which need a look at every tick
    _queue_again(turn, asking, found)
    for name, one in zip(asking, found, strict=True):
        newest = states[name].latest["drift_report"].storage_id
        if one is not None and not one.asked_again:
            read[name] = newest
        elif name not in read:
            # Without a cursor only the latest report counts, and a newer one would hide this one.
            read[name] = newest - 1
    suspects.tell(began, specs, platform.settings, context.log)
    context.update_cursor(written_cursor({"read": read, **turn.to_store(), **suspects.to_store()}))
    return _asked_for(requests, found, "no new report raises the alarm")


def _alarmed(
    context: dg.SensorEvaluationContext,
    states: Mapping[str, ModelState],
    read: dict[str, int],
    sole_runs: Mapping[str, str],
) -> tuple[dict[str, Latest], list[str]]:
    """By model the report that raises the alarm and is not answered; the others count as read.

    A latest report without an alarm may hide an earlier one that came since the last tick, unless it is of
    the only run that was.

    Returns:
        Beside them, the models whose new reports this tick has not read.
    """
    found: dict[str, Latest] = {}
    unread: list[str] = []
    looks = _MAX_LOOKED_BACK
    for name, state in states.items():
        latest = state.latest.get("drift_report")
        if latest is None or latest.storage_id <= read.get(name, 0):
            continue
        # What takes several conditions is decided where all of them are looked at; what its monitor
        # run decides itself, when that has ended.
        if state.spec.retrain.conditions_needed > 1:
            continue
        if state.decides_itself:
            unread.append(name)
            continue
        alarmed, after = (latest if state.alarms(latest) else None), read.get(name)
        alone = sole_runs.get(name) == latest.run_id
        if alarmed is None and after is not None and not alone:
            if looks == 0:
                unread.append(name)
                continue
            looks -= 1
            alarmed = _hidden_alarm(context, state, after)
        if alarmed is None:
            read[name] = latest.storage_id
        else:
            found[name] = alarmed
    return found, unread


def _queue_again(turn: Turn, asking: Iterable[str], found: Sequence[Answer | None]) -> None:
    """Models that the tick did not get to come first in the next one, open questions at the end."""
    answered = list(zip(asking, found, strict=True))
    turn.again(
        open_=[name for name, one in answered if one is not None and one.asked_again],
        first=[name for name, one in answered if one is None],
    )


def _asked_for(
    requests: Sequence[dg.RunRequest], found: Sequence[Answer | None], nothing: str
) -> dg.SensorResult | dg.SkipReason:
    """The tick's runs, or why there are none: what waits, else `nothing`."""
    if requests:
        return dg.SensorResult(run_requests=requests)
    waiting = [
        f"{one.model}: {', '.join(one.decision.reasons)}"
        for one in found
        if one is not None and one.decision.trigger is not None
    ]
    return dg.SkipReason(_first_few(waiting) or nothing)


def _undecided(context: dg.SensorEvaluationContext, error: Exception) -> dg.SkipReason:
    """A tick without the ledger: nothing is requested that is not on record, and the cursor stays."""
    context.log.error(str(error))
    return dg.SkipReason(f"nothing was decided: {error}")


def _first_few(lines: Sequence[str], limit: int = 5) -> str:
    """Lines for a skip reason, which the UI shows on one line."""
    more = f"; and {len(lines) - limit} more" if len(lines) > limit else ""
    return "; ".join(lines[:limit]) + more


def _hidden_alarm(
    context: dg.SensorEvaluationContext, state: ModelState, after: int
) -> Latest | None:
    """The newest report past the cursor that raises the alarm, where the latest does not.

    "Latest" would hide an earlier partition where two land between ticks. Without a cursor only the
    latest counts: old alarms were answered by whoever answered then. A report that was measured
    against a former champion raises no alarm about the present one.
    """
    key = asset_key(state.spec.name, "drift_report")
    landed = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, after_storage_id=after), limit=1000
    )
    for record in landed.records:  # newest first
        materialization = record.asset_materialization
        if materialization is None:
            continue
        found = Latest(
            record.storage_id,
            record.partition_key,
            record.timestamp,
            plain(materialization.metadata),
        )
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
    decides about the models that are retrained only when several conditions hold at once. A model
    of which a run writes several partitions is decided about when that has ended. Puts on record why
    the others wait."""
    from retrain_assets.errors import LedgerError

    platform: Platform = context.resources.platform
    turn = Turn.stored(read_cursor(context.cursor))
    try:
        chosen = turn.choose(context.instance, specs)
        states = observe(
            context.instance, platform.ledger, (specs[n] for n in chosen), running=turn.running
        )
        backfilled = _being_backfilled(turn.running)
        asking = [
            s
            for name, s in states.items()
            if "features" in s.latest and not s.decides_itself and name not in backfilled
        ]
        questions = [_by_itself(state) for state in asking]
        found = [
            _worth_a_row(state, one)
            for state, one in zip(
                asking,
                answers(context.instance, platform, questions, limit=_MAX_RETRAININGS_PER_TICK),
                strict=True,
            )
        ]
        requests = recorded(platform, [one for one in found if one is not None])
    except LedgerError as error:
        return _undecided(context, error)
    _queue_again(turn, (state.spec.name for state in asking), found)
    context.update_cursor(written_cursor(turn.to_store()))
    return _asked_for(requests, found, "no champion needs to be retrained")


def _being_backfilled(running: Sequence[dg.DagsterRun]) -> set[str]:
    """Models of which a run is about to write several partitions: what is there is a part of them, and the
    end of the run brings the model's turn."""
    return {
        name
        for run in running
        if RANGE_START in run.tags and run.status in _WRITING
        for name in models_of(run.asset_selection, "features")
    }


def _by_itself(state: ModelState) -> Question:
    """What this sensor asks; drift only where several conditions are needed."""
    jointly = state.spec.retrain.conditions_needed > 1
    return Question(
        state,
        state.latest["features"].partition,
        (*BY_ITSELF, "drift") if jointly else BY_ITSELF,
        state.latest.get("drift_report"),
    )


def _worth_a_row(state: ModelState, found: Answer | None) -> Answer | None:
    """Between features and report of a partition nothing is known yet that is worth a row."""
    report, features = state.latest.get("drift_report"), state.latest["features"]
    seen = report is not None and report.partition == features.partition
    return found if found is None or seen or found.decision.trigger else found.unrecorded()


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
    told: dict[str, str] = read_cursor(context.cursor)
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
        written_cursor({repair.event: repair.kind for repair in repairs if repair.kind in lasting})
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

    if context.failure_event.message == REPORTED_AGAIN:
        return dg.SkipReason("this failure was seen before")
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
        errors += _explained(context, name) if errors else []
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


def _explained(context: dg.RunFailureSensorContext, name: str) -> list[str]:
    """What the run's log says beside its events about a model's steps: a killed pod cannot say why."""
    entries = context.instance.all_logs(context.dagster_run.run_id)
    return [
        entry.user_message
        for entry in entries
        if not entry.is_dagster_event
        and entry.level == logging.ERROR
        and entry.user_message.startswith(f"{name}/")
    ]


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
