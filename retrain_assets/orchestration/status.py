"""Status rows of all models, gathered in a fixed number of batched reads."""

import dataclasses
from collections.abc import Collection
from datetime import UTC
from typing import Any

import dagster as dg

from retrain_assets.fleet.status import StatusRow
from retrain_assets.orchestration.keys import STAGES
from retrain_assets.orchestration.observe import ModelState, observe
from retrain_assets.orchestration.platform import Platform
from retrain_assets.orchestration.why import explained
from retrain_assets.policy.record import Entry
from retrain_assets.promotion.reviews import Review, Reviews
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import BrokenSpec, SpecSet

__all__ = ["local_instance", "read_status", "status_rows"]

_RECENT_RUNS = 200


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


def read_status(specs: SpecSet, names: Collection[str] | None = None) -> list[StatusRow]:
    """Rows of the models in `specs` (all, or `names`), broken specs among them."""
    settings = Settings.load()
    with local_instance(settings) as instance:
        return status_rows(instance, Platform(settings), specs, names)


def status_rows(
    instance: dg.DagsterInstance,
    platform: Platform,
    specs: SpecSet,
    names: Collection[str] | None = None,
) -> list[StatusRow]:
    """Rows of the models in `specs`, what needs a person first."""
    chosen = [spec for spec in specs.specs() if names is None or spec.name in names]
    states = observe(instance, platform.ledger, chosen, STAGES)
    runs = _latest_runs(instance)
    waiting = Reviews(platform.ledger).waiting(list(states))
    decided = platform.decisions.newest(list(states))
    rows = [
        _with_decision(
            _with_review(
                _row(state, runs.get(name), failed=_failed(instance, runs.get(name), name)),
                waiting.get(name),
            ),
            decided.get(name),
        )
        for name, state in states.items()
    ]
    if names is None:
        rows += [_broken_row(spec) for spec in specs.broken]
    return sorted(rows, key=lambda row: row.rank)


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


def _with_decision(row: StatusRow, entry: Entry | None) -> StatusRow:
    """The row with the last decision about the model."""
    if entry is None:
        return row
    said = explained(entry, None, {}, {}).summary
    text = f"last decision {entry.decided_at:%Y-%m-%d %H:%M} UTC, {said}"
    return dataclasses.replace(row, decision=text)


def _broken_row(broken: BrokenSpec) -> StatusRow:
    first = broken.problems[0]
    more = f" (+{len(broken.problems) - 1} more)" if len(broken.problems) > 1 else ""
    return StatusRow(broken.name, "broken", note=f"{broken.file}: {first}{more}")


def _latest_runs(instance: dg.DagsterInstance) -> dict[str, dg.RunRecord]:
    """The latest run of each model among the instance's recent runs."""
    latest: dict[str, dg.RunRecord] = {}
    for record in instance.get_run_records(limit=_RECENT_RUNS):  # newest first
        for key in record.dagster_run.asset_selection or ():
            latest.setdefault(key.path[0], record)
    return latest


def _failed(instance: dg.DagsterInstance, run: dg.RunRecord | None, name: str) -> bool:
    """Whether the run failed for this model; several may share a monitor run."""
    if run is None or run.dagster_run.status != dg.DagsterRunStatus.FAILURE:
        return False
    models = {key.path[0] for key in run.dagster_run.asset_selection or ()}
    if len(models) == 1:
        return True
    statistics = instance.get_run_step_stats(run.dagster_run.run_id)
    failed = [s.step_key for s in statistics if s.status and s.status.value == "FAILURE"]
    return not failed or any(step.startswith(f"{name}__") for step in failed)


def _row(state: ModelState, run: dg.RunRecord | None, *, failed: bool) -> StatusRow:
    report = state.latest.get("drift_report")
    features = state.latest.get("features")
    values: dict[str, Any] = dict(report.metadata) if report else {}
    champion = state.champion
    reference = str(values.get("reference", ""))
    if (
        champion
        and reference.startswith("champion")
        and reference != f"champion v{champion.version}"
    ):
        values = {}  # measured against a former champion: it says nothing about this one
    status = run.dagster_run.status if run else None
    if failed:
        name, note = "failing", "the last run failed; see the Dagster UI"
    elif state.in_flight:
        name, note = "retraining", ""
    elif champion is None:
        name, note = "waiting", "no champion yet"
        if state.vacancy is not None:
            note = f"no champion since v{state.vacancy.version} was deleted from the registry"
    elif values.get("alarm"):
        name, note = "drifting", "the drift alarm is raised"
    else:
        name, note = "healthy", ""
    if failed and run is not None and run.dagster_run.tags.get("retrain/kind") == "retrain":
        trigger = run.dagster_run.tags.get("retrain/trigger")
        note = f"the last retraining ({trigger}) failed or was rejected; the champion stays"
    return StatusRow(
        model=state.spec.name,
        state=name,  # type: ignore[arg-type]
        owner=state.spec.owner,
        champion=champion.version if champion else None,
        promoted_at=champion.promoted_at.isoformat() if champion else None,
        metric=champion.metric if champion else None,
        value=champion.value if champion else None,
        trained_for=champion.partition if champion else None,
        newest=features.partition if features else None,
        verdict=values.get("verdict"),
        drift_score=values.get("drift_score"),
        last_run=status.value if status else None,
        last_run_at=run.update_timestamp.replace(tzinfo=UTC).isoformat() if run else None,
        note=note,
    )
