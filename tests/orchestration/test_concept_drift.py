"""What only performance shows: labels turn round while the features stay as they were."""

import dagster as dg
from orchestration.harness import World, day, days, succeeded

from retrain_assets.orchestration.keys import asset_key
from retrain_assets.orchestration.why import explain

POLICY = {"on_performance": {"max_drop": 0.1}, "cooldown": "2d"}


def report(world: World) -> dict[str, object]:
    """Metadata of the newest drift report."""
    (record,) = world.instance.fetch_materializations(
        asset_key("churn", "drift_report"), limit=1
    ).records
    assert record.asset_materialization is not None
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def test_concept_drift_retrains_and_promotes_although_no_feature_moved(world: World) -> None:
    world.add(retrain=POLICY, train={"label_delay": 1})
    world.first_champion(until=7)
    world.say(flip_from=day(8))
    succeeded(world.ingest(*days(8, 13)))
    assert world.loop.evaluate("drift_sensor") == [], "no feature has drifted"
    values = report(world)
    assert values["realised_on"] == day(12), "labels are a day late"
    assert isinstance(values["realised/roc_auc"], float)
    assert values["realised/roc_auc"] < 0.3
    assert isinstance(values["estimated/roc_auc"], float)
    assert values["estimated/roc_auc"] > 0.7, "an estimate cannot see it"
    (run,) = succeeded(world.loop.tick("freshness_sensor"))
    assert run.request.tags["retrain/trigger"] == "performance"
    assert world.champion().version == "2"
    assert world.loop.tick("freshness_sensor", "drift_sensor") == []
    decided = world.platform.decisions.last("churn", 9)
    (asked,) = [one for one in decided if one.trigger == "performance"]
    (judged,) = [j for j in world.platform.decisions.judgements("churn") if j.version == "2"]
    assert judged.state == asked.state, "what came of the decision is found by it"
    assert judged.verdict == "promote"
    assert judged.expected_gain is not None
    assert judged.expected_gain > 0.3
    assert judged.compute_seconds is not None
    assert judged.compute_seconds > 0
    told = explain(world.platform, "churn", 9)
    (about,) = [one for one in told if one.trigger == "performance"]
    assert (about.verdict, about.version) == ("promote", "2")
    assert about.run_id == run.result.run_id


def test_a_stable_stream_retrains_nothing_and_says_why_once(world: World) -> None:
    world.add(retrain=POLICY)
    world.first_champion(until=6)
    succeeded(world.ingest(*days(7, 11)))
    for _ in range(3):
        assert world.loop.tick("drift_sensor", "freshness_sensor") == []
    newest, *earlier = world.platform.decisions.last("churn", 9)
    assert (newest.action, newest.trigger, newest.partition) == ("wait", None, day(11))
    assert newest.reasons[0] == "no trigger fired"
    assert "realised roc_auc" in " ".join(newest.reasons)
    assert not [one for one in earlier if one.partition == day(11)], "three ticks, one row"


def test_bad_newest_data_holds_a_retraining_back_until_it_is_mended(world: World) -> None:
    world.add(retrain={"max_age": "1d"})
    world.first_champion(until=6)
    succeeded(world.ingest(day(7), day(8)))
    world.say(bad={"churn": [day(9)]})
    (failed,) = world.ingest(day(9))
    assert not failed.success
    assert world.loop.evaluate("freshness_sensor") == []
    held = world.platform.decisions.last("churn", 1)[0]
    assert held.trigger == "age"
    assert "but the newest data is bad" in held.reasons[-1]
    world.say(bad={})
    keys = [asset_key("churn", stage) for stage in ("raw_data", "features", "drift_report")]
    assert world.materialize(keys, day(9)).success
    requests = world.loop.evaluate("freshness_sensor")
    assert [request.partition_key for request in requests] == [day(9)]


def test_without_the_ledger_a_tick_skips_with_the_reason(world: World) -> None:
    world.add(retrain={"max_age": "1d"})
    world.store_features(*days(1, 6))
    world.settings.home.mkdir(exist_ok=True)
    (world.settings.home / "ledger.db").mkdir()
    repository = world.loop.definitions.get_repository_def()
    context = dg.build_sensor_context(
        instance=world.instance,
        repository_def=repository,
        resources={"platform": world.platform},
        sensor_name="freshness_sensor",
    )
    data = repository.get_sensor_def("freshness_sensor").evaluate_tick(context)
    assert data.run_requests == []
    assert str(data.skip_message).startswith("nothing was decided: promotion ledger sqlite:")
