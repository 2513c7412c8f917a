"""What the sensors and schedules request, and what they do not."""

from datetime import UTC, datetime

import dagster as dg
import pytest
from orchestration.harness import World, day, days, succeeded

from retrain_assets.orchestration.keys import monitor_keys, retrain_keys

RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def spans(requests: list[dg.RunRequest]) -> list[tuple[str | None, ...]]:
    """What each request covers: (day,), or (first day, last day)."""
    return [
        (request.tags[RANGE[0]], request.tags[RANGE[1]])
        if RANGE[0] in request.tags
        else (request.partition_key,)
        for request in requests
    ]


def models_of(request: dg.RunRequest) -> str:
    """The models of a monitor run."""
    return request.tags.get("retrain/models") or request.tags["retrain/model"]


def requests_of(world: World, sensor: str) -> list[dg.RunRequest]:
    return world.loop.evaluate(sensor)


# -- arrivals -------------------------------------------------------------------------------------


def test_a_backlog_is_one_range_run_and_then_single_days_follow(world: World) -> None:
    world.add()
    world.say(partitions=days(1, 5))
    assert spans(requests_of(world, "arrivals")) == [(day(1), day(5))]
    assert requests_of(world, "arrivals") == []
    world.say(partitions=days(1, 6))
    (request,) = requests_of(world, "arrivals")
    assert spans([request]) == [(day(6),)]
    assert set(request.asset_selection or ()) == set(monitor_keys("churn"))
    assert request.tags["retrain/kind"] == "monitor"


def test_a_backlog_is_cut_into_runs_of_a_hundred_partitions_and_at_gaps(world: World) -> None:
    world.add()
    world.say(partitions=[*days(1, 150), *days(152, 160)])
    assert spans(requests_of(world, "arrivals")) == [
        (day(1), day(100)), (day(101), day(150)), (day(152), day(160)),
    ]  # fmt: skip


def test_nothing_is_requested_twice_even_when_the_cursor_is_lost(world: World) -> None:
    world.add()
    succeeded(world.ingest(*days(1, 3)))
    assert world.materialized("features") == set(days(1, 3))
    assert requests_of(world, "arrivals") == []
    again = world.restarted()
    assert requests_of(again, "arrivals") == []
    again.say(partitions=days(1, 4))
    assert spans(requests_of(again, "arrivals")) == [(day(4),)]


def test_a_partition_that_comes_late_is_requested_when_it_appears(world: World) -> None:
    world.add()
    world.say(partitions=[day(1), day(2), day(4)])
    assert spans(requests_of(world, "arrivals")) == [(day(1), day(2)), (day(4),)]
    world.say(partitions=days(1, 5))
    assert spans(requests_of(world, "arrivals")) == [(day(3),), (day(5),)]
    assert requests_of(world, "arrivals") == []


def test_a_partition_that_comes_late_is_found_after_a_lost_cursor_too(world: World) -> None:
    world.add()
    succeeded(world.ingest(day(1), day(3)))
    again = world.restarted()
    assert requests_of(again, "arrivals") == []
    again.say(partitions=days(1, 3))
    assert spans(requests_of(again, "arrivals")) == [(day(2),)]


def test_what_arrives_while_a_monitor_run_is_going_on_is_one_range_run_afterwards(
    world: World,
) -> None:
    world.add()
    world.say(partitions=days(1, 2))
    with world.monitoring_in_flight():
        assert requests_of(world, "arrivals") == []
        world.say(partitions=days(1, 4))
        assert requests_of(world, "arrivals") == []
    assert spans(requests_of(world, "arrivals")) == [(day(1), day(4))]


def test_a_monitor_run_of_one_model_does_not_make_the_others_wait(world: World) -> None:
    world.add("churn")
    world.add("sales", partitions={"start": "2024-01-02"})
    world.say(partitions=days(1, 2))
    with world.monitoring_in_flight("churn"):
        (request,) = requests_of(world, "arrivals")
        assert models_of(request) == "sales"
    (request,) = requests_of(world, "arrivals")
    assert models_of(request) == "churn"


def test_two_models_share_a_run_and_one_that_fails_does_not_stop_the_other(world: World) -> None:
    world.add("churn")
    world.add("sales")
    world.say(bad={"churn": [day(2)]})
    (run,) = world.ingest(*days(1, 2))
    assert models_of(run.request) == "churn,sales"
    assert not run.success
    assert "churn raw_data" in run.error
    assert world.materialized("drift_report", "sales") == set(days(1, 2))
    assert world.materialized("features", "churn") == set()


def test_models_with_other_partitions_do_not_share_a_run(world: World) -> None:
    world.add("churn")
    world.add("sales", partitions={"start": "2024-01-02"})
    world.say(partitions=days(1, 2))
    assert [models_of(request) for request in requests_of(world, "arrivals")] == [
        "churn", "sales",
    ]  # fmt: skip


def test_a_source_that_is_down_is_logged_and_asked_again(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.add("churn")
    world.add("sales")
    world.say(partitions=days(1, 2), down=["churn"])
    (request,) = requests_of(world, "arrivals")
    assert models_of(request) == "sales", "the other model must not wait"
    log = capfd.readouterr().err
    assert "churn: the source cannot be asked what it has" in log
    assert "the warehouse does not answer" in log

    world.say(partitions=days(1, 3))
    (request,) = requests_of(world, "arrivals")
    assert models_of(request) == "sales"

    world.say(down=[])
    (request,) = requests_of(world, "arrivals")
    assert models_of(request) == "churn"
    assert spans([request]) == [(day(1), day(3))]


def test_the_tick_says_so_when_every_source_is_down(world: World) -> None:
    world.add()
    world.say(down=["churn"])
    assert requests_of(world, "arrivals") == []
    repository = world.loop.definitions.get_repository_def()
    context = dg.build_sensor_context(
        instance=world.instance,
        repository_def=repository,
        resources={"platform": world.platform},
        sensor_name="arrivals",
    )
    data = repository.get_sensor_def("arrivals").evaluate_tick(context)
    assert "the warehouse does not answer" in str(data.skip_message)


# -- drift ----------------------------------------------------------------------------------------


@pytest.fixture
def watched(world: World) -> World:
    """A model with a champion for day 6, whose reports land without runs."""
    world.add(retrain={"cooldown": "3d"})
    world.store_features(*days(1, 6))
    world.promote(day(6))
    world.report("drift_report", day(6), alarm=False)
    assert requests_of(world, "drift_sensor") == []
    return world


def land(world: World, n: int, *, alarm: bool) -> None:
    """Day `n` is ingested and its report lands."""
    world.store_features(day(n))
    world.report("drift_report", day(n), alarm=alarm)


def test_an_alarm_requests_exactly_one_retraining(watched: World) -> None:
    land(watched, 7, alarm=True)
    (request,) = requests_of(watched, "drift_sensor")
    assert request.partition_key == day(7)
    assert set(request.asset_selection or ()) == set(retrain_keys("churn", partitioned=True))
    assert request.tags["retrain/trigger"] == "drift"
    assert request.tags["retrain/reason"] == "the drift alarm is raised"
    assert requests_of(watched, "drift_sensor") == []


def test_no_alarm_requests_nothing(watched: World) -> None:
    land(watched, 7, alarm=False)
    assert requests_of(watched, "drift_sensor") == []


def test_of_two_reports_between_two_ticks_the_earlier_alarm_is_seen(watched: World) -> None:
    land(watched, 7, alarm=True)
    land(watched, 8, alarm=False)
    (request,) = requests_of(watched, "drift_sensor")
    assert request.partition_key == day(8), "it trains on the newest data there is"
    assert requests_of(watched, "drift_sensor") == []


def test_a_new_alarm_after_the_cooldown_requests_again_and_within_it_does_not(
    watched: World,
) -> None:
    land(watched, 7, alarm=True)
    assert len(requests_of(watched, "drift_sensor")) == 1
    watched.judged(day(7))
    for n in (8, 9):
        land(watched, n, alarm=True)
        assert requests_of(watched, "drift_sensor") == []
    land(watched, 10, alarm=True)
    (request,) = requests_of(watched, "drift_sensor")
    assert request.partition_key == day(10)


def test_an_alarm_while_a_retraining_is_in_flight_is_held_and_fires_later(watched: World) -> None:
    with watched.retraining_in_flight(day(6)):
        land(watched, 7, alarm=True)
        assert requests_of(watched, "drift_sensor") == []
        land(watched, 8, alarm=False)
        assert requests_of(watched, "drift_sensor") == []
    (request,) = requests_of(watched, "drift_sensor")
    assert request.tags["retrain/trigger"] == "drift"
    assert requests_of(watched, "drift_sensor") == []


def test_an_alarm_that_is_held_at_the_first_tick_of_all_is_not_lost(watched: World) -> None:
    fresh = watched.restarted()
    land(fresh, 7, alarm=True)
    with fresh.retraining_in_flight(day(6)):
        assert requests_of(fresh, "drift_sensor") == []
        land(fresh, 8, alarm=False)
    assert len(requests_of(fresh, "drift_sensor")) == 1


def test_an_alarm_does_not_retrain_on_data_that_was_trained_on_already(watched: World) -> None:
    watched.judged(day(7))
    land(watched, 7, alarm=True)
    assert requests_of(watched, "drift_sensor") == []


def test_drift_is_ignored_where_the_policy_says_so(world: World) -> None:
    world.add(retrain={"on_drift": False})
    world.store_features(*days(1, 6))
    world.promote(day(6))
    world.report("drift_report", day(6), alarm=True)
    assert requests_of(world, "drift_sensor") == []


def test_alarms_of_several_models_in_one_tick_are_all_answered(world: World) -> None:
    for name in ("churn", "sales"):
        world.add(name)
        world.store_features(*days(1, 6), name=name)
        world.promote(day(6), name)
        world.store_features(day(7), name=name)
        world.report("drift_report", day(7), name, alarm=True)
    found = requests_of(world, "drift_sensor")
    assert [request.tags["retrain/model"] for request in found] == ["churn", "sales"]


# -- first champion and age -----------------------------------------------------------------------


def test_the_first_champion_waits_for_enough_partitions(world: World) -> None:
    world.add(train={"label_delay": 1})  # min_window 4: day 5 is the first to train for
    world.store_features(*days(1, 4))
    assert requests_of(world, "freshness_sensor") == []
    world.store_features(day(5))
    (request,) = requests_of(world, "freshness_sensor")
    assert request.tags["retrain/trigger"] == "first"
    assert request.partition_key == day(5)
    assert requests_of(world, "freshness_sensor") == []


def test_a_late_backfill_of_an_old_day_does_not_hide_the_newest_one(world: World) -> None:
    world.add()
    world.store_features(*days(2, 6))
    world.store_features(day(1))
    (request,) = requests_of(world, "freshness_sensor")
    assert request.partition_key == day(6)


def test_a_champion_that_is_too_old_is_retrained_once_for_each_new_partition(world: World) -> None:
    world.add(retrain={"max_age": "3d"})
    world.store_features(*days(1, 6))
    world.promote(day(6))
    world.store_features(*days(7, 9))
    assert requests_of(world, "freshness_sensor") == [], "exactly three days is not too old"
    world.store_features(day(10))
    (request,) = requests_of(world, "freshness_sensor")
    assert request.tags["retrain/trigger"] == "age"
    assert request.partition_key == day(10)
    assert requests_of(world, "freshness_sensor") == []
    world.judged(day(10))
    assert requests_of(world, "freshness_sensor") == [], "the same data would give the same model"


def test_age_is_no_reason_where_the_policy_names_none(world: World) -> None:
    world.add()
    world.store_features(*days(1, 6))
    world.promote(day(6))
    world.store_features(*days(7, 40))
    assert requests_of(world, "freshness_sensor") == []


# -- schedules ------------------------------------------------------------------------------------


def at(n: int) -> datetime:
    return datetime(2024, 2, n, 6, tzinfo=UTC)


def test_a_schedule_requests_once_for_each_model_and_tick_time(stored_world: World) -> None:
    for name in ("churn", "sales"):
        stored_world.add(name, retrain={"schedule": "0 6 * * *"})
        stored_world.store_features(*days(1, 6), name=name)
    requests = stored_world.loop.evaluate_schedule("retrain_at_0_6_x_x_x", at(1))
    assert [request.tags["retrain/model"] for request in requests] == ["churn", "sales"]
    assert {request.tags["retrain/trigger"] for request in requests} == {"schedule"}
    assert {request.partition_key for request in requests} == {day(6)}
    assert stored_world.loop.evaluate_schedule("retrain_at_0_6_x_x_x", at(1)) == []
    assert len(stored_world.loop.evaluate_schedule("retrain_at_0_6_x_x_x", at(2))) == 2


def test_models_with_the_same_cron_share_a_schedule_and_others_have_their_own(
    world: World,
) -> None:
    world.add("churn", retrain={"schedule": "0 6 * * 1"})
    world.add("sales", retrain={"schedule": "0  6 * * 1"})
    world.add("stock", retrain={"schedule": "0 6 * * 1", "timezone": "Europe/Paris"})
    schedules = world.loop.definitions.get_repository_def().schedule_defs
    assert {(schedule.cron_schedule, schedule.execution_timezone) for schedule in schedules} == {
        ("0 6 * * 1", "UTC"), ("0 6 * * 1", "Europe/Paris"),
    }  # fmt: skip
    assert len(schedules) == 2


def test_a_schedule_waits_for_data_and_for_a_retraining_in_flight(stored_world: World) -> None:
    stored_world.add(retrain={"schedule": "0 6 * * *"})
    assert stored_world.loop.evaluate_schedule("retrain_at_0_6_x_x_x", at(1)) == []
    stored_world.store_features(*days(1, 6))
    with stored_world.retraining_in_flight(day(6)):
        assert stored_world.loop.evaluate_schedule("retrain_at_0_6_x_x_x", at(2)) == []
    assert len(stored_world.loop.evaluate_schedule("retrain_at_0_6_x_x_x", at(3))) == 1


# -- broken specs ---------------------------------------------------------------------------------


def test_a_broken_spec_is_quarantined_and_the_others_load(world: World) -> None:
    world.add("churn")
    world.add("sales", target=None, gate={"metric": "aucc"})
    world.say(partitions=days(1, 2))
    (request,) = requests_of(world, "arrivals")
    assert models_of(request) == "churn"
    keys = world.loop.definitions.resolve_all_asset_keys()
    assert dg.AssetKey(["quarantine", "sales"]) in keys
    assert not [key for key in keys if key.path[0] == "sales"]
    run = world.materialize([dg.AssetKey(["quarantine", "sales"])], None)
    assert not run.success
    assert "gate.metric: " in run.error
    assert "target" in run.error


def test_only_broken_specs_still_load_as_a_code_location(world: World) -> None:
    world.add("sales", target=None)
    definitions = world.loop.definitions
    definitions.get_repository_def()
    assert definitions.resolve_all_asset_keys() == [dg.AssetKey(["quarantine", "sales"])]
