"""Many models that drift at once: one alert and no stampede, until somebody has looked."""

import json
from collections.abc import Callable

import pytest
from orchestration.harness import World, day, days
from orchestration.inbox import Inbox, inbox

__all__ = ["inbox"]  # a fixture of this module, too

NAMES = [f"m{n}" for n in range(6)]


@pytest.fixture
def fleet(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Six models with champions for day 6, of which four alarms are many."""
    monkeypatch.setenv("RETRAIN_SUSPECT_MODELS", "4")
    for name in NAMES:
        world.add(name, alerts=["ops"], group="shops")
        world.store_features(*days(1, 6), name=name)
        world.promote(day(6), name)
        world.report("drift_report", day(6), name, alarm=False)
    assert world.loop.evaluate("drift_sensor") == []
    return world


def land(world: World, n: int, alarmed: list[str]) -> None:
    """Day `n` of all models is ingested and the reports land."""
    for name in NAMES:
        world.store_features(day(n), name=name)
        world.report("drift_report", day(n), name, alarm=name in alarmed)


def retrained(world: World) -> set[str]:
    """Models that the next tick of the drift sensor retrains."""
    found = set()
    for request in world.loop.evaluate("drift_sensor"):
        found |= {key.path[0] for key in request.asset_selection or ()}
    return found


def change_cursor(world: World, change: Callable[[dict[str, object]], None]) -> None:
    cursor = json.loads(world.loop.cursors["drift_sensor"])
    change(cursor)
    world.loop.cursors["drift_sensor"] = json.dumps(cursor)


def test_a_few_alarms_are_answered_as_ever(fleet: World, inbox: Inbox) -> None:
    land(fleet, 7, NAMES[:3])
    assert retrained(fleet) == set(NAMES[:3])
    assert inbox.messages == []


def test_many_alarms_are_one_alert_and_recorded_holds(fleet: World, inbox: Inbox) -> None:
    land(fleet, 7, NAMES[:4])
    for _ in range(3):
        assert retrained(fleet) == set()
    (title,) = inbox.titles
    assert "4 of 6 models of group shops began to drift within 1.0 hours: suspect the data" in title
    for name in NAMES[:4]:
        (entry,) = fleet.platform.decisions.last(name, 9)
        assert (entry.action, entry.trigger) == ("hold", "drift")
        assert "`retrain now --group shops`" in entry.reasons[-1]


def test_the_hold_ends_when_most_alarms_are_gone(fleet: World, inbox: Inbox) -> None:
    land(fleet, 7, NAMES[:4])
    assert retrained(fleet) == set()
    land(fleet, 8, NAMES[:1])
    assert retrained(fleet) == set(NAMES[:4]), "an alarm that was raised is answered"
    assert len(inbox.messages) == 1


def test_the_hold_lapses_and_is_not_raised_again_by_the_same_alarms(
    fleet: World, inbox: Inbox
) -> None:
    land(fleet, 7, NAMES)
    assert retrained(fleet) == set()

    def a_day_ago(cursor: dict[str, object]) -> None:
        suspect = cursor["suspect"]
        reports = cursor["reports"]
        assert isinstance(suspect, dict)
        assert isinstance(reports, dict)
        suspect["shops"][0] -= 86_400
        for name, (at, began) in reports.items():
            reports[name] = [at, began - 86_400]

    change_cursor(fleet, a_day_ago)
    assert retrained(fleet) == set(NAMES)
    assert len(inbox.messages) == 1


def test_what_a_person_retrains_all_the_same_counts_no_more(fleet: World, inbox: Inbox) -> None:
    land(fleet, 7, NAMES[:4])
    assert retrained(fleet) == set()
    fleet.judged(day(7), NAMES[0])
    assert retrained(fleet) == set(NAMES[1:4])
    assert len(inbox.messages) == 1


def test_models_without_many_in_their_own_group_are_not_held(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIN_SUSPECT_MODELS", "4")
    for n, name in enumerate(NAMES):
        world.add(name, group=f"g{n // 3}")
        world.store_features(*days(1, 6), name=name)
        world.promote(day(6), name)
        world.report("drift_report", day(6), name, alarm=False)
    assert retrained(world) == set()
    land(world, 7, NAMES)
    assert retrained(world) == set(NAMES)
