"""Alerts from runs and from the failure sensor, to a real HTTP endpoint and to a dead one."""

import socket

import dagster as dg
import pytest
from orchestration.harness import World, day, days, succeeded
from orchestration.inbox import Inbox, inbox

from retrain_assets.orchestration.local import Executed
from retrain_assets.orchestration.retries import REPORTED_AGAIN

__all__ = ["inbox"]  # a fixture of this module, too


def report_failure(world: World, run: Executed) -> None:
    """What the daemon does after a failed run: the failure sensor sees it."""
    (failure,) = [
        event
        for event in run.result.all_events
        if event.event_type == dg.DagsterEventType.RUN_FAILURE
    ]
    sees(world, run, failure)


def sees(world: World, run: Executed, failure: dg.DagsterEvent) -> None:
    """The failure sensor is given one event of a run."""
    context = dg.build_run_status_sensor_context(
        sensor_name="failure_alerts",
        dagster_event=failure,
        dagster_instance=world.instance,
        dagster_run=run.result.dagster_run,
    ).for_run_failure()
    world.loop.definitions.get_repository_def().get_sensor_def("failure_alerts")(context)


def test_drift_is_alerted_once_when_the_alarm_starts(world: World, inbox: Inbox) -> None:
    world.add(alerts=["ops"])
    world.say(drift_from=day(8))
    world.first_champion()
    succeeded(world.ingest(day(7)))
    assert inbox.messages == []
    succeeded(world.ingest(day(8)))
    (message,) = inbox.messages
    assert "churn: drift since 2024-01-08" in message["title"]
    assert "1 of 3 features drifted" in message["message"]
    assert "`x`: mean" in message["message"]
    assert "http://127.0.0.1:3000/runs/" in message["message"]
    succeeded(world.ingest(day(9)))
    assert len(inbox.messages) == 1, "an alarm that goes on is not a new one"


def test_a_rejection_is_alerted_with_the_comparison_and_not_twice(
    world: World, inbox: Inbox
) -> None:
    world.add(alerts=["ops"])
    world.first_champion()
    succeeded(world.ingest(*days(7, 10)))
    run = world.retrain(day(10))
    assert not run.success
    report_failure(world, run)
    (message,) = inbox.messages
    assert "churn: candidate rejected" in message["title"]
    assert "candidate v2" in message["message"]
    assert "does not beat champion v1" in message["message"]
    assert "beats_champion" in message["message"]


def test_a_rejection_that_keeps_the_run_green_is_alerted_too(world: World, inbox: Inbox) -> None:
    world.add(alerts=["ops"], gate={"on_reject": "keep"})
    world.first_champion()
    succeeded(world.ingest(*days(7, 10)))
    succeeded([world.retrain(day(10))])
    assert len(inbox.messages) == 1


def test_a_failed_run_is_alerted_with_the_reason_to_the_model_that_failed(
    world: World, inbox: Inbox
) -> None:
    world.add("churn", alerts=["ops"])
    world.add("sales", alerts=["ops"])
    world.say(bad={"churn": [day(1)]})
    (run,) = world.ingest(day(1))
    assert not run.success
    assert inbox.messages == []
    report_failure(world, run)
    (message,) = inbox.messages
    assert "churn: run failed" in message["title"]
    assert "segment" in message["message"]
    assert run.result.run_id in message["message"]


def test_a_failure_that_is_reported_again_for_its_retry_is_alerted_once(
    world: World, inbox: Inbox
) -> None:
    world.add(alerts=["ops"])
    world.say(bad={"churn": [day(1)]})
    (run,) = world.ingest(day(1))
    report_failure(world, run)
    sees(world, run, world.instance.report_run_failed(run.result.dagster_run, REPORTED_AGAIN))
    assert len(inbox.messages) == 1


def test_a_model_without_alert_targets_stays_silent(world: World, inbox: Inbox) -> None:
    world.add()
    world.say(bad={"churn": [day(1)]})
    (run,) = world.ingest(day(1))
    report_failure(world, run)
    assert inbox.messages == []


@pytest.mark.parametrize("target", ["nobody listens", "not set", "no URL"])
def test_a_dead_target_never_fails_a_run(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    target: str,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    urls = {"nobody listens": f"json://secret:token@127.0.0.1:{port}", "no URL": "secret-token"}
    monkeypatch.delenv("RETRAIN_ALERT_OPS", raising=False)
    if target in urls:
        monkeypatch.setenv("RETRAIN_ALERT_OPS", urls[target])
    world.add(alerts=["ops"], drift={"against": "first_window"})
    world.loop.log_level = "WARNING"
    world.say(drift_from=day(5))
    succeeded(world.ingest(*days(1, 4)))
    succeeded(world.ingest(day(5)))
    log = capfd.readouterr().err
    assert "alert 'churn: drift since 2024-01-05' not sent to ops" in log
    assert "RETRAIN_ALERT_OPS" in log
    assert "secret" not in log
