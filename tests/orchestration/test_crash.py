"""Kill it anywhere: nothing is lost, nothing comes twice."""

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml
from orchestration.harness import World, day, days, succeeded
from orchestration.processes import ROOT, run_python, started, write_project


@pytest.mark.parametrize("point", ["before registration", "after registration", "after promotion"])
def test_a_killed_retraining_that_is_run_again_gives_one_version_and_one_champion(
    stored_world: World, point: str
) -> None:
    world = stored_world
    world.add()
    succeeded(world.ingest(*days(1, 6)))
    killed = run_python(world, ["-m", "orchestration.killed_run", str(world.folder), point, day(6)])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (world.platform.ledger.champion("churn") is None) == (point != "after promotion")
    succeeded([world.retrain(day(6))])
    assert world.versions() == ["1"]
    assert [row.version for row in world.platform.ledger.history("churn")] == ["1"]
    assert world.platform.registry.aliases("churn") == {"candidate": "1", "champion": "1"}


def configure_crash(world: World) -> Path:
    """The repository's `dagster.yaml` with a run coordinator that crashes once."""
    config = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    config["run_coordinator"] |= {
        "module": "orchestration.crashing",
        "class": "CrashOnFirstSubmission",
    }
    path = world.folder / "dagster" / "dagster.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return world.folder / "crashed"


def wait_for(
    what: str, condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        text = log.read_text(encoding="utf-8")[-4000:]
        assert process.poll() is None, f"the daemon ended with {process.returncode}:\n{text}"
        assert time.monotonic() < deadline, f"waited for {what}:\n{text}"
        time.sleep(0.5)


@pytest.mark.timeout(420)
def test_a_daemon_killed_between_evaluation_and_submission_loses_nothing_and_repeats_nothing(
    folder: Path,
) -> None:
    (folder / "dagster").mkdir()
    world = World(folder, dg.DagsterInstance.ephemeral())
    world.add()
    world.say(partitions=[*days(1, 2), *days(4, 6)])
    write_project(world)
    marker = configure_crash(world)
    log = folder / "daemon.log"
    daemon = ("dagster-daemon", ["run", "-w", "workspace.yaml"], log)
    variables = {"CRASH_MARKER": str(marker)}

    with started(world, *daemon, variables) as process:
        assert process.wait(200) == -signal.SIGKILL, log.read_text(encoding="utf-8")[-4000:]
    with dg.DagsterInstance.from_config(str(folder / "dagster")) as instance:
        (created,) = instance.get_runs()
        assert created.run_id == marker.read_text(encoding="utf-8")
        assert created.status == dg.DagsterRunStatus.NOT_STARTED

        def finished() -> bool:
            runs = instance.get_runs()
            kinds = Counter(run.tags["retrain/kind"] for run in runs)
            return kinds == {"monitor": 2, "retrain": 1} and all(run.is_finished for run in runs)

        with started(world, *daemon, variables) as process:
            wait_for("two monitor runs and the first champion", finished, process, log)
            time.sleep(6)  # one more tick of every sensor, which must find nothing to do
        runs = instance.get_runs()
    keys = Counter(run.tags["dagster/run_key"] for run in runs)
    # Which of the two monitor runs comes last is chance; the first training is asked for once.
    first = [key for key in keys if key in (f"retrain|churn|first|{day(n)}" for n in (2, 6))]
    assert len(first) == 1
    assert keys == {
        f"monitor|churn|{day(1)}..{day(2)}|1": 1,
        f"monitor|churn|{day(4)}..{day(6)}|1": 1,
        first[0]: 1,
    }
    assert [run.status for run in runs if not run.is_success] == []
    assert world.champion().partition == day(6)
    assert world.versions() == ["1"]
