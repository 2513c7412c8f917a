"""Status rows of all models, gathered in a fixed number of batched reads.

Belongs here: reading Dagster and the ledgers, and what follows from them for one model. Does not: how
rows are shown (`fleet`), when they are read (`fleet_status`, the command line, the dashboard).
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.fleet.status import Freshness, State, StatusRow, freshness_of
from retrain_assets.orchestration.keys import Tag, asset_key, trigger_and_reason
from retrain_assets.orchestration.observe import ModelState, observe
from retrain_assets.orchestration.platform import Platform
from retrain_assets.orchestration.why import explained
from retrain_assets.promotion.reviews import Review, Reviews
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import BrokenSpec, SpecSet
from retrain_assets.spec.model import METRICS, MINIMIZED

if TYPE_CHECKING:
    from retrain_assets.policy.record import Entry
    from retrain_assets.promotion.ledger import Promotion
    from retrain_assets.spec.model import ModelSpec

__all__ = ["local_instance", "read_fleet", "read_status", "status_rows"]

_WEEK = timedelta(days=7)
_MOST_RUNS = 2000
_RUNS_AT_ONCE = 500


def local_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance in DAGSTER_HOME, else the local one of `make dev` and `make demo`.

    A missing local folder is made, with the `dagster.yaml` of the working directory if there is one.
    """
    import os
    import shutil
    from pathlib import Path

    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    template = Path("dagster.yaml")
    if not config.exists() and template.exists():
        shutil.copyfile(template, config)
    config.touch()
    return dg.DagsterInstance.from_config(str(home))


def read_status(specs: SpecSet, specs_key: str) -> Snapshot:
    """All models of `specs`, broken and retired ones among them, in this process's environment.

    Args:
        specs: the loaded specs.
        specs_key: their digest, see `fleet.snapshot.specs_digest`.
    """
    settings = Settings.load()
    with local_instance(settings) as instance:
        return read_fleet(instance, Platform(settings), specs, specs_key)


def status_rows(
    instance: dg.DagsterInstance, platform: Platform, specs: SpecSet
) -> list[StatusRow]:
    """Rows of all models, what needs a person first; see `read_fleet`."""
    return list(read_fleet(instance, platform, specs, "").rows)


def read_fleet(
    instance: dg.DagsterInstance, platform: Platform, specs: SpecSet, specs_key: str
) -> Snapshot:
    """The status of all models now: one or two reads of the event log, a few of runs, seven of the ledger.

    Beside that, one read for each failed run that several models share.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    now = datetime.now(UTC)
    read = _read(instance, platform, specs.specs(), now)
    rows = [_row(state, read) for state in read.states.values()]
    rows += [_broken_row(broken) for broken in specs.broken]
    known = {row.model for row in rows} | {spec.renamed_from for spec in specs.specs()}
    retired = platform.ledger.newest(sorted(set(read.promotions) - known))
    rows += [_retired_row(promotion, read) for promotion in retired.values()]
    return Snapshot(
        as_of=now,
        specs=specs_key,
        runs_since=read.runs.since,
        rows=tuple(sorted(rows, key=lambda row: row.rank)),
    )


@dataclass
class _Runs:
    """The runs of the last 7 days by model.

    Attributes:
        since: from when on they are complete.
        latest: each model's latest run, of whatever age.
        failed: models by failed run; several may share one.
        seconds: by model; a run of several counts in equal parts.
        ended: by model, runs by `kind status`.
    """

    since: datetime
    latest: dict[str, dg.RunRecord] = field(default_factory=dict)
    failed: dict[str, frozenset[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    ended: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Read:
    """Everything that rows are made from."""

    now: datetime
    settings: Settings
    states: Mapping[str, ModelState]
    runs: _Runs
    waiting: Mapping[str, Review]
    decided: "Mapping[str, Entry]"
    promotions: Mapping[str, int]
    rejections: Mapping[str, int]


def _read(
    instance: dg.DagsterInstance,
    platform: Platform,
    specs: "Sequence[ModelSpec]",
    now: datetime,
) -> _Read:
    states = observe(instance, platform.ledger, specs, stages=_stages)
    names = list(states)
    return _Read(
        now=now,
        settings=platform.settings,
        states=states,
        runs=_recent_runs(instance, states, now),
        waiting=Reviews(platform.ledger).waiting(names),
        decided=platform.decisions.newest(names),
        promotions=platform.ledger.promotion_counts(),
        rejections=platform.decisions.rejection_counts(),
    )


def _stages(spec: "ModelSpec") -> tuple[str, ...]:
    """The assets that a row tells of: a record of one takes a fifth of a millisecond."""
    policies = spec.freshness
    fresh = {"raw_data": policies.raw_data, "promoted_model": policies.promoted_model}
    return (
        "features",
        "drift_report",
        *(stage for stage, window in fresh.items() if window is not None),
    )


# -- runs -------------------------------------------------------------------------------------------


def _models_of(run: dg.DagsterRun) -> set[str]:
    return {key.path[0] for key in run.asset_selection or () if len(key.path) > 1}


def _recent_runs(
    instance: dg.DagsterInstance, states: Mapping[str, ModelState], now: datetime
) -> _Runs:
    week = list(
        instance.get_run_records(filters=dg.RunsFilter(created_after=now - _WEEK), limit=_MOST_RUNS)
    )
    oldest = week[-1].create_timestamp.replace(tzinfo=UTC) if len(week) == _MOST_RUNS else None
    found = _Runs(since=oldest or now - _WEEK)
    for record in week:  # newest first
        models = _models_of(record.dagster_run)
        run = record.dagster_run
        for name in models:
            found.latest.setdefault(name, record)
            if run.is_finished:
                kind = run.tags.get(Tag.KIND, "other")
                status = f"{kind} {run.status.value.lower()}"
                found.ended.setdefault(name, Counter())[status] += 1
            spent = _seconds(record, now) or 0.0
            found.seconds[name] = found.seconds.get(name, 0.0) + spent / len(models)
    _add_older(instance, states, found)
    latest = {found.latest[name].dagster_run.run_id: found.latest[name] for name in states
              if name in found.latest}  # fmt: skip
    found.failed = {
        run_id: _failed_models(instance, record.dagster_run)
        for run_id, record in latest.items()
        if record.dagster_run.status == dg.DagsterRunStatus.FAILURE
    }
    return found


def _add_older(
    instance: dg.DagsterInstance, states: Mapping[str, ModelState], found: _Runs
) -> None:
    """The last runs of models that had none in a week, by the ids that their assets name."""
    missing = {
        name: set(state.run_ids) for name, state in states.items() if name not in found.latest
    }
    unread = {
        asset_key(name, stage): name for name in missing for stage in ("raw_data", "promoted_model")
    }
    for asset in instance.get_asset_records(list(unread)) if unread else ():
        if asset.asset_entry.last_run_id:  # events without a run have an empty one
            missing[unread[asset.asset_entry.asset_key]].add(asset.asset_entry.last_run_id)
    wanted = sorted({run_id for run_ids in missing.values() for run_id in run_ids})
    records: dict[str, dg.RunRecord] = {}
    for start in range(0, len(wanted), _RUNS_AT_ONCE):
        part = dg.RunsFilter(run_ids=wanted[start : start + _RUNS_AT_ONCE])
        records |= {one.dagster_run.run_id: one for one in instance.get_run_records(filters=part)}
    for name, run_ids in missing.items():
        known = [records[run_id] for run_id in run_ids if run_id in records]
        if known:
            found.latest[name] = max(known, key=lambda record: record.storage_id)


def _failed_models(instance: dg.DagsterInstance, run: dg.DagsterRun) -> frozenset[str]:
    """The models that a failed run failed for: all, where it failed before any step."""
    models = _models_of(run)
    if len(models) == 1:
        return frozenset(models)
    statistics = instance.get_run_step_stats(run.run_id)
    steps = [s.step_key for s in statistics if s.status and s.status.value == "FAILURE"]
    return frozenset(
        name for name in models if not steps or any(key.startswith(f"{name}__") for key in steps)
    )


def _seconds(record: dg.RunRecord, now: datetime) -> float | None:
    if record.start_time is None:
        return None
    return max(0.0, (record.end_time or now.timestamp()) - record.start_time)


# -- rows -------------------------------------------------------------------------------------------


def _row(state: ModelState, read: _Read) -> StatusRow:
    name = state.spec.name
    record = read.runs.latest.get(name)
    features = state.latest.get("features")
    measured = _measured(state)
    named, note = _state_of(state, record, read, alarm=bool(measured.get("alarm")))
    freshness, stale = _freshness(state, read.now)
    row = StatusRow(
        model=name,
        state=named,
        group=state.spec.group or name,
        owner=state.spec.owner,
        description=state.spec.description,
        newest=features.partition if features else None,
        verdict=measured.get("verdict"),
        drift_score=measured.get("drift_score"),
        trend=tuple(measured.get("trend", ())),
        freshness=freshness,
        stale=stale,
        week_seconds=read.runs.seconds.get(name, 0.0),
        week_runs=dict(read.runs.ended.get(name, {})),
        promotions=read.promotions.get(name, 0),
        rejections=read.rejections.get(name, 0),
        note=note,
        links=_links(read.settings, name, state.champion, record),
    )
    if state.champion is not None:
        row = dataclasses.replace(row, **_champion(state.champion), **_against_bound(state))
    if record is not None:
        row = dataclasses.replace(row, **_last_run(record, read.now))
    return _with_decision(_with_review(row, read.waiting.get(name)), read.decided.get(name))


def _measured(state: ModelState) -> dict[str, Any]:
    """The newest drift report's metadata; nothing where a former champion was measured."""
    report = state.latest.get("drift_report")
    values: dict[str, Any] = dict(report.metadata) if report else {}
    reference = str(values.get("reference", ""))
    present = f"champion v{state.champion.version}" if state.champion else reference
    return {} if reference.startswith("champion") and reference != present else values


def _state_of(
    state: ModelState, record: dg.RunRecord | None, read: _Read, *, alarm: bool
) -> tuple[State, str]:
    """The state and its note, what awaits approval left out."""
    run = record.dagster_run if record else None
    if run is not None and state.spec.name in read.runs.failed.get(run.run_id, ()):
        judged = state.judged
        if judged is not None and judged.run_id == run.run_id and judged.verdict != "promote":
            return "rejected", f"v{judged.version} was not promoted: {judged.sentence}"
        if run.tags.get(Tag.KIND) == "retrain":
            trigger = trigger_and_reason(run.tags, state.spec.name).get("trigger")
            return "failing", f"the last retraining ({trigger}) failed; the champion stays"
        return "failing", "the last run failed; see the Dagster UI"
    if state.in_flight:
        return "retraining", ""
    if state.champion is None:
        if state.vacancy is None:
            return "waiting", "no champion yet"
        gone = f"no champion since v{state.vacancy.version} was deleted from the registry"
        return "waiting", gone
    return ("drifting", "the drift alarm is raised") if alarm else ("healthy", "")


def _champion(champion: "Promotion") -> dict[str, Any]:
    return {
        "champion": champion.version,
        "promoted_at": champion.promoted_at.isoformat(),
        "metric": champion.metric,
        "value": champion.value,
        "trained_for": champion.partition,
    }


def _against_bound(state: ModelState) -> dict[str, Any]:
    """The newest performance since the promotion, and the strictest bound that the spec sets."""
    assert state.champion is not None
    expected, since = state.performance()
    known = [one for one in since if one.value is not None]
    newest = known[-1] if known else None
    live: dict[str, Any] = {}
    if newest is not None:
        live = {"live": newest.value, "live_kind": newest.kind, "live_on": newest.partition}
    rule, bounds = state.spec.retrain.on_performance, [state.spec.gate.floor]
    if rule is None and state.spec.gate.floor is None:
        return live
    maximize = _is_maximized(state.champion.metric)
    if rule is not None:
        level = state.champion.value if expected is None else expected.value
        bounds.append(rule.floor)
        if rule.max_drop is not None and level is not None:
            bounds.append(level - rule.max_drop if maximize else level + rule.max_drop)
    given = [bound for bound in bounds if bound is not None]
    if not given:
        return live
    bound = max(given) if maximize else min(given)
    value = state.champion.value if newest is None or newest.value is None else newest.value
    return {**live, "bound": bound, "meets": value >= bound if maximize else value <= bound}


def _is_maximized(metric: str) -> bool:
    """Whether more is better.

    Raises:
        TrainingError: there is no such metric: another release wrote it to the ledger.
    """
    if any(metric in names for names in METRICS.values()):
        return metric not in MINIMIZED
    from retrain_assets.training.metrics import get_metric

    return get_metric(metric).direction == "maximize"


def _last_run(record: dg.RunRecord, now: datetime) -> dict[str, Any]:
    return {
        "last_run": record.dagster_run.status.value,
        "last_run_id": record.dagster_run.run_id,
        "last_run_at": record.update_timestamp.replace(tzinfo=UTC).isoformat(),
        "last_run_seconds": _seconds(record, now),
    }


def _freshness(state: ModelState, now: datetime) -> tuple[Freshness | None, str]:
    """The worst of the spec's freshness policies, and what is late."""
    worst: Freshness | None = None
    stale: list[str] = []
    policies = state.spec.freshness
    for stage, window in (
        ("raw_data", policies.raw_data),
        ("promoted_model", policies.promoted_model),
    ):
        if window is None:
            continue
        latest = state.latest.get(stage)
        said, text = freshness_of(
            latest.timestamp if latest else None, window.warn, window.fail, now
        )
        if text:
            stale.append(f"{stage} was {text}")
        order: tuple[Freshness | None, ...] = (None, "ok", "warn", "fail")
        worst = max(worst, said, key=order.index)
    return worst, "; ".join(stale)


def _links(
    settings: Settings, model: str, champion: "Promotion | None", record: dg.RunRecord | None
) -> dict[str, str]:
    dagster = settings.dagster_url.rstrip("/")
    found = {"asset": f"{dagster}/assets/{model}/promoted_model"}
    if record is not None:
        found["run"] = f"{dagster}/runs/{record.dagster_run.run_id}"
    if settings.mlflow_url and champion is not None:
        mlflow = settings.mlflow_url.rstrip("/")
        found["model"] = f"{mlflow}/#/models/{model}/versions/{champion.version}"
    return found


def _with_review(row: StatusRow, review: Review | None) -> StatusRow:
    """The row with what awaits a person's approval."""
    if review is None or review.version == row.champion:
        return row
    since = f"{review.reviewed_at:%Y-%m-%d %H:%M} UTC"
    if review.expected_version != row.champion:
        compared = f"v{review.expected_version}" if review.expected_version else "no champion"
        note = f"v{review.version} awaits approval, but was compared with {compared}; retrain"
        return dataclasses.replace(row, note="; ".join(filter(None, (row.note, note))))
    note = f"v{review.version} awaits approval since {since}: `retrain promote {row.model}`"
    return dataclasses.replace(
        row,
        state=row.state if row.state == "failing" else "approval",
        awaits=review.version,
        note="; ".join(filter(None, (row.note, note))),
    )


def _with_decision(row: StatusRow, entry: "Entry | None") -> StatusRow:
    """The row with the last decision about the model."""
    if entry is None:
        return row
    return dataclasses.replace(
        row,
        decided_at=entry.decided_at.isoformat(),
        action=entry.action,
        decision=explained(entry, None, {}, {}).summary,
    )


def _broken_row(broken: BrokenSpec) -> StatusRow:
    first = broken.problems[0]
    more = f" (+{len(broken.problems) - 1} more)" if len(broken.problems) > 1 else ""
    return StatusRow(broken.name, "broken", note=f"{broken.file}: {first}{more}")


def _retired_row(promotion: "Promotion", read: _Read) -> StatusRow:
    """A model that no spec describes any more; its history and its champion stay."""
    name = promotion.model
    row = StatusRow(
        name,
        "retired",
        promotions=read.promotions[name],
        rejections=read.rejections.get(name, 0),
        note="no spec describes it any more; its history and its champion stay",
        links=_links(read.settings, name, promotion, None),
    )
    return row if promotion.is_vacancy else dataclasses.replace(row, **_champion(promotion))
