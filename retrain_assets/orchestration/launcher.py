"""A run launcher for large fleets on one machine: a run process builds the definitions of its own models only.

https://docs.dagster.io/deployment/execution/run-launchers

In `dagster.yaml`:

    run_launcher:
      module: retrain_assets.orchestration.launcher
      class: ScopedRunLauncher

Opt-in, and worthwhile from several hundred models (docs/fleet.md has the figures). Dagster's own local
launcher asks the code server to start the run, whose process builds all definitions again; this one
starts `dagster api execute_run` with `RETRAIN_MODELS`, as the Kubernetes launcher does through the run's
environment. A run process is in a session of its own: it outlives a daemon that is restarted, and is
found again by what the run's tags say of it.

`ExecuteRunArgs` and the types of the health check are not public in Dagster 1.13; every launcher outside
Dagster's core (dagster-k8s, dagster-docker) imports them from the same places.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs

from retrain_assets.orchestration.keys import QUARANTINE, Tag
from retrain_assets.orchestration.process_tag import host, living, process_tag

__all__ = ["ScopedRunLauncher", "scope_of"]

_ASSET_JOB = "__ASSET_JOB"
_AGAIN_SECONDS = 15.0
"""What a step that was interrupted may take to clean up after itself."""
_TIMES = 10


class ScopedRunLauncher(dg.DefaultRunLauncher):
    """Starts each run in a process of its own, with the definitions of its own models."""

    def __init__(self, inst_data: object = None) -> None:
        super().__init__(inst_data)  # type: ignore[arg-type]
        self._children: list[subprocess.Popen[bytes]] = []

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's process and note on the run where it is."""
        self._reap()
        run = context.dagster_run
        origin = run.job_code_origin
        if origin is None:
            raise dg.DagsterInvariantViolationError(
                f"run {run.run_id} does not say where its code is; ScopedRunLauncher needs a code "
                "location made of a Python file or module (workspace.yaml: python_file)"
            )
        arguments = ExecuteRunArgs(
            job_origin=origin,
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        )
        child = subprocess.Popen(
            _command(arguments),
            env={**os.environ, **scope_of(run)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._children.append(child)
        self._instance.add_run_tags(run.run_id, {Tag.PROCESS: process_tag(child.pid)})

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run's process, which then ends the run; False if there is none."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        pid = living(run.tags.get(Tag.PROCESS))
        if pid is None:
            self._instance.report_run_canceled(run, message="The run's process had ended already.")
            return False
        os.kill(pid, signal.SIGINT)
        again = threading.Thread(
            target=self._insist, args=(run_id,), name=f"terminate {run_id}", daemon=True
        )
        again.start()
        return True

    def _insist(self, run_id: str) -> None:
        """Interrupt the run's process again while it goes on: Python loses an interrupt that comes while
        code runs which lets no exception out, as in the imports of some libraries."""
        for _ in range(_TIMES):
            time.sleep(_AGAIN_SECONDS)
            run = self._instance.get_run_by_id(run_id)
            pid = None if run is None or run.is_finished else living(run.tags.get(Tag.PROCESS))
            if pid is None:
                return
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGINT)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: Dagster's run monitoring ends runs whose process is gone."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is alive; unknown where it runs on another machine."""
        self._reap()
        tag = run.tags.get(Tag.PROCESS)
        if tag is None:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "the process is not noted on the run")
        if tag.split(" ")[0] != host():
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, f"the process is elsewhere: {tag}")
        if living(tag) is None:
            return CheckRunHealthResult(WorkerStatus.FAILED, f"its process has ended: {tag}")
        return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=tag)

    def join(self, timeout: int = 30) -> None:
        """Wait until the processes that this launcher has started have ended.

        Raises:
            subprocess.TimeoutExpired: one has not in `timeout` seconds.
        """
        for child in self._children:
            child.wait(timeout)
        self._reap()

    def _reap(self) -> None:
        """Collect the processes that have ended, which would stay zombies."""
        self._children = [child for child in self._children if child.poll() is None]


def _command(arguments: ExecuteRunArgs) -> list[str]:
    """The command line; a plain `dagster`, which may not be on the path, is this interpreter's."""
    command = list(arguments.get_command_args())
    return [sys.executable, "-m", *command] if command[0] == "dagster" else command


def scope_of(run: dg.DagsterRun) -> dict[str, str]:
    """`RETRAIN_MODELS` for a run of models' assets; nothing where the run may need other definitions."""
    keys = [
        *(run.asset_selection or ()),
        *(check.asset_key for check in run.asset_check_selection or ()),
    ]
    of_models = all(len(key.path) == 2 and key.path[0] != QUARANTINE for key in keys)
    if run.job_name != _ASSET_JOB or not keys or not of_models:
        return {}
    return {"RETRAIN_MODELS": ",".join(sorted({key.path[0] for key in keys}))}
