"""Conditions and guards of `retrain:` as the sensors gather and obey them."""

from datetime import UTC, datetime

import pytest
from orchestration.harness import World, day, days, succeeded

from retrain_assets.orchestration.keys import Tag, retrain_keys
from retrain_assets.spec.code import training_code


def asked(world: World, sensor: str = "freshness_sensor") -> list[tuple[str, str | None]]:
    """(trigger, partition) of every retraining that the sensor requests."""
    requests = world.loop.evaluate(sensor)
    return [(request.tags["retrain/trigger"], request.partition_key) for request in requests]


@pytest.fixture
def promoted(world: World):
    """A world whose model has a champion and a candidate for day 6, under a policy."""

    def make(**retrain) -> World:
        world.add(retrain=retrain)
        world.store_features(*days(1, 6))
        world.promote(day(6))
        code = training_code(world.specs.models["churn"].spec)
        world.judged(day(6), version="1", verdict="promote", code=code)
        return world

    return make


def past_retraining(world: World, partition: str, name: str = "churn") -> None:
    """A retraining that a sensor has started and that is over."""
    job = world.loop.definitions.resolve_implicit_global_asset_job_def()
    run = world.instance.create_run_for_job(
        job,
        asset_selection=frozenset(retrain_keys(name, partitioned=True)),
        tags={"dagster/partition": partition, Tag.KIND: "retrain", Tag.MODEL: name},
    )
    world.instance.report_run_canceled(run)


def test_so_many_new_partitions_are_a_reason_once_they_are_stored(promoted) -> None:
    world = promoted(on_new_partitions=3)
    world.store_features(day(7), day(9))  # day 8 is missing
    assert asked(world) == []
    world.store_features(day(10))
    assert asked(world) == [("new_data", day(10))]
    world.judged(day(10))
    assert asked(world) == []


def test_fewer_new_partitions_than_the_minimum_hold_an_old_champion_back(promoted) -> None:
    world = promoted(max_age="1d", min_new_partitions=4)
    world.store_features(*days(7, 9))
    assert asked(world) == []
    world.store_features(day(10))
    assert asked(world) == [("age", day(10))]


def test_changed_code_is_retrained_once_also_on_the_same_data(promoted) -> None:
    world = promoted(on_change=True)
    assert asked(world) == [], "nothing changed"
    world.judged(day(6), code="another")
    assert asked(world) == [("change", day(6))]
    assert asked(world) == [], "the run is requested"


def test_a_retraining_records_the_code_that_change_compares(world: World) -> None:
    world.add(retrain={"on_change": True})
    world.first_champion()
    assert asked(world) == []


def test_a_champion_that_an_alarm_brought_is_followed_up_until_a_candidate_is_rejected(
    promoted,
) -> None:
    world = promoted(follow_up=3)
    world.store_features(day(7))
    world.report("drift_report", day(7), alarm=True, drift_score=0.4)
    (request,) = world.loop.evaluate("drift_sensor")
    world.promote(day(7))
    world.judged(day(7), verdict="promote", state=request.tags[Tag.decision("churn")])
    world.store_features(day(8), day(9))
    assert asked(world) == [], "two of three partitions"
    world.store_features(day(10))
    assert asked(world) == [("follow_up", day(10))]
    world.judged(day(10), version="3")
    world.store_features(*days(11, 14))
    assert asked(world) == [], "the champion is as good as what the new data gives"


def test_each_rejection_doubles_the_wait_and_a_promotion_ends_it(promoted) -> None:
    world = promoted(max_age="1d", backoff={"first": "2d", "at_most": "30d"})
    world.judged(day(8), version="2")
    world.judged(day(8), version="2")  # run again: the same candidate
    world.judged(day(9), version="3")  # the second rejection
    world.store_features(*days(10, 12))
    assert asked(world) == [], "four days from day 9 on"
    world.store_features(day(13))
    assert asked(world) == [("age", day(13))]
    world.judged(day(13), version="4", verdict="promote")
    world.store_features(day(14))
    assert asked(world) == [("age", day(14))]


def test_a_used_up_budget_holds_sensor_and_schedule_back(stored_world: World) -> None:
    world = stored_world
    world.add(retrain={"max_age": "1d", "schedule": "0 6 * * *", "budget": {"runs_per_week": 2}})
    world.store_features(*days(1, 6))
    world.promote(day(6))
    world.store_features(day(8))
    past_retraining(world, day(6))
    past_retraining(world, day(7))
    assert asked(world) == []
    at = datetime(2024, 2, 1, 6, tzinfo=UTC)
    assert world.loop.evaluate_schedule("retrain_at_0_6_x_x_x", at) == []


def test_a_budget_with_room_for_one_more_run_lets_it_go(promoted) -> None:
    world = promoted(max_age="1d", budget={"runs_per_week": 2, "compute_seconds_per_week": 60})
    world.store_features(day(8))
    past_retraining(world, day(6))
    assert asked(world) == [("age", day(8))]


def test_drift_and_age_together_wait_for_each_other(promoted) -> None:
    world = promoted(max_age="2d", combine="all")
    world.store_features(day(7))
    world.report("drift_report", day(7), alarm=True, drift_score=0.4)
    assert asked(world, "drift_sensor") == [], "it is not for the drift sensor alone to say"
    assert asked(world) == [], "the champion is one day old"
    world.store_features(day(9))
    assert asked(world) == [("drift", day(9))]


def test_a_weak_alarm_is_no_reason_where_a_score_is_asked_for(promoted) -> None:
    world = promoted(min_drift_score=0.5)
    assert asked(world, "drift_sensor") == []
    for n, score, expected in ((7, 0.4, []), (8, 0.6, [("drift", day(8))])):
        world.store_features(day(n))
        world.report("drift_report", day(n), alarm=True, drift_score=score)
        assert asked(world, "drift_sensor") == expected


def test_compute_seconds_of_real_runs_use_the_budget_up(world: World) -> None:
    world.add(retrain={"max_age": "1d", "budget": {"compute_seconds_per_week": 0.001}})
    world.first_champion()
    succeeded(world.ingest(day(7), day(8)))
    assert asked(world) == []
