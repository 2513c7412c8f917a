"""A partition whose monitor run failed is asked for again: soon, then ever later, then no more."""

import json
from collections.abc import Sequence

import dagster as dg
import pytest
from orchestration.harness import World, day, days, succeeded

from retrain_assets.orchestration import deciding, retries
from retrain_assets.orchestration.deciding import RETRY_AFTER_SECONDS
from retrain_assets.orchestration.keys import monitor_keys, retrain_keys


def asked_for(world: World) -> list[tuple[str, ...]]:
    """Partitions of the runs that the next tick of `arrivals` requests."""
    found = []
    for request in world.loop.evaluate("arrivals"):
        tags = request.tags
        first = request.partition_key or tags["dagster/asset_partition_range_start"]
        last = request.partition_key or tags["dagster/asset_partition_range_end"]
        found.append((first, last))
    return found


def age(world: World, seconds: float) -> None:
    """Let the cursor believe that its requests are `seconds` older."""
    cursor = json.loads(world.loop.cursors["arrivals"])
    for model in cursor["models"].values():
        model["asked"] = {key: [n, at - seconds, f] for key, (n, at, f) in model["asked"].items()}
    world.loop.cursors["arrivals"] = json.dumps(cursor)


def a_run(
    world: World, status: dg.DagsterRunStatus, keys: Sequence[dg.AssetKey], **tags: str
) -> dg.DagsterRun:
    """A run of these assets, of which Dagster knows no more than this; tags of Dagster without their prefix."""
    run = dg.DagsterRun(
        "__ASSET_JOB",
        status=status,
        asset_selection=frozenset(keys),
        tags={f"dagster/{name}": value for name, value in tags.items()},
    )
    return world.instance.add_run(run)


def one_that_failed(world: World) -> dg.DagsterRun:
    """The run of six days of which the third is bad."""
    world.add()
    world.say(bad={"churn": [day(3)]})
    world.ingest(*days(1, 6))
    (died,) = world.instance.get_runs()
    return died


def test_the_good_days_around_a_bad_one_go_on_without_it(world: World) -> None:
    world.add()
    world.say(bad={"churn": [day(3)]})
    (failed,) = world.ingest(*days(1, 6))
    assert not failed.success
    done = world.loop.tick("arrivals")
    assert [run.success for run in done] == [True, True]
    assert world.materialized("drift_report") == {*days(1, 2), *days(4, 6)}
    assert asked_for(world) == []


def test_a_run_that_dagster_is_about_to_try_again_is_not_asked_for_beside_it(world: World) -> None:
    died = one_that_failed(world)
    world.instance.add_run_tags(died.run_id, {"dagster/will_retry": "true"})
    assert asked_for(world) == []
    world.instance.add_run_tags(died.run_id, {"dagster/auto_retry_run_id": "ended since"})
    assert asked_for(world) == [(day(1), day(2)), (day(4), day(6))]


def test_a_run_that_fails_or_is_tried_again_while_a_tick_reads_is_not_asked_for_beside_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster notes that a run will be tried again after its failure, and by which run after that has begun."""
    died = one_that_failed(world)
    read = retries.runs_in_progress

    def is_tried_again(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
        found = read(instance)
        again = dg.DagsterRun("__ASSET_JOB", tags=died.tags, status=dg.DagsterRunStatus.STARTED)
        instance.add_run(again)
        tags = {"dagster/will_retry": "true", "dagster/auto_retry_run_id": again.run_id}
        instance.add_run_tags(died.run_id, tags)
        return found

    monkeypatch.setattr(retries, "runs_in_progress", is_tried_again)
    assert asked_for(world) == []


def test_a_retraining_that_dagster_is_about_to_try_again_is_not_asked_for_beside_it(
    world: World,
) -> None:
    world.add()
    world.ingest(*days(1, 6))
    retraining = retrain_keys("churn", partitioned=True)
    died = a_run(world, dg.DagsterRunStatus.FAILURE, retraining, will_retry="true")
    assert world.loop.evaluate("freshness_sensor") == []
    world.instance.add_run_tags(died.run_id, {"dagster/will_retry": "false"})
    assert len(world.loop.evaluate("freshness_sensor")) == 1


def test_a_model_of_which_a_run_writes_several_partitions_is_decided_about_when_that_has_ended(
    world: World,
) -> None:
    """Files of partitions are there before the run has said so, and more come after them."""
    world.add()
    world.ingest(*days(1, 6))
    monitor = monitor_keys("churn")
    started = dg.DagsterRunStatus.STARTED
    writing = a_run(world, started, monitor, asset_partition_range_start=day(5))
    assert world.loop.evaluate("freshness_sensor") == []
    assert world.loop.evaluate("freshness_sensor") == []
    world.instance.report_run_failed(writing)
    assert len(world.loop.evaluate("freshness_sensor")) == 1


def test_a_run_of_one_partition_and_one_that_waits_hold_up_no_decision(world: World) -> None:
    world.add()
    world.ingest(*days(1, 6))
    monitor, status = monitor_keys("churn"), dg.DagsterRunStatus
    a_run(world, status.STARTED, monitor, partition=day(7))
    a_run(world, status.NOT_STARTED, monitor, asset_partition_range_start=day(7))
    assert len(world.loop.evaluate("freshness_sensor")) == 1


def test_a_failed_run_of_which_dagster_has_not_said_whether_it_tries_again_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = one_that_failed(world)
    assert "dagster/will_retry" not in died.tags, "retries are off in this instance"
    monkeypatch.setattr(type(world.instance), "run_retries_enabled", True)
    assert asked_for(world) == []
    world.instance.add_run_tags(died.run_id, {"dagster/will_retry": "false"})
    assert asked_for(world) == [(day(1), day(2)), (day(4), day(6))]


def test_a_bad_day_is_asked_for_again_after_ever_longer_waits_and_then_no_more(
    world: World,
) -> None:
    world.add()
    world.say(bad={"churn": [day(1)]})
    world.ingest(day(1))
    for wait in RETRY_AFTER_SECONDS:
        age(world, wait / 2)
        assert asked_for(world) == []
        age(world, wait / 2)
        assert asked_for(world) == [(day(1), day(1))]
    age(world, 10 * max(RETRY_AFTER_SECONDS))
    assert asked_for(world) == []


def test_a_day_that_was_mended_is_ingested_by_the_next_try(world: World) -> None:
    world.add()
    world.say(bad={"churn": [day(1)]})
    world.ingest(day(1))
    world.say(bad={})
    age(world, 60)
    succeeded(world.loop.tick("arrivals"))
    assert world.materialized("drift_report") == {day(1)}
    assert asked_for(world) == []


@pytest.mark.parametrize("n", [1, 5])
def test_what_was_ingested_is_not_asked_for_again(world: World, n: int) -> None:
    world.add()
    succeeded(world.ingest(*days(1, n)))
    age(world, 10_000)
    assert asked_for(world) == []


def test_a_day_that_the_transform_cannot_read_does_not_hold_up_the_others(world: World) -> None:
    sql = (
        "SELECT * REPLACE (CASE WHEN segment = 'broken' THEN error('no such segment') ELSE segment "
        "END AS segment) FROM raw"
    )
    world.add(features={"sql": sql}, contract={"columns": {"segment": {"allowed": None}}})
    world.say(partitions=days(1, 5), bad={"churn": [day(3)]})
    (failed,) = world.loop.tick("arrivals")
    assert not failed.success
    assert day(3) in failed.error
    assert "no such segment" in failed.error
    assert world.materialized("features") == {*days(1, 2), *days(4, 5)}
    assert all(run.success for run in world.loop.tick("arrivals"))
    assert world.materialized("drift_report") == {*days(1, 2), *days(4, 5)}
    age(world, 60)
    assert asked_for(world) == [(day(3), day(3))]


def test_a_first_training_that_failed_is_tried_again_later_and_then_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(train={"params": {"no_such_parameter": 1}})
    succeeded(world.ingest(*days(1, 6)))
    monkeypatch.setattr(deciding, "RETRY_AFTER_SECONDS", (0, 0, 3600))
    tried = []
    for _ in range(5):
        tried += world.loop.tick("freshness_sensor")
    assert [run.success for run in tried] == [False] * 3
    assert len({run.request.run_key for run in tried}) == 3
    assert "no_such_parameter" in tried[0].error


def test_a_drift_retraining_that_failed_is_tried_again_without_a_new_report(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(train={"params": {"no_such_parameter": 1}})
    world.store_features(*days(1, 6))
    world.promote(day(6))
    world.report("drift_report", day(6), alarm=False)
    assert world.loop.evaluate("drift_sensor") == []
    world.store_features(day(7))
    world.report("drift_report", day(7), alarm=True)
    monkeypatch.setattr(deciding, "RETRY_AFTER_SECONDS", (0, 3600))
    tried = [run for _ in range(4) for run in world.loop.tick("drift_sensor")]
    assert [run.success for run in tried] == [False] * 2
    assert [run.request.tags["retrain/trigger"] for run in tried] == ["drift"] * 2
    monkeypatch.setattr(deciding, "RETRY_AFTER_SECONDS", (0,))
    assert world.loop.evaluate("drift_sensor") == [], "these were all the tries there are"
    monkeypatch.setattr(deciding, "RETRY_AFTER_SECONDS", (0, 0, 0))
    assert world.loop.evaluate("drift_sensor") == [], "the alarm is answered"
    assert len(world.platform.decisions.last("churn", 9)) == 1, "one state of affairs, one row"


def test_a_candidate_that_nobody_judged_is_judged_by_the_next_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    succeeded(world.ingest(*days(1, 6)))
    (request,) = world.loop.evaluate("freshness_sensor")
    # The run dies between its two steps.
    alone = request._replace(asset_selection=retrain_keys("churn", partitioned=True)[:1])
    assert world.loop.execute("freshness_sensor", alone).success
    assert world.platform.ledger.champion("churn") is None
    assert world.loop.evaluate("freshness_sensor") == [], "the next attempt is not due yet"
    monkeypatch.setattr(deciding, "RETRY_AFTER_SECONDS", (0, 0, 0))
    succeeded(world.loop.tick("freshness_sensor"))
    assert world.champion().version == "1", "the candidate of the first attempt"
    assert world.versions() == ["1"], "it is not trained again"
    assert world.loop.evaluate("freshness_sensor") == []
