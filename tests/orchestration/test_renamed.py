"""A model under its new name goes on: no first training, the same champion to compare with."""

from orchestration.harness import World, day, days, succeeded

from retrain_assets.promotion.candidate import Candidate


def test_a_renamed_model_goes_on_with_its_champion(world: World) -> None:
    world.add()
    before = world.first_champion()
    (world.specs_folder / "churn.yaml").unlink()
    later = world.restarted()
    later.add("leavers", renamed_from="churn", source={"options": {"name": "churn"}})

    succeeded(later.ingest(day(7)))
    report = later.platform.store.read_json("leavers", "drift_report", day(7))
    assert report["reference"].startswith("champion v1")
    champion = later.champion("leavers")
    assert (champion.fingerprint, champion.promoted_at) == (before.fingerprint, before.promoted_at)
    assert later.materialized("features", "leavers") == set(days(1, 7))
    assert later.loop.tick("freshness_sensor") == []

    done = later.retrain(day(7), "leavers")
    assert done.success or done.rejected, done.error
    candidate = Candidate.stored(later.platform.store, "leavers", day(7))
    assert candidate.champion_version == "1"


def test_before_it_has_taken_over_no_first_training_is_asked_for(world: World) -> None:
    world.add()
    world.first_champion()
    (world.specs_folder / "churn.yaml").unlink()
    later = world.restarted()
    later.add("leavers", renamed_from="churn")
    later.store_features(*days(1, 7), name="leavers")
    assert later.loop.evaluate("freshness_sensor") == []
    later.loop.evaluate("champion_sensor")
    assert later.champion("leavers").version == "1"
    assert later.platform.registry.aliases("leavers")["champion"] == "1"
