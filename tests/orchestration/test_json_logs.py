"""The lines that a run process writes for log collectors, as they come out of it."""

import json
from typing import Any

import yaml
from orchestration.harness import World, day
from orchestration.processes import run_python, write_project

from retrain_assets.orchestration import logs

_CONFIG = logs.__doc__.split("\n\n")[1]  # type: ignore[union-attr]
SECRET = "Hunter2-in-a-url"


def lines_of(world: World, selection: str, partition: str) -> list[dict[str, Any]]:
    done = run_python(
        world,
        ["-m", "dagster", "asset", "materialize", "-f", "definitions.py",
         "--select", selection, "--partition", partition],
        {"RETRAIN_LEDGER_URL": f"postgresql+psycopg2://retrain:{SECRET}@127.0.0.1:1/ledger"},
    )  # fmt: skip
    assert SECRET not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_line_is_an_object_that_says_which_model_partition_and_run(
    stored_world: World,
) -> None:
    world = stored_world
    home = world.folder / "dagster" / "dagster.yaml"
    home.write_text(home.read_text() + yaml.safe_dump(yaml.safe_load(_CONFIG)))
    world.add()
    world.say(partitions=[day(1)])
    write_project(world)
    # The ledger is away: raw_data and features succeed, drift_report fails.
    lines = lines_of(world, "churn/raw_data,churn/features,churn/drift_report", day(1))
    events = {(line.get("asset", ""), line.get("event", "")) for line in lines}
    for asset in ("churn/raw_data", "churn/features"):
        for event in ("STEP_START", "ASSET_MATERIALIZATION", "STEP_SUCCESS"):
            assert (asset, event) in events
    assert ("", "PIPELINE_START") in events
    (run,) = {line["run"] for line in lines if "run" in line}
    assert world.instance.get_run_by_id(run) is not None
    of_steps = [line for line in lines if "asset" in line]
    assert {(line["model"], line["partition"]) for line in of_steps} == {("churn", day(1))}
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    (failed,) = [line for line in lines if line.get("event") == "STEP_FAILURE"]
    assert (failed["level"], failed["asset"]) == ("ERROR", "churn/drift_report")
    assert "LedgerError" in failed["error"] or "ledger" in failed["error"]
