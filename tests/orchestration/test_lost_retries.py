"""Retries that Dagster promised and forgot: their failure is reported again, once."""

from datetime import timedelta

import dagster as dg
import pytest
from orchestration.harness import World, day, days

from retrain_assets.orchestration import retries
from retrain_assets.orchestration.retries import REPORTED_AGAIN, RETRIED_BY


@pytest.fixture
def died(world: World) -> dg.DagsterRun:
    """A run that failed, and that Dagster says it will try again."""
    world.add()
    world.say(bad={"churn": [day(3)]})
    world.ingest(*days(1, 6))
    (run,) = world.instance.get_runs()
    world.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
    return run


def reports(world: World, run: dg.DagsterRun) -> list[str]:
    """Messages of the run's failures."""
    failures = world.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    return [entry.get_dagster_event().message or "" for entry in failures]


def test_dagster_is_given_time(world: World, died: dg.DagsterRun) -> None:
    world.loop.evaluate("retry_sensor")
    assert len(reports(world, died)) == 1


@pytest.mark.parametrize(
    "tags",
    [{"dagster/will_retry": "false"}, {RETRIED_BY: "another run"}],
    ids=["not to be tried again", "tried again"],
)
def test_a_failure_that_waits_for_nothing_is_left_alone(
    world: World, died: dg.DagsterRun, tags: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_PATIENCE", timedelta(0))
    world.instance.add_run_tags(died.run_id, tags)
    world.loop.evaluate("retry_sensor")
    assert len(reports(world, died)) == 1


def test_a_retry_that_does_not_come_is_asked_for_once(
    world: World, died: dg.DagsterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_PATIENCE", timedelta(0))
    for _ in range(3):
        world.loop.evaluate("retry_sensor")
    first, again = reports(world, died)
    assert first != REPORTED_AGAIN
    assert again == REPORTED_AGAIN


def test_a_second_attempt_that_is_lost_too_is_asked_for_as_well(
    world: World, died: dg.DagsterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster gives an attempt the tags of the one before."""
    monkeypatch.setattr(retries, "_PATIENCE", timedelta(0))
    world.loop.evaluate("retry_sensor")
    first = world.instance.get_run_by_id(died.run_id)
    assert first is not None
    again = dg.DagsterRun(
        died.job_name, asset_selection=died.asset_selection, tags=first.tags,
        status=dg.DagsterRunStatus.FAILURE,
    )  # fmt: skip
    world.instance.add_run(again)
    world.instance.add_run_tags(died.run_id, {RETRIED_BY: again.run_id})
    for _ in range(2):
        world.loop.evaluate("retry_sensor")
    assert reports(world, again) == [REPORTED_AGAIN]


def test_a_sensor_that_dies_after_its_report_repeats_it(
    world: World, died: dg.DagsterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_PATIENCE", timedelta(0))
    with monkeypatch.context() as patch:

        def dies(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(type(world.instance), "add_run_tags", dies)
        with pytest.raises(KeyboardInterrupt):
            world.loop.evaluate("retry_sensor")
    world.loop.evaluate("retry_sensor")
    world.loop.evaluate("retry_sensor")
    assert reports(world, died)[1:] == [REPORTED_AGAIN] * 2


def test_runs_of_other_models_are_none_of_its_business(
    world: World, died: dg.DagsterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_PATIENCE", timedelta(0))
    with dg.build_sensor_context(instance=world.instance) as context:
        retries.retries(context, {"another"})
        assert len(reports(world, died)) == 1
        retries.retries(context, {"churn"})
    assert len(reports(world, died)) == 2
