"""A run that is terminated ends, also where its process has not heard the first interrupt."""

import subprocess
import sys
import threading

import dagster as dg
import pytest

from retrain_assets.orchestration import launcher
from retrain_assets.orchestration.keys import Tag
from retrain_assets.orchestration.launcher import ScopedRunLauncher
from retrain_assets.orchestration.process_tag import process_tag

DEAF_AT_FIRST = """
import signal, sys, time
heard = []
def hear(*_):
    heard.append(1)
    if len(heard) == 2:
        sys.exit(3)
signal.signal(signal.SIGINT, hear)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


def launched(
    instance: dg.DagsterInstance, pid: int, status: dg.DagsterRunStatus
) -> tuple[dg.DagsterRun, ScopedRunLauncher]:
    """A run in this state whose process is `pid`, and its launcher."""
    run = dg.DagsterRun("__ASSET_JOB", status=status, tags={Tag.PROCESS: process_tag(pid)})
    instance.add_run(run)
    launcher = ScopedRunLauncher()
    launcher.register_instance(instance)
    return run, launcher


def test_a_process_that_lost_the_first_interrupt_gets_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launcher, "_AGAIN_SECONDS", 0.2)
    command = [sys.executable, "-c", DEAF_AT_FIRST]
    with (
        dg.DagsterInstance.ephemeral() as instance,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        run, ours = launched(instance, child.pid, dg.DagsterRunStatus.STARTED)
        try:
            assert ours.terminate(run.run_id)
            (insisting,) = [t for t in threading.enumerate() if t.name == f"terminate {run.run_id}"]
            assert child.wait(30) == 3
            insisting.join(30)
        finally:
            child.kill()


def test_a_run_that_has_ended_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_AGAIN_SECONDS", 0.0)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child,
    ):
        run, ours = launched(instance, child.pid, dg.DagsterRunStatus.CANCELED)
        try:
            ours._insist(run.run_id)
            assert child.poll() is None
        finally:
            child.kill()
