"""The guard in the monitor runs: what is shown, told and done after a promotion."""

import dagster as dg
import pytest
from click.testing import CliRunner
from orchestration.harness import World, day, days, succeeded
from orchestration.inbox import Inbox, inbox

from retrain_assets.cli import main
from retrain_assets.orchestration.keys import GUARD, asset_key
from retrain_assets.orchestration.local import Executed

__all__ = ["inbox"]  # a fixture


def guarded(world: World, **guard: object) -> None:
    """v2, made for day 14 from days that had drifted, has replaced v1; then the drift is over."""
    world.add(alerts=["ops"], gate={"guard": {"partitions": 5, **guard}})
    world.say(drift_from=day(7))
    world.first_champion()
    succeeded(world.ingest(*days(7, 14)))
    succeeded([world.retrain(day(14))])
    assert world.champion().version == "2"
    world.say(drift_from=None)


def check_of(run: Executed) -> dg.AssetCheckEvaluation | None:
    found = [e for e in run.result.get_asset_check_evaluations() if e.check_name == "no_loss"]
    return found[0] if found else None


def report_of(world: World, partition: str) -> dict[str, object]:
    key = asset_key("churn", GUARD)
    found = world.instance.fetch_materializations(
        dg.AssetRecordsFilter(key, asset_partitions=[partition]), limit=1
    )
    materialization = found.records[0].asset_materialization
    assert materialization is not None
    return {name: value.value for name, value in materialization.metadata.items()}


def test_a_promotion_that_proves_wrong_is_told_once_and_shown(
    world: World, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded(world)
    assert world.materialized(GUARD) == set(), "before labels come there is nothing to report"
    inbox.messages.clear()
    (waiting,) = succeeded(world.ingest(*days(15, 17)))
    check = check_of(waiting)
    assert check is not None
    assert check.passed
    assert report_of(world, day(17))["verdict"] == "waiting"
    (run,) = succeeded(world.ingest(day(18)))
    check = check_of(run)
    assert check is not None
    assert not check.passed
    assert "v2, which replaced v1, is worse" in str(check.description)
    report = report_of(world, day(18))
    assert report["verdict"] == "worse"
    assert report["realised_gain"] == pytest.approx(
        world.platform.ledger.outcomes("churn")[0].gain, abs=1e-5
    )
    assert report["expected_gain"] > 0  # type: ignore[operator]
    assert world.champion().version == "2"
    succeeded(world.ingest(day(19)))
    (title,) = [title for title in inbox.titles if "worse" in title]
    assert "churn: v2 is worse than v1" in title
    (message,) = [m for m in inbox.messages if "worse" in m["title"]]
    assert "retrain rollback churn --to 1" in message["message"]
    monkeypatch.setenv("RETRAIN_HOME", str(world.settings.home))
    shown = CliRunner().invoke(main, ["history", "churn"])
    assert "realised -0." in shown.output
    assert f"over 5 partitions up to {day(19)}: worse than v1" in shown.output


def test_a_promotion_that_proves_wrong_is_rolled_back_and_stays_so(
    world: World, inbox: Inbox
) -> None:
    guarded(world, auto_rollback=True)
    (run,) = succeeded(world.ingest(*days(15, 18)))
    assert world.champion().version == "1"
    assert world.champion().actor == "guard"
    assert world.platform.registry.aliases("churn")["champion"] == "1"
    assert report_of(world, day(18))["rolled_back_to"] == "1"
    (message,) = [m for m in inbox.messages if "worse" in m["title"]]
    assert "v1 is champion again" in message["message"]
    again = world.retrain(day(14))
    assert "was rolled back by guard" in again.error
    succeeded(world.ingest(day(19)))
    assert check_of(run) is not None
    assert day(19) not in world.materialized(GUARD)
    assert world.champion().version == "1"


def test_a_model_without_a_guard_has_no_such_asset_and_one_without_promotion_no_report(
    world: World,
) -> None:
    world.add("plain")
    world.add("churn", gate={"guard": {"partitions": 5}})
    assert asset_key("plain", GUARD) not in world.loop.definitions.resolve_all_asset_keys()
    (run,) = succeeded(world.ingest(*days(1, 3)))
    steps = {event.step_key for event in run.result.all_events if event.is_step_success}
    assert "churn__guard_report" in steps
    assert not any(step and step.startswith("plain__guard") for step in steps)
    check = check_of(run)
    assert check is not None
    assert check.description == "no promotion is in its guard period"
    assert world.materialized(GUARD) == set()
