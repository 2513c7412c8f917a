"""Retrainings of many models in one run: who shares it, and what stays each model's own."""

from datetime import UTC, datetime

import dagster as dg
import pytest
from orchestration.harness import World, day, days, succeeded

from retrain_assets.orchestration import deciding
from retrain_assets.orchestration.keys import Tag
from retrain_assets.orchestration.status import status_rows
from retrain_assets.orchestration.why import explained

NAMES = ["a1", "a2", "a3"]


@pytest.fixture
def one_run(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which one run may go on at once."""
    monkeypatch.setenv("RETRAIN_PARALLEL_RUNS", "1")
    return world


def stored(world: World, *names: str) -> None:
    for name in names:
        world.store_features(*days(1, 6), name=name)


def carried(requests: list[dg.RunRequest]) -> list[str]:
    """The models of each run."""
    return [r.tags.get(Tag.MODELS) or r.tags[Tag.MODEL] for r in requests]


def submitted(world: World, request: dg.RunRequest) -> dg.DagsterRun:
    """The run as the daemon puts it into the queue."""
    return world.instance.create_run_for_job(
        world.loop.definitions.resolve_implicit_global_asset_job_def(),
        asset_selection=frozenset(request.asset_selection or ()),
        tags=request.tags,
    )


def test_models_of_the_same_partition_share_a_run_with_tags_of_their_own(one_run: World) -> None:
    for name in NAMES:
        one_run.add(name)
    stored(one_run, *NAMES)
    (request,) = one_run.loop.evaluate("freshness_sensor")
    assert carried([request]) == ["a1,a2,a3"]
    assert request.partition_key == day(6)
    assert len(request.asset_selection or ()) == 6
    for name in NAMES:
        (entry,) = one_run.platform.decisions.last(name, 9)
        assert request.tags[Tag.decision(name)] == entry.state
        assert request.tags[Tag.trigger(name)] == "first"
    assert one_run.loop.evaluate("freshness_sensor") == []


def test_a_model_with_a_request_for_memory_goes_alone(one_run: World) -> None:
    for name in NAMES:
        big = {"resources": {"candidate_model": {"memory": "4Gi"}}} if name == "a2" else {}
        one_run.add(name, **big)
    stored(one_run, *NAMES)
    assert sorted(carried(one_run.loop.evaluate("freshness_sensor"))) == ["a1,a3", "a2"]


def test_a_schedule_batches_too(stored_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIN_PARALLEL_RUNS", "1")
    for name in NAMES:
        stored_world.add(name, retrain={"schedule": "0 6 * * *"})
    stored(stored_world, *NAMES)
    at = datetime(2024, 2, 1, 6, tzinfo=UTC)
    requests = stored_world.loop.evaluate_schedule("retrain_at_0_6_x_x_x", at)
    assert carried(requests) == ["a1,a2,a3"]


def test_a_model_that_fails_neither_stops_nor_hides_the_others_and_is_tried_again_alone(
    one_run: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        broken = {"train": {"params": {"no_such_parameter": 1}}} if name == "a2" else {}
        one_run.add(name, **broken)
    succeeded(one_run.ingest(*days(1, 6)))
    monkeypatch.setattr(deciding, "RETRY_AFTER_SECONDS", (0, 3600))
    (run,) = one_run.loop.tick("freshness_sensor")
    assert not run.success
    assert one_run.champion("a1").version == one_run.champion("a3").version == "1"

    rows = {
        row.model: row for row in status_rows(one_run.instance, one_run.platform, one_run.specs)
    }
    assert [rows[name].state for name in NAMES] == ["healthy", "failing", "healthy"]
    judgements = one_run.platform.decisions.judged(NAMES)
    assert set(judgements) == {"a1", "a3"}
    for name, judgement in judgements.items():
        (entry,) = one_run.platform.decisions.last(name, 1)
        assert explained(entry, judgement, {}, {}).verdict == "promote"
        assert judgement.state == entry.state, "its own decision, not the run's"

    (again,) = one_run.loop.evaluate("freshness_sensor")
    assert carried([again]) == ["a2"]
    assert again.run_key is not None
    assert again.run_key.endswith("|2")


def test_a_tick_requests_a_bounded_number_and_serves_the_others_next(
    one_run: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrain_assets.orchestration import sensors

    monkeypatch.setattr(sensors, "_MAX_RETRAININGS_PER_TICK", 2)
    for name in NAMES:
        one_run.add(name)
    stored(one_run, *NAMES)
    (first,) = one_run.loop.evaluate("freshness_sensor")
    submitted(one_run, first)
    (second,) = one_run.loop.evaluate("freshness_sensor")
    assert carried([first, second]) == ["a1,a2", "a3"]


def test_the_budget_counts_what_ran_together_with_others(one_run: World) -> None:
    for name in NAMES:
        one_run.add(name, retrain={"budget": {"runs_per_week": 1}, "max_age": "1d"})
        one_run.store_features(*days(1, 6), name=name)
    (request,) = one_run.loop.evaluate("freshness_sensor")
    one_run.instance.report_run_canceled(submitted(one_run, request))
    for name in NAMES:
        one_run.promote(day(6), name)
        one_run.store_features(*days(7, 9), name=name)
    assert one_run.loop.evaluate("freshness_sensor") == []
    (entry, *_) = one_run.platform.decisions.last("a1", 1)
    assert "1 of 1 retrainings" in entry.reasons[-1]
