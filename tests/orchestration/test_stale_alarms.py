"""An alarm speaks of the champion it was measured against."""

import pytest
from orchestration.harness import World, day, days


@pytest.mark.parametrize("lost_cursor", [False, True])
@pytest.mark.parametrize(("reference", "requests"), [("champion v{v}", 1), ("champion v0", 0)])
def test_only_an_alarm_about_the_present_champion_retrains(
    world: World, lost_cursor: bool, reference: str, requests: int
) -> None:
    world.add()
    world.store_features(*days(1, 6))
    world.promote(day(6))
    version = world.champion().version
    assert version != "0"
    world.report("drift_report", day(6), alarm=False, reference=f"champion v{version}")
    assert world.loop.evaluate("drift_sensor") == []
    world.store_features(day(7))
    world.report("drift_report", day(7), alarm=True, reference=reference.format(v=version))
    loop = (world.restarted() if lost_cursor else world).loop
    assert len(loop.evaluate("drift_sensor")) == requests
