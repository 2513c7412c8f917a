"""A whole monitoring and retraining with every step in its own process, through Dagster's own CLI."""

import dagster as dg
from orchestration.harness import World, day, days
from orchestration.processes import run_python, write_project

from retrain_assets.orchestration.keys import STAGES


def materialize(world: World, stages: tuple[str, ...], partitions: list[str]) -> None:
    selection = ",".join(f"churn/{stage}" for stage in stages)
    arguments = ["--select", selection, *partitions]
    done = run_python(
        world,
        ["-m", "dagster", "asset", "materialize", "-f", "definitions.py", *arguments],
        {"RETRAIN_EXECUTOR": "multiprocess"},
    )
    assert done.returncode == 0, done.stderr[-4000:]


def step_processes(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int:
    """How many step processes the run has started."""
    entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_WORKER_STARTED)
    return len({entry.step_key for entry in entries})


def test_every_step_in_its_own_process_leads_to_a_champion(stored_world: World) -> None:
    world = stored_world
    world.add()
    world.say(partitions=days(1, 6))
    write_project(world)
    materialize(world, STAGES[:3], ["--partition-range", f"{day(1)}...{day(6)}"])
    materialize(world, STAGES[3:], ["--partition", day(6)])
    retrain, monitor = world.instance.get_runs()
    assert (step_processes(world.instance, monitor), step_processes(world.instance, retrain)) == (
        3, 2,
    )  # fmt: skip
    assert world.materialized("drift_report") == set(days(1, 6))
    assert world.champion().version == "1"
    assert world.platform.registry.aliases("churn")["champion"] == "1"
