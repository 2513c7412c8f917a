"""Fleets of many models: what a tick reads does not grow, and one bad spec of a thousand is one bad spec."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from orchestration import old_fleet
from orchestration.harness import World, day, days
from orchestration.old_fleet import OldFleet

from retrain_assets.orchestration import arrivals, sensors, turns
from retrain_assets.orchestration.build import build_definitions
from retrain_assets.orchestration.cursors import read_cursor, written_cursor
from retrain_assets.orchestration.keys import asset_key
from retrain_assets.orchestration.local import LocalLoop
from retrain_assets.settings import Settings
from retrain_assets.spec.loading import load_specs

SENSORS = ("arrivals", "drift_sensor", "freshness_sensor", "on_demand_sensor")
STEPS = 50


@dataclass
class Work:
    """What databases did: SQL statements, and sqlite's steps, of which each row that is passed takes a few."""

    statements: int = 0
    steps: int = 0


@contextmanager
def counted() -> Iterator[Work]:
    """The work of all databases that are connected to meanwhile."""
    work = Work()

    def on_connect(connection, _record):
        def passed() -> int:
            work.steps += STEPS
            return 0

        connection.set_progress_handler(passed, STEPS)

    def on_execute(*_):
        work.statements += 1

    sa.event.listen(sa.Engine, "connect", on_connect)
    sa.event.listen(sa.Engine, "before_cursor_execute", on_execute)
    try:
        yield work
    finally:
        sa.event.remove(sa.Engine, "connect", on_connect)
        sa.event.remove(sa.Engine, "before_cursor_execute", on_execute)


def work_of(fleet: OldFleet, sensor: str) -> Work:
    with counted() as work:
        fleet.tick(sensor)
    return work


@contextmanager
def settled(folder: Path, models: int, days: int) -> Iterator[OldFleet]:
    """A fleet whose sensors have seen everything."""
    folder.mkdir()
    fleet = OldFleet(folder, models, days, grouped=True)
    try:
        for sensor in SENSORS:
            for _ in range(8):
                fleet.tick(sensor)
        yield fleet
    finally:
        fleet.instance.dispose()


def ticks(fleet: OldFleet, days: int) -> dict[str, Work]:
    """The work of a tick of each sensor when nothing is new, and when every model has a new report."""
    found = {f"{sensor}, nothing new": work_of(fleet, sensor) for sensor in SENSORS}
    fleet.news(fleet.names, days, alarm=False)
    old_fleet.KEYS.append(fleet.key_of(days))
    return found | {f"{sensor}, all new": work_of(fleet, sensor) for sensor in SENSORS}


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks that look at a tenth of what they would."""
    monkeypatch.setattr(turns, "IN_TURN", 5)
    monkeypatch.setattr(turns, "AT_ONCE", 10)
    monkeypatch.setattr(sensors, "_MAX_LOOKED_BACK", 3)
    monkeypatch.setattr(arrivals, "_MAX_LOOKED_INTO", 5)
    monkeypatch.setattr(arrivals, "_MAX_REPORTS", 15)


def test_a_tick_reads_no_more_with_twenty_times_the_history(tmp_path: Path) -> None:
    with settled(tmp_path / "young", 10, 4) as fleet:
        young = ticks(fleet, 4)
    with settled(tmp_path / "old", 10, 80) as fleet:
        old = ticks(fleet, 80)
    for name, work in young.items():
        assert old[name].statements == work.statements, name
        assert old[name].steps <= 1.25 * work.steps + 500, name


def test_a_tick_reads_no_more_with_three_times_the_models(tmp_path: Path, bounded: None) -> None:
    with settled(tmp_path / "small", 20, 4) as fleet:
        small = ticks(fleet, 4)
    with settled(tmp_path / "large", 60, 4) as fleet:
        large = ticks(fleet, 4)
    for name, work in small.items():
        assert large[name].statements <= work.statements + 5, name


def test_alarms_behind_quiet_reports_are_all_seen_a_few_models_a_tick(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "_MAX_LOOKED_BACK", 1)
    names = ("a1", "b1", "c1")
    for name in names:
        world.add(name)
    for name in names:
        world.store_features(*days(1, 6), name=name)
        world.promote(day(6), name)
        world.report("drift_report", day(6), name, alarm=False)
    assert world.loop.evaluate("drift_sensor") == []
    for name in names:
        world.store_features(day(7), day(8), name=name)
        for n, alarm in ((7, True), (8, False)):
            world.report("drift_report", day(n), name, alarm=alarm)
    found = [world.loop.evaluate("drift_sensor") for _ in names]
    assert [len(requests) for requests in found] == [1, 1, 1]
    asked = {key.path[0] for (one,) in found for key in one.asset_selection or ()}
    assert asked == set(names)


def test_the_cursor_of_a_thousand_models_is_short_and_that_of_a_few_readable() -> None:
    many = {f"model_{n:04}": {"through": "2024-01-01", "asked": {}, "at": n} for n in range(1000)}
    few = dict(list(many.items())[:5])
    assert len(written_cursor(many)) < 10_000
    assert read_cursor(written_cursor(many)) == many
    assert json.loads(written_cursor(few)) == few
    assert read_cursor(None) == {}


TEMPLATE = {
    "partitions": {"every": "day", "start": "2024-01-01", "end": "2024-12-31"},
    "source": {"python": "builtins:print", "available": "orchestration.old_fleet:available"},
    "target": "y",
    "task": "binary",
    "train": {"window": 6, "min_window": 4, "holdout": 2},
    "retrain": {"schedule": "0 6 * * 1"},
}


def test_of_a_thousand_specs_three_are_broken_and_the_others_work(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    rows = [{"name": f"m{n:04}", "group": f"g{n % 7}"} for n in range(990)]
    rows[500]["taks"] = "binary"
    fleet = {"template": TEMPLATE, "for_each": rows}
    (specs / "fleet.yaml").write_text(yaml.safe_dump(fleet), encoding="utf-8")
    for n in range(10):
        document = {"name": f"single_{n}", **TEMPLATE}
        if n == 3:
            document["task"] = "binry"
        text = yaml.safe_dump(document) if n != 4 else "name: single_4\n  task: [binary\n"
        (specs / f"single_{n}.yaml").write_text(text, encoding="utf-8")
    found = load_specs(specs)
    assert len(found.models) == 997
    told = {one.name: (one.file.name, one.row, str(one.problems[0])) for one in found.broken}
    assert set(told) == {"m0500", "single_3", "single_4"}
    assert told["m0500"][:2] == ("fleet.yaml", 501)
    assert "'taks' is used nowhere (did you mean 'task'?)" in told["m0500"][2]
    assert told["single_3"][0] == "single_3.yaml"
    assert "'binry' is not one of binary" in told["single_3"][2]
    assert "not valid YAML" in told["single_4"][2]

    old_fleet.KEYS[:] = ["2024-01-01"]
    (tmp_path / "home").mkdir()
    definitions = build_definitions(found, Settings.load(home=tmp_path / "home"))
    keys = definitions.resolve_asset_graph().get_all_asset_keys()
    assert {key.path[1] for key in keys if key.path[0] == "quarantine"} == {
        "m0500", "single_3", "single_4",
    }  # fmt: skip
    assert {asset_key("m0000", "raw_data"), asset_key("single_9", "promoted_model")} <= set(keys)
    with dg.DagsterInstance.ephemeral() as instance:
        loop = LocalLoop(definitions, instance)
        requested = [request for _ in range(5) for request in loop.evaluate("arrivals")]
        models = {key.path[0] for request in requested for key in request.asset_selection or ()}
        assert models == set(found.models), "ten models a run, 25 runs a tick"
        for sensor in ("drift_sensor", "freshness_sensor"):
            assert loop.evaluate(sensor) == []
