"""`retrain now` and the job `retrain_now`: what a person asks for, as batched runs on the instance."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from orchestration.harness import World, day, days

from retrain_assets.errors import RequestError
from retrain_assets.fleet.request import chosen
from retrain_assets.orchestration.keys import Tag

TESTS = Path(__file__).parent.parent


def fleet(world: World, **second: object) -> None:
    for name in ("a1", "a2", "a3"):
        world.add(name, group="shops", **(second if name == "a2" else {}))  # type: ignore[arg-type]
        world.store_features(*days(1, 6), name=name)


def ask(world: World, **config: object) -> dg.ExecuteInProcessResult:
    """What the Launchpad does."""
    job = world.loop.definitions.get_repository_def().get_job("retrain_now")
    return job.execute_in_process(
        instance=world.instance,
        run_config={
            "ops": {"ask": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


def test_the_job_is_answered_once_with_batched_runs_on_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIN_PARALLEL_RUNS", "2")
    fleet(world)
    assert world.loop.evaluate("on_demand_sensor") == []
    result = ask(world, group="shops")
    assert result.success
    requests = world.loop.evaluate("on_demand_sensor")
    asked = [r.tags.get(Tag.MODELS, r.tags.get(Tag.MODEL)) for r in requests]
    assert asked == ["a1", "a2,a3"]
    assert {request.partition_key for request in requests} == {day(6)}
    for name in ("a1", "a2", "a3"):
        (entry,) = world.platform.decisions.last(name, 9)
        assert (entry.action, entry.trigger) == ("retrain", "on_demand")
    assert world.loop.evaluate("on_demand_sensor") == []
    again = world.restarted()
    again.loop.run_keys = world.loop.run_keys
    assert again.loop.evaluate("on_demand_sensor") == [], "a lost cursor asks for the same keys"
    assert len(world.platform.decisions.last("a1", 9)) == 1


def test_a_partition_that_is_named_is_the_one_that_is_trained(world: World) -> None:
    fleet(world)
    assert ask(world, models=["a1"], partition=day(5)).success
    (request,) = world.loop.evaluate("on_demand_sensor")
    assert request.partition_key == day(5)


def test_unknown_models_are_named_before_anything_runs(world: World) -> None:
    fleet(world)
    assert not ask(world, models=["nobody"]).success
    assert world.loop.evaluate("on_demand_sensor") == []
    specs = {spec.name: spec for spec in world.specs.specs()}
    with pytest.raises(RequestError, match="no model named nobody; known: a1, a2, a3"):
        chosen(specs, ["nobody"], None, None)
    with pytest.raises(RequestError, match="no group named cars; known: shops"):
        chosen(specs, [], "cars", None)
    with pytest.raises(RequestError, match="nothing is chosen"):
        chosen(specs, [], None, None)
    with pytest.raises(RequestError, match="a1: '2024-13-01' is not a partition key"):
        chosen(specs, ["a1"], None, "2024-13-01")


def retrain_now(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = world.settings.home
    (home / "dagster").mkdir(exist_ok=True)
    environment = {
        **os.environ, "RETRAIN_HOME": str(home), "DAGSTER_HOME": world.instance.root_directory,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "retrain_assets.cli", "now", *arguments, "--specs",
         str(world.specs_folder)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_command_retrains_side_by_side_and_one_failure_hides_nobody(
    stored_world: World,
) -> None:
    fleet(stored_world, train={"params": {"no_such_parameter": 1}})
    stored_world.say(partitions=days(1, 6))
    runs = stored_world.loop.evaluate("arrivals")
    for request in runs:
        assert stored_world.loop.execute("arrivals", request).success
    snapshot = stored_world.settings.home / "status.json"
    snapshot.write_text("of before", encoding="utf-8")
    done = retrain_now(stored_world, "--group", "shops", "--jobs", "2", "--json")
    assert not snapshot.exists(), "the next `retrain status` reads what has come of it"
    assert done.returncode == 1, done.stderr
    rows = {row["model"]: row for row in json.loads(done.stdout)["models"]}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "a1": "promoted", "a2": "failed", "a3": "promoted",
    }  # fmt: skip
    assert "no_such_parameter" in rows["a2"]["said"]
    assert rows["a1"]["cpu_seconds"] > 0
    assert stored_world.champion("a3").partition == day(6)
    recorded = stored_world.instance.get_run_records(
        filters=dg.RunsFilter(tags={Tag.KIND: "retrain", Tag.TRIGGER: "on_demand"})
    )
    assert len(recorded) == 2
    (entry,) = stored_world.platform.decisions.last("a1", 1)
    (judgement,) = stored_world.platform.decisions.judgements("a1")
    assert judgement.state == entry.state


def test_the_process_that_waits_for_the_workers_does_without_dagster() -> None:
    code = (
        "import sys, retrain_assets.cli, retrain_assets.fleet.request, retrain_assets.orchestration.now;"
        "print(sorted({'dagster', 'mlflow', 'pandas', 'numpy', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
