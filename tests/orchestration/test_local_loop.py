"""A model's life, tick by tick, through the real sensors, assets, gate, ledger and registry."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest
from orchestration.harness import World, day, days, succeeded

from retrain_assets.orchestration.keys import CHECKS, asset_key
from retrain_assets.promotion.candidate import Candidate, load_evidence
from retrain_assets.spec.model import ModelSpec


def test_a_model_lives_from_its_first_day_to_a_retraining_because_of_drift(world: World) -> None:
    world.add()
    champion = world.first_champion()
    assert champion.version == "1"
    assert champion.partition == day(6)

    quiet = world.loop.tick()
    assert quiet == [], "nothing new, so nothing may be requested"

    world.say(partitions=days(1, 9))
    (monitor,) = succeeded(world.loop.tick())
    assert monitor.source == "arrivals"

    world.say(partitions=days(1, 14), drift_from=day(10))
    done = world.loop.tick()
    assert [run.source for run in done] == ["arrivals", "drift_sensor"]
    succeeded(done)
    assert done[1].request.tags["retrain/trigger"] == "drift"
    assert world.champion().version == "2"
    assert world.champion().partition == day(14)
    assert world.platform.registry.aliases("churn") == {
        "candidate": "2", "champion": "2", "previous": "1",
    }  # fmt: skip
    assert world.loop.tick() == []
