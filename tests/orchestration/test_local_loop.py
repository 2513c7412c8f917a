"""A model's life, tick by tick, through the real sensors, assets, gate, ledger and registry."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from orchestration import sources
from orchestration.harness import World, day, days, succeeded

from retrain_assets.orchestration.keys import STAGES, asset_key
from retrain_assets.spec.partitions import PartitionScheme


def test_a_model_lives_from_its_first_day_to_a_retraining_because_of_drift(world: World) -> None:
    world.add()
    champion = world.first_champion()
    assert champion.version == "1"
    assert champion.partition == day(6)
    assert world.loop.tick() == [], "nothing new, so nothing may be requested"

    world.say(partitions=days(1, 9))
    (monitor,) = succeeded(world.loop.tick())
    assert monitor.source == "arrivals"

    world.say(partitions=days(1, 14), drift_from=day(10))
    done = succeeded(world.loop.tick())
    assert [run.source for run in done] == ["arrivals", "drift_sensor"]
    assert done[1].request.tags["retrain/trigger"] == "drift"
    assert done[1].request.partition_key == day(14)
    assert [row.version for row in world.platform.ledger.history("churn")] == ["1", "2"]
    assert world.champion().partition == day(14)
    assert world.platform.registry.aliases("churn") == {
        "candidate": "2", "champion": "2", "previous": "1",
    }  # fmt: skip
    assert world.loop.tick() == []


def test_after_a_retraining_drift_is_measured_against_the_new_champion(world: World) -> None:
    world.add()
    world.say(drift_from=day(10))
    world.first_champion()
    succeeded(world.ingest(*days(7, 14)))
    (alarmed,) = succeeded(world.loop.tick("drift_sensor"))
    assert alarmed.request.partition_key == day(14)
    before = world.platform.store.read_json("churn", "drift_report", day(14))
    succeeded(world.ingest(day(15)))
    after = world.platform.store.read_json("churn", "drift_report", day(15))
    assert (before["reference"], before["verdict"]) == ("champion v1", "drifted")
    assert (after["reference"], after["verdict"]) == ("champion v2", "stable")


def test_a_scheduled_retraining_runs_through(stored_world: World) -> None:
    world = stored_world
    world.add(retrain={"schedule": "0 6 * * *"}, gate={"on_reject": "keep"})
    succeeded(world.ingest(*days(1, 7)))
    (request,) = world.loop.evaluate_schedule(
        "retrain_at_0_6_x_x_x", datetime(2024, 2, 1, 6, tzinfo=UTC)
    )
    assert world.loop.execute("schedule", request).success
    assert world.champion().partition == day(7)


@pytest.mark.parametrize("every", ["hour", "week", "month"])
def test_partitions_of_every_length_lead_to_a_champion(world: World, every: Any) -> None:
    world.add(partitions={"every": every})
    scheme = world.specs.models["churn"].spec.scheme
    assert isinstance(scheme, PartitionScheme)
    keys = scheme.keys()[:6]
    succeeded(world.ingest(*keys))
    succeeded(world.loop.tick("freshness_sensor"))
    assert world.champion().partition == keys[-1]
    for stage in STAGES[:3]:
        assert world.materialized(stage) == set(keys)


@pytest.mark.parametrize("task", ["multiclass", "regression", "ranking"])
def test_every_task_leads_to_a_champion_and_to_a_better_one_after_drift(
    world: World, task: str
) -> None:
    train = {"group": "query"} if task == "ranking" else {}
    world.add(task=task, train=train)
    world.say(drift_from=day(10))
    assert world.first_champion().metric == world.specs.models["churn"].spec.metric
    succeeded(world.ingest(*days(7, 14)))
    (retrained,) = succeeded(world.loop.tick("drift_sensor"))
    assert retrained.request.tags["retrain/trigger"] == "drift"
    assert world.champion().version == "2"


# -- without partitions ---------------------------------------------------------------------------


def write_table(world: World, version: int, *, drifted: bool = False) -> Path:
    """One file with the rows of six days, different in every version."""
    world.say(version=f"v{version}", drift_from="v" if drifted else None)
    frames = [
        sources.load(None, str(world.folder), rows=100 * (1 + version)).assign(order=part)
        for part in range(2)
    ]
    path = world.folder / "table.parquet"
    pd.concat(frames).to_parquet(path)
    return path


@pytest.fixture
def table_world(world: World) -> World:
    world.add(
        partitions="none",
        source={"python": None, "available": None, "options": None, "files": "../table.parquet"},
        train={"window": None, "min_window": None, "holdout": 0.3},
    )
    return world


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(table_world: World) -> None:
    write_table(table_world, 1)
    (first,) = succeeded(table_world.loop.tick("arrivals"))
    assert first.request.partition_key is None
    assert table_world.loop.tick("arrivals") == []
    write_table(table_world, 2)
    succeeded(table_world.loop.tick("arrivals"))
    assert table_world.platform.store.describe("churn", "features", None).rows == 600


def test_a_table_without_partitions_leads_to_a_champion_and_drift_to_the_next(
    table_world: World,
) -> None:
    write_table(table_world, 1)
    monitor, first = succeeded(table_world.loop.tick())
    assert (monitor.source, first.source) == ("arrivals", "freshness_sensor")
    assert table_world.champion().version == "1"
    assert table_world.loop.tick() == []
    write_table(table_world, 2, drifted=True)
    monitor, second = succeeded(table_world.loop.tick())
    assert (monitor.source, second.source) == ("arrivals", "drift_sensor")
    assert table_world.champion().version == "2"
    assert table_world.loop.tick() == []


def test_a_retraining_without_partitions_reads_the_source_again(table_world: World) -> None:
    write_table(table_world, 1)
    succeeded(table_world.loop.tick("arrivals"))
    write_table(table_world, 2)
    (run,) = succeeded(table_world.loop.tick("freshness_sensor"))
    assert set(run.request.asset_selection or ()) == {asset_key("churn", s) for s in STAGES}
    assert table_world.platform.store.describe("churn", "raw_data", None).rows == 600


# -- the loop itself ------------------------------------------------------------------------------


def test_a_failed_run_is_reported_with_the_message_of_its_first_failed_step(world: World) -> None:
    world.add()
    world.say(bad={"churn": [day(1)]})
    (run,) = world.ingest(day(1))
    assert not run.success
    assert run.error.startswith(f"churn raw_data {day(1)}")


def test_numbers_of_every_partition_of_a_range_are_in_its_own_metadata(world: World) -> None:
    world.add()
    world.say(drift_from=day(6))
    world.first_champion(5)
    succeeded(world.ingest(day(6), day(7)))
    records = world.instance.fetch_materializations(asset_key("churn", "drift_report"), limit=10)
    by_day: dict[str, Any] = {}
    for record in records.records:
        assert record.asset_materialization is not None
        assert record.partition_key is not None
        by_day[record.partition_key] = record.asset_materialization.metadata
    assert set(by_day) == set(days(1, 7))
    alarms = {key: metadata["alarm"].value for key, metadata in by_day.items()}
    assert alarms == {key: key >= day(6) for key in days(1, 7)}
    scores = [by_day[key]["drift_score"].value for key in days(6, 7)]
    assert all(np.isfinite(scores))
    assert min(scores) > by_day[day(4)]["drift_score"].value
    # Without a champion there is nothing that could predict.
    assert {key for key in by_day if "prediction_drift" in by_day[key]} == set(days(6, 7))
    assert min(by_day[key]["prediction_drift"].value for key in days(6, 7)) > 1
    assert all(np.isfinite(by_day[key]["label_drift"].value) for key in days(6, 7))
