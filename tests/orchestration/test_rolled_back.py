"""A version that a person took down does not come back by itself."""

from orchestration.harness import World, day

from retrain_assets.promotion.rollback import roll_back


def test_a_rolled_back_version_is_not_promoted_again_by_the_same_data(world: World) -> None:
    world.add(gate={"min_gain": -1.0})
    first = world.first_champion()
    world.ingest(day(7))
    assert world.retrain(day(7)).success
    second = world.champion()
    assert second.version != first.version
    common = {"registry": world.platform.registry, "ledger": world.platform.ledger}
    roll_back("churn", to_version=None, actor="anna", reason="complaints", **common)
    again = world.retrain(day(7))
    assert not again.success
    assert not again.rejected
    assert "was rolled back by anna" in again.error
    assert "complaints" in again.error
    assert world.champion().version == first.version
    roll_back("churn", to_version=second.version, actor="anna", reason="false alarm", **common)
    assert world.champion().version == second.version
    assert world.retrain(day(7)).success
