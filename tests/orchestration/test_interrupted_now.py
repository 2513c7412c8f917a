"""`retrain now` when somebody ends it: Ctrl-C, SIGTERM, and a kill of one of its processes.

Two models without partitions, whose retraining begins by reading their source, which keeps the first one
waiting: so every signal comes in the middle of it, and before the second.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import dagster as dg
import pytest
from e2e.dev_server import members
from orchestration.harness import World
from orchestration.processes import environment

from retrain_assets.orchestration.keys import Tag

pytestmark = pytest.mark.timeout(240)

NAMES = ("a1", "a2")
SUCCESS, CANCELED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED
T = TypeVar("T")


@pytest.fixture
def world(stored_world: World) -> World:
    """The models with data, of which the first waits in its source from now on."""
    for name in NAMES:
        # A request of its own keeps each in a run of its own.
        stored_world.add(
            name,
            partitions="none",
            source={"options": {"rows": 400}},
            train={"window": None, "min_window": None, "holdout": 0.3},
            resources={"candidate_model": {"memory": "1Gi"}},
        )
    for request in stored_world.loop.evaluate("arrivals"):
        assert stored_world.loop.execute("arrivals", request).success
    stored_world.say(hold=["a1"])
    return stored_world


@contextmanager
def retrain_now(world: World) -> Iterator[subprocess.Popen[str]]:
    """`retrain now --all` in a process group of its own, as a terminal starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "retrain_assets.cli", "now", "--all", "--jobs", "1", "--json",
         "--specs", str(world.specs_folder)],
        env=environment(world, PYTHONWARNINGS="default"), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A test command under nohup or `&` ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        yield process
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)


def soon(what: str, look: Callable[[], T | None], seconds: float = 90) -> T:
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.1)
    return found


def waiting(world: World) -> int:
    """The process of the first model's run, once it is in the middle of it."""
    path = world.folder / "waits-a1"
    return soon("a1 to begin", lambda: int(path.read_text()) if path.exists() else None)


def outcomes(process: subprocess.Popen[str]) -> dict[str, str]:
    """By model, when the command has ended and nothing of it is left."""
    out, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors, errors
    nobody_left(process)
    return {row["model"]: row["outcome"] for row in json.loads(out)["models"]}


def nobody_left(process: subprocess.Popen[str]) -> None:
    soon("the end of all processes", lambda: None if members(process.pid) else True, 30)


def statuses(world: World) -> dict[str, dg.DagsterRunStatus]:
    """The newest on-demand run of each model."""
    runs = world.instance.get_runs(dg.RunsFilter(tags={Tag.TRIGGER: "on_demand"}))
    return {run.tags[Tag.MODEL]: run.status for run in reversed(runs)}


def goes_on(world: World) -> None:
    """The next command retrains what was not; each model has one champion, promoted once."""
    world.say(hold=[])
    with retrain_now(world) as process:
        found = outcomes(process)
    assert process.returncode == 0
    assert set(found) == set(NAMES)
    assert statuses(world) == dict.fromkeys(NAMES, SUCCESS)
    for name in NAMES:
        history = world.platform.ledger.history(name)
        assert [row.version for row in history] == ["1"], name
        assert world.platform.registry.aliases(name)["champion"] == "1"


def test_control_c_lets_the_runs_end_that_go_on_and_begins_no_other(world: World) -> None:
    with retrain_now(world) as process:
        waiting(world)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(1)
        assert process.poll() is None
        world.say(hold=[])
        assert outcomes(process) == {"a1": "promoted", "a2": "canceled"}
    assert process.returncode == 130
    assert statuses(world) == {"a1": SUCCESS}


def test_a_second_control_c_cancels_them_and_the_next_command_goes_on(world: World) -> None:
    with retrain_now(world) as process:
        waiting(world)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        assert outcomes(process) == dict.fromkeys(NAMES, "canceled")
    assert process.returncode == 130
    assert statuses(world) == {"a1": CANCELED}
    goes_on(world)


def test_control_c_while_it_starts_leaves_nothing(world: World) -> None:
    with retrain_now(world) as process:
        soon("a second process", lambda: True if len(members(process.pid)) > 1 else None)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        nobody_left(process)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert statuses(world) == {}


def test_a_request_to_terminate_cancels_the_runs(world: World) -> None:
    with retrain_now(world) as process:
        waiting(world)
        process.terminate()
        process.communicate(timeout=60)
        nobody_left(process)
    assert process.returncode == 143
    assert statuses(world) == {"a1": CANCELED}


def test_a_worker_that_is_killed_is_reported_and_the_others_go_on(world: World) -> None:
    with retrain_now(world) as process:
        os.kill(waiting(world), signal.SIGKILL)
        found = outcomes(process)
    assert process.returncode == 1
    assert found == {"a1": "canceled", "a2": "promoted"}
    assert statuses(world) == {"a1": CANCELED, "a2": SUCCESS}


def test_workers_end_with_a_command_that_is_killed_and_the_next_one_cleans_up(
    world: World,
) -> None:
    with retrain_now(world) as process:
        waiting(world)
        process.kill()
        nobody_left(process)
    goes_on(world)
    runs = world.instance.get_runs(dg.RunsFilter(tags={Tag.TRIGGER: "on_demand"}))
    assert sorted(run.status.value for run in runs) == ["CANCELED", "SUCCESS", "SUCCESS"]
