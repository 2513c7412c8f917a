"""`retrain.inline`: the monitor run decides and goes on; the sensors decide the same, and not twice."""

import dagster as dg
import pytest
from orchestration.harness import World, day, days, succeeded
from orchestration.test_batched_runs import carried

from retrain_assets.orchestration.keys import Tag

SENSORS = ("drift_sensor", "freshness_sensor")
POLICY = {"max_age": "3d", "cooldown": "2d"}


def decisions(world: World, name: str = "churn") -> list[tuple[object, ...]]:
    """What was decided, oldest first, without what differs from run to run."""
    rows = world.platform.decisions.last(name, 99)[::-1]
    return [(row.partition, row.action, row.trigger, row.reasons) for row in rows]


def champions(world: World, name: str = "churn") -> list[tuple[str | None, str]]:
    return [(row.partition, row.kind) for row in world.platform.ledger.history(name)]


def test_both_ways_decide_the_same_on_the_same_partitions(world: World) -> None:
    for name in ("churn", "sales"):
        world.add(name, retrain={**POLICY, "inline": name == "sales"})
    world.say(drift_from=day(9))
    succeeded(world.ingest(*days(1, 3)))
    world.loop.tick(*SENSORS)
    for n in range(4, 14):
        world.ingest(day(n))
        for _ in range(2):
            for sensor in SENSORS:
                for run in world.loop.tick(sensor):
                    assert carried([run.request]) == ["churn"], (
                        "sales has decided already",
                        day(n),
                        sensor,
                        run.request.tags,
                        decisions(world, "sales")[-4:],
                        champions(world, "sales"),
                        world.platform.decisions.judgements("sales")[-2:],
                    )
    assert decisions(world, "sales") == decisions(world, "churn")
    assert champions(world, "sales") == champions(world, "churn")
    kinds = {row[1:3] for row in decisions(world, "sales")}
    assert ("retrain", "first") in kinds
    assert ("retrain", "drift") in kinds
    assert any(action == "wait" for action, _ in kinds)


def test_without_a_reason_the_run_is_green_and_trains_nothing(world: World) -> None:
    world.add(retrain={"inline": True})
    world.first_champion()
    (run,) = succeeded(world.ingest(day(7)))
    assert run.request.tags[Tag.INLINE] == "asked"
    assert world.materialized("candidate_model") == {day(6)}
    assert world.versions() == ["1"]


def test_a_backlog_goes_the_sensors_way(world: World) -> None:
    world.add(retrain={"inline": True})
    (run,) = succeeded(world.ingest(*days(1, 6)))
    assert Tag.INLINE not in run.request.tags
    assert world.platform.ledger.champion("churn") is None
    succeeded(world.loop.tick("freshness_sensor"))
    assert world.champion().partition == day(6)


def test_the_steps_say_why_and_the_judgement_finds_its_decision(world: World) -> None:
    world.add(retrain={"inline": True})
    succeeded(world.ingest(*days(1, 3)))
    (run,) = succeeded(world.ingest(day(4)))
    (entry,) = [one for one in world.platform.decisions.last("churn", 9) if one.trigger == "first"]
    (judgement,) = world.platform.decisions.judgements("churn")
    assert judgement.state == entry.state
    assert judgement.run_id == run.result.run_id
    stored = world.instance.get_run_by_id(run.result.run_id)
    assert stored is not None
    assert stored.tags[Tag.trigger("churn")] == "first"
    assert stored.tags[Tag.INLINE] == "retrain"


def test_training_follows_the_report_in_the_same_run_with_nothing_in_between(world: World) -> None:
    world.add(retrain={"inline": True})
    succeeded(world.ingest(*days(1, 3)))
    (run,) = succeeded(world.ingest(day(4)))
    started = [
        entry.step_key
        for entry in world.instance.all_logs(
            run.result.run_id, of_type=dg.DagsterEventType.STEP_START
        )
    ]
    report = started.index("churn__drift_report")
    assert started[report + 1 :] == ["churn__candidate_model", "churn__promoted_model"]


def test_while_the_run_goes_on_the_sensors_leave_it_to_it(world: World) -> None:
    world.add(retrain={"inline": True})
    world.store_features(*days(1, 6))
    keys = [*world.loop.definitions.resolve_all_asset_keys()]
    with world._in_flight(
        [key for key in keys if key.path[-1] != "policy_replay"],
        {Tag.KIND: "monitor", Tag.INLINE: "asked"},
    ):
        for sensor in SENSORS:
            assert world.loop.evaluate(sensor) == []
        assert decisions(world) == [], "no row for what is decided there"
    assert len(world.loop.evaluate("freshness_sensor")) == 1


def test_a_training_that_fails_inline_is_the_first_attempt_of_the_sensors_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrain_assets.orchestration import deciding

    world.add(retrain={"inline": True}, train={"params": {"no_such_parameter": 1}})
    succeeded(world.ingest(*days(1, 3)))
    (run,) = world.ingest(day(4))
    assert not run.success
    assert world.loop.evaluate("freshness_sensor") == [], "not due yet"
    monkeypatch.setattr(deciding, "RETRY_AFTER_SECONDS", (0, 3600))
    (request,) = world.loop.evaluate("freshness_sensor")
    assert request.run_key is not None
    assert request.run_key.endswith("|2")


def test_inline_needs_partitions(world: World) -> None:
    world.add(
        partitions="none",
        train={"window": None, "min_window": None, "holdout": 0.3},
        retrain={"inline": True, "schedule": "0 6 * * *"},
    )
    (broken,) = world.specs.broken
    assert "retrain.inline" in str(broken.problems)
